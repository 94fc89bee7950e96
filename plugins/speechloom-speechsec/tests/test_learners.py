"""The two learners: what they prepare, how they learn, and that an export is a component."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechloom.errors import UsageError, WeightsError
from speechloom.registry import default_registry
from speechloom.testing import check_learner, made_examples
from speechloom.testing.canvases import CanvasItem, make_canvas
from speechloom.testing.fake_specs import PHONES
from speechloom.testing.fakes import (
    FakeAligner,
    FakeCodec,
    FakeFrontend,
    FakeGenerator,
    FakeSpeakerEncoder,
    FakeTextGenerator,
    FakeTokenizer,
)
from speechloom.testing.inputs import made_audio
from speechloom.training.example import Example
from speechloom.training.learner import ExportTarget, Learner
from speechloom_speechsec._spec import spec_for
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.learner import SpeechSECLearner
from speechloom_speechsec.text_generator import SpeechSECTextGenerator
from speechloom_speechsec.text_learner import SpeechSECTextLearner

TINY: dict[str, Any] = {"network": {"size": "tiny"}}
CODES: dict[str, Any] = {
    **TINY,
    "tokenizer": "fake-tokenizer",
    "codec": "fake-codec",
    "voice": "fake-speaker-encoder",
    "voice_seconds": 0.4,
    "embeddings": "random",
}
TEXT: dict[str, Any] = {
    **TINY,
    "frontend": "fake-frontend",
    "tokenizer": "fake-tokenizer",
    "aligner": "fake-aligner",
}


@pytest.fixture(autouse=True)
def fakes() -> Iterator[None]:
    kinds = (FakeTokenizer, FakeCodec, FakeSpeakerEncoder, FakeFrontend, FakeAligner)
    with default_registry().override(*(one.from_random(one.default_spec) for one in kinds)):
        yield


@pytest.fixture
def example(tmp_path: Path) -> Example:
    """1.5 s, 75 frames."""
    path = tmp_path / "said.wav"
    soundfile.write(path, made_audio(24_000).samples.T, 16_000)
    return Example(audio=path, id="said", text="hello there")


def codes_learner(seed: int = 1, **changes: Any) -> SpeechSECLearner:
    settings = SpeechSECLearner.settings_type.model_validate({**CODES, **changes})
    return SpeechSECLearner(settings, seed=seed)


def text_learner(**changes: Any) -> SpeechSECTextLearner:
    settings = SpeechSECTextLearner.settings_type.model_validate({**TEXT, **changes})
    return SpeechSECTextLearner(settings, seed=1)


def course(learner: Learner, examples: list[Example], steps: int) -> list[float]:
    """The summed losses of a short training."""
    items = [learner.prepare(one) for one in examples]
    optimiser = torch.optim.AdamW(learner.network.parameters(), lr=5e-3)
    losses = []
    for step in range(steps):
        batch = learner.collate(items * 6, np.random.default_rng(step))
        draw, total = torch.Generator().manual_seed(step), torch.zeros(())
        for phase in learner.phases:
            total = total + learner.loss(phase.name, batch, draw, step)[0]
        total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(total.detach()))
    return losses


def test_codes_are_prepared_at_the_frames_of_the_codec(example: Example) -> None:
    learner = codes_learner()
    item = learner.prepare(example)
    assert {name: list(value.shape) for name, value in item.items()} == {
        "content": [75],
        "codes": [8, 75],
        "voices": [3, 4],
    }
    audio = example.load()
    assert torch.equal(
        item["codes"].long(), FakeCodec.from_random(FakeCodec.default_spec).encode([audio]).item(0)
    )
    assert learner.length(item) == 75
    assert codes_learner(crop_seconds=0.5).length(item) == 25


def test_pieces_may_have_the_units_that_synthesis_has(example: Example) -> None:
    said = {"generator": "fake-text-generator", "frontend": "fake-frontend"}
    alignment = (("h", 0.5), ("i", 1.5))
    generator = FakeTextGenerator.from_random(FakeTextGenerator.default_spec)
    with default_registry().override(generator):
        learner = codes_learner(said={**said, "share": 0.5})
        item = learner.prepare(replace(example, alignment=alignment))
        silent = learner.prepare(replace(example, text=None))
        assert "said" in learner.cache_key()
        assert learner.cache_key() != codes_learner().cache_key()
        wrong = codes_learner(said={**said, "generator": "fake-generator"})
        wrong_canvas = replace(example, alignment=alignment)
    h, i = (PHONES.index(p) for p in "hi")
    content, starts = [h] * 25 + [i] * 50, [0] * 25 + [1] * 50
    canvas = make_canvas(generator.spec.facts, "synthesize", "phones:letters", [CanvasItem(75)])
    wanted = generator.fill(
        replace(
            canvas,
            content=torch.tensor([content]),
            segments=torch.tensor([starts]),
            seeds=torch.tensor([0]),
        )
    )
    assert torch.equal(item["said"].long(), wanted.ids[0])
    assert torch.equal(silent["said"], silent["content"])
    item["said"] = torch.full_like(item["content"], 77)
    batch = learner.collate([item] * 40, np.random.default_rng(0))
    assert 10 < int((batch["content"][:, 5] == 77).sum()) < 30
    with default_registry().override(FakeGenerator.from_random(FakeGenerator.default_spec)):
        with pytest.raises(UsageError, match="fake-generator"):
            wrong.prepare(wrong_canvas)


def test_batches_are_crops_of_content_and_codes_at_one_place(example: Example) -> None:
    learner = codes_learner(crop_seconds=0.5)
    item = learner.prepare(example)
    item["content"] = torch.arange(75, dtype=torch.int32)
    item["codes"] = (torch.arange(75) + torch.arange(8)[:, None]).int()
    batch = learner.collate([item, item, item], np.random.default_rng(0))
    assert batch["content"].shape == (3, 32)
    assert batch["lengths"].tolist() == [25, 25, 25]
    starts = batch["content"][:, 0]
    assert len(set(starts.tolist())) == 3
    wanted = starts[:, None, None] + torch.arange(8)[:, None] + torch.arange(25)
    assert torch.equal(batch["codes"][..., :25], wanted)
    assert batch["voice"].shape == (3, 4)


def test_the_same_draws_give_the_same_loss_and_others_another(example: Example) -> None:
    learner = codes_learner()
    item = learner.prepare(example)

    def loss(rng: int, draw: int) -> float:
        batch = learner.collate([item, item], np.random.default_rng(rng))
        made, _ = learner.loss("train", batch, torch.Generator().manual_seed(draw), 0)
        return made.item()

    assert loss(1, 2) == loss(1, 2)
    assert loss(1, 2) != loss(1, 3)
    assert (
        codes_learner(seed=2)
        .network.generator.head_weight.ne(learner.network.generator.head_weight)
        .any()
    )


@pytest.mark.parametrize(
    ("weights", "tasks"),
    [
        ({"synthesize": 1}, ("synthesize",)),
        ({"convert": 1, "synthesize": 2, "edit": 0}, ("synthesize", "convert")),
    ],
)
def test_a_network_claims_the_tasks_that_it_learns(
    weights: dict[str, float], tasks: tuple[str, ...]
) -> None:
    learner = codes_learner(masks={"task_weights": weights})
    assert learner.config.facts.tasks == tasks
    assert learner.config.facts.free_tasks == ()
    assert learner.masks.task_weights == tuple(
        float(weights.get(task, 0)) for task in ("synthesize", "continue", "edit", "convert")
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"masks": {"task_weights": {"sing": 1}}},
        {"masks": {"task_weights": {"edit": 0}}},
        {"masks": {"task_weights": {"edit": -1, "synthesize": 2}}},
        {"network": {"size": "huge"}},
        {"network": {"colour": 1}},
        {"embeddings": "none"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        codes_learner(**wrong)


def test_text_is_prepared_in_time(example: Example) -> None:
    given = replace(example, alignment=(("h", 0.1), ("i", 0.5), ("_", 1.5)), text=None)
    item = text_learner(aligner=None).prepare(given)
    h, i = (FakeFrontend.default_spec.facts.phones.index(p) for p in "hi")  # type: ignore[union-attr]
    assert item["phones"].tolist() == [h, i, 0]
    assert item["frames"].tolist() == pytest.approx([5, 20, 50])
    thirds = item["content"].tolist()
    assert thirds[:5] == [3 * h, 3 * h, 3 * h + 1, 3 * h + 1, 3 * h + 2]
    assert set(thirds[25:]) == {0, 1, 2}
    assert item["codes"].shape == (1, 75)
    found = text_learner().prepare(example)
    assert len(found["content"]) == 75
    assert float(found["frames"].sum()) == pytest.approx(75)


@pytest.mark.parametrize(
    ("alignment", "named"),
    [
        ((("?", 0.1),), r"phones \['\?'\]"),
        ((("h", 0.3), ("i", 0.1)), "must not fall"),
        ((), "no phones"),
        (None, "settings.aligner"),
    ],
)
def test_text_that_cannot_be_placed_is_refused(
    example: Example, alignment: Any, named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        text_learner(aligner=None).prepare(replace(example, alignment=alignment))


def target(folder: Path) -> ExportTarget:
    folder.mkdir()
    return ExportTarget(folder, str(folder), "mine", "MIT", "pip install speechloom-mine")


def test_codes_are_learnt_and_exported(example: Example, tmp_path: Path) -> None:
    learner = codes_learner(half=False, masks={"task_weights": {"synthesize": 1}})
    losses = course(learner, [example], 60)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    (spec,) = learner.export(target(tmp_path / "run"))
    assert spec.id == "mine"
    assert spec.facts == learner.config.facts
    generator = SpeechSECGenerator.from_pretrained(spec)
    assert set(generator.weights) == {"config.json", "model.safetensors"}
    again = spec_for(tmp_path / "run", id="mine")
    assert again.facts == spec.facts
    for name, value in generator._network.state_dict().items():
        assert torch.equal(value, learner.network.generator.state_dict()[name])
    (tmp_path / "run" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="SHA-256"):
        SpeechSECGenerator.from_pretrained(spec)


def test_text_is_learnt_and_exported(example: Example, tmp_path: Path) -> None:
    learner = text_learner()
    losses = course(learner, [example], 60)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    (spec,) = learner.export(target(tmp_path / "run"))
    generator = SpeechSECTextGenerator.from_pretrained(spec)
    (phones,) = FakeFrontend.from_random(FakeFrontend.default_spec).phonemize("hello there")
    assert sum(generator.durations([phones])[0]) == pytest.approx(75, abs=25)


def test_training_goes_on_from_a_bare_network_and_from_an_export(tmp_path: Path) -> None:
    first, second = codes_learner(seed=1), codes_learner(seed=2)
    second.start_from(first.network.generator.state_dict(), "u2c.safetensors")
    assert torch.equal(first.network.generator.head_weight, second.network.generator.head_weight)
    third = codes_learner(seed=3)
    third.start_from(first.network.state_dict(), "model.safetensors")
    assert torch.equal(first.network.generator.head_weight, third.network.generator.head_weight)
    with pytest.raises(WeightsError, match="u2c"):
        third.start_from({"x": torch.zeros(1)}, "u2c.safetensors")


@pytest.mark.parametrize(("id", "settings"), [("speechsec", CODES), ("speechsec-text", TEXT)])
def test_the_learners_conform(id: str, settings: dict[str, Any], tmp_path: Path) -> None:
    check_learner(id, made_examples(tmp_path), settings=settings)
