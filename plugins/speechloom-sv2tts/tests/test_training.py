import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from speechloom.errors import AudioError, UsageError
from speechloom.testing import check_learner, made_examples
from speechloom.testing.inputs import made_audio
from speechloom.training.example import Example
from speechloom.training.learner import ExportTarget
from speechloom_sv2tts.config import Ge2eConfig
from speechloom_sv2tts.ge2e import Ge2eEncoder
from speechloom_sv2tts.generator import Tacotron2Generator
from speechloom_sv2tts.training.ge2e import Ge2eLearner, Ge2eSettings, ge2e_loss, similarities
from speechloom_sv2tts.training.tacotron2 import (
    Sizes,
    Tacotron2Learner,
    Tacotron2Settings,
    guide,
)

SMALL = Sizes(
    reduction=2, embedding=8, encoder=8, prenet=8, attention_rnn=16, decoder_rnn=16, attention=8,
    location_filters=4, location_kernel=7, postnet=8,
)  # fmt: skip


def example(folder: Path, seconds: float = 0.6, number: int = 0, **facts: object) -> Example:
    import soundfile

    path = folder / f"{number}.wav"
    soundfile.write(path, made_audio(int(seconds * 16_000), number=number).samples.T, 16_000)
    return Example(audio=path, id=str(number), **facts)  # type: ignore[arg-type]


def target(folder: Path) -> ExportTarget:
    return ExportTarget(folder, str(folder), "mine", "MIT", "pip install mine")


def learner(**more: float) -> Tacotron2Learner:
    settings = Tacotron2Settings(frontend="tacotron2-characters", voice=None, sizes=SMALL, **more)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tacotron2Learner(settings, seed=0)


def test_the_guide_is_free_on_the_diagonal() -> None:
    cost = guide(torch.tensor([4, 2]), torch.tensor([8, 4]), 0.2)
    assert cost.shape == (2, 8, 4)
    assert torch.allclose(cost[0, torch.arange(0, 8, 2), torch.arange(4)], torch.zeros(4))
    assert float(cost[0, 0, 3]) == pytest.approx(1 - math.exp(-(0.75**2) / 0.08), abs=1e-6)
    assert not cost[1, 4:].any()
    assert not cost[1, :, 2:].any()


def test_tacotron2_learns_an_utterance_and_is_exported(tmp_path: Path) -> None:
    trained = learner()
    items = [
        trained.prepare(example(tmp_path, text="A bee.", number=0)),
        trained.prepare(example(tmp_path, 0.4, text="Sea", number=1)),
    ]
    assert items[0]["mel"].shape == (80, 48)
    assert trained.length(items[1]) == 32
    batch = trained.collate(items, np.random.default_rng(0))
    assert batch["symbols"].tolist()[1][3:] == [1, 0, 0]
    optimizer = torch.optim.Adam(trained.network.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        torch.manual_seed(step)
        loss, numbers = trained.loss("train", batch, torch.Generator().manual_seed(step), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert set(numbers) == set(trained.watch) | {"coarse"}
    assert losses[-1] < 0.7 * losses[0]
    trained.network.eval()
    (spec,) = trained.export(target(tmp_path))
    loaded = Tacotron2Generator.from_pretrained(spec)
    frontend = trained._facts.phones
    assert spec.options["phones"] == list(frontend)
    for name, value in trained.network.state_dict().items():
        assert torch.equal(loaded._network.state_dict()[name], value)


def test_tacotron2_learns_in_mixed_precision(tmp_path: Path) -> None:
    trained = learner()
    batch = trained.collate(
        [trained.prepare(example(tmp_path, text="A"))], np.random.default_rng(0)
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = trained.loss("train", batch, torch.Generator().manual_seed(0), 0)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in trained.network.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_withheld_frames_are_not_heard(training: bool, tmp_path: Path) -> None:
    heard = []
    for withheld in (1.0, 0.0):
        trained = learner(withheld=withheld)
        trained.network.train(training)
        item = trained.prepare(example(tmp_path, text="A bee."))
        batch = trained.collate([item], np.random.default_rng(0))
        mel = batch["mel"]
        said = []
        for changed in (mel, mel + torch.linspace(-1, 1, mel.shape[-1])):
            torch.manual_seed(0)
            kept = trained._kept(1, mel.shape[-1], torch.Generator().manual_seed(0))
            symbols, lengths, frames = (batch[name] for name in ("symbols", "lengths", "frames"))
            said.append(trained.network(symbols, lengths, changed, frames, None, kept).coarse)
        heard.append(not torch.equal(*said))
    assert heard == [False, True]


def test_a_share_of_whole_frames_is_withheld() -> None:
    generator = torch.Generator().manual_seed(0)
    kept = learner(withheld=0.3)._kept(40, 200, generator)
    heard = kept.flatten(-2).any(-1)
    assert float(heard.float().mean()) == pytest.approx(0.7, abs=0.02)
    assert float(kept[heard].float().mean()) == pytest.approx(0.5, abs=0.02)
    plain = learner()._kept(40, 200, torch.Generator().manual_seed(0))
    assert torch.equal(kept[heard], plain[heard])


def test_phones_come_from_the_alignment(tmp_path: Path) -> None:
    trained = learner()
    one = example(tmp_path, text="not this", alignment=(("a", 0.2), ("b", 0.6)))
    assert trained.prepare(one)["symbols"].tolist() == [trained._ids["a"], trained._ids["b"]]
    with pytest.raises(UsageError, match="the phones zz are not those of tacotron2-characters"):
        trained.prepare(example(tmp_path, alignment=(("zz", 0.6),)))
    with pytest.raises(UsageError, match="needs a text or an alignment"):
        trained.prepare(example(tmp_path))


def test_frames_know_their_phones_and_the_attention_is_held_to_them(tmp_path: Path) -> None:
    aligned = example(tmp_path, alignment=(("a", 0.2), ("b", 0.4), ("c", 0.5), ("d", 0.6)))
    free = example(tmp_path, 0.4, number=1, text="abcde")  # and an end
    trained = learner(held=1.0)
    items = [trained.prepare(aligned), trained.prepare(free)]
    # 80 frames a second; the last phone goes on to the end of the recording.
    assert items[0]["said"].bincount().tolist() == [16, 16, 8, 8]
    assert "said" not in items[1]
    batch = trained.collate(items, np.random.default_rng(0))
    held = batch["held"]
    assert held.shape == (2, 24, 6)
    assert held[0, 0].nonzero().flatten().tolist() == [0, 1]
    assert held[0, 12].nonzero().flatten().tolist() == [0, 1, 2]
    assert held[0, 23].nonzero().flatten().tolist() == [2, 3]
    assert held[1].all()
    _, attention = attention_of(trained, batch)
    assert not attention[~held].any()
    assert torch.allclose(attention.sum(-1), torch.ones(2, 24))
    anywhere = learner().collate(items, np.random.default_rng(0))["held"]
    assert anywhere.any(1).tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert torch.equal(anywhere.any(1), anywhere.all(1))


def attention_of(
    trained: Tacotron2Learner, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    said = trained.network(
        batch["symbols"], batch["lengths"], batch["mel"], batch["frames"], None, None, batch["held"]
    )
    return said.mel, said.attention


def test_a_share_of_the_examples_is_held(tmp_path: Path) -> None:
    trained = learner(held=0.5)
    item = trained.prepare(example(tmp_path, alignment=(("a", 0.2), ("b", 0.4), ("c", 0.6))))
    held = trained.collate([item] * 60, np.random.default_rng(0))["held"]
    whole = held.all((1, 2))
    assert 20 < int(whole.sum()) < 40


def test_the_cache_knows_what_items_are_made_of() -> None:
    key = json.loads(learner().cache_key())
    assert any("mel-rate=16000" in str(part) for part in key)


# GE2E -------------------------------------------------------------------------------------


def test_similarities_by_hand() -> None:
    """Two speakers on the two axes; each recording is compared with the other one of its own."""
    embedded = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    assert torch.equal(
        similarities(embedded), torch.tensor([[[1.0, 0], [1, 0]], [[0, 1.0], [0, 1]]])
    )
    mixed = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    scores = similarities(mixed)
    assert scores[0, 0].tolist() == [0.0, 0.0]
    assert scores[0, 1].tolist() == [0.0, 1.0]
    assert float(ge2e_loss(torch.zeros(3, 2, 3))) == pytest.approx(math.log(3))


def test_ge2e_learns_two_speakers_and_is_exported(tmp_path: Path) -> None:
    sizes = Ge2eConfig(hidden=8, layers=1, size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained = Ge2eLearner(Ge2eSettings(sizes=sizes, recordings=2, voice="v"), seed=0)
    items = [
        trained.prepare(example(tmp_path, 1.2, number=number, speaker="ab"[number % 2]))
        for number in range(3)
    ]
    batch = trained.collate(items, np.random.default_rng(0))
    # The second speaker has one recording: two windows of it.
    assert batch["mel"].shape == (2, 2, 160, 40)
    optimizer = torch.optim.Adam(trained.network.parameters(), lr=1e-2)
    losses = []
    for step in range(15):
        loss, numbers = trained.loss("train", batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert float(numbers["speakers"]) == 2
    (spec,) = trained.export(target(tmp_path))
    encoder = Ge2eEncoder.from_pretrained(spec)
    (voice,) = encoder.embed([made_audio(16_000)])
    assert voice.kind == "v"
    assert voice.vector.shape == (8,)


def test_ge2e_says_what_an_example_lacks(tmp_path: Path) -> None:
    trained = Ge2eLearner(Ge2eSettings(sizes=Ge2eConfig(hidden=4, layers=1, size=4)), seed=0)
    with pytest.raises(UsageError, match="needs a speaker"):
        trained.prepare(example(tmp_path))
    with pytest.raises(AudioError, match=r"of speech; at least 0\.8 s"):
        trained.prepare(example(tmp_path, 0.3, speaker="a"))


# Both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"withheld": 0.5, "held": 0.5}])
def test_the_learner_of_tacotron2_conforms(more: dict[str, float], tmp_path: Path) -> None:
    settings = {"frontend": "tacotron2-characters", "voice": None, "sizes": SMALL.model_dump()}
    alignment = (("a", 0.3), ("b", 0.5), ("c", 1.0))
    given = [
        replace(one, alignment=alignment if number else None)
        for number, one in enumerate(made_examples(tmp_path))
    ]
    check_learner("tacotron2", given, settings={**settings, **more})


def test_the_learner_of_ge2e_conforms(tmp_path: Path) -> None:
    settings = {"sizes": Ge2eConfig(hidden=8, layers=1, size=8).model_dump()}
    check_learner("ge2e", made_examples(tmp_path, 4), settings=settings)
