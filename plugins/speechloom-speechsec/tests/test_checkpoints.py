"""Generators from checkpoints: conformance, configurations that do not fit, the two conditions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechloom.compatibility import generator_between
from speechloom.errors import WeightsError
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.testing import fake_specs, parametrize_with_checks
from speechloom.testing.canvases import CanvasItem, make_canvas
from speechloom.testing.fakes import FakeFrontend
from speechloom.testing.inputs import Inputs
from speechloom.values import Codes
from speechloom_speechsec._spec import spec_for, spec_of_config
from speechloom_speechsec.checkpoint import CheckpointConfig, DecodeSettings
from speechloom_speechsec.config import DurationConfig, tiny
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.loss import masked_loss
from speechloom_speechsec.masks import CONTINUE, MaskConfig, draw_training_mask
from speechloom_speechsec.model import SpeechSEC
from speechloom_speechsec.text_generator import SpeechSECTextGenerator
from speechloom_speechsec.weights import Networks, write_checkpoint

PHONES = fake_specs.PHONES
ANY = "not.needed:Here"


def codes_config(**network: Any) -> CheckpointConfig:
    """Fake units and a fake voice to fake codes."""
    facts = generator_between(
        fake_specs.TOKENIZER,
        fake_specs.CODEC,
        id="codes",
        implementation=ANY,
        voice=fake_specs.SPEAKER_ENCODER,
        max_seconds=2.0,
    ).facts
    assert isinstance(facts, GeneratorFacts)
    sizes = tiny(content_vocab=128, codebooks=8, codebook_size=256, voice_dim=4)
    return CheckpointConfig(
        facts=facts,
        network=sizes.model_copy(update=network),
        decode=DecodeSettings(steps=(3,), temperature=0.7, top_k=9),
        free=DecodeSettings(steps=(2,), temperature=1.5),
    )


def text_config() -> CheckpointConfig:
    """Letters to fake units."""
    facts = generator_between(
        fake_specs.FRONTEND, fake_specs.TOKENIZER, id="text", implementation=ANY, max_seconds=2.0
    ).facts
    assert isinstance(facts, GeneratorFacts)
    return CheckpointConfig(
        facts=facts.model_copy(update={"styles": ("rate",), "languages": ("en",)}),
        network=tiny(content_vocab=3 * 27, codebooks=1, codebook_size=128, voice_dim=0),
        phones=PHONES,
        durations=DurationConfig(phones=27, width=8, depth=1),
    )


CODES = spec_of_config(codes_config(), id="codes", checkpoint="somewhere")
TEXT = spec_of_config(text_config(), id="text", checkpoint="somewhere")
CHECKS = [
    pytest.param(*one.values, id=f"{spec.id}-{one.id}", marks=one.marks)
    for spec in (CODES, TEXT)
    for one in parametrize_with_checks(spec, inputs=Inputs(symbols={"letters": PHONES})).args[1]
    if one.id != "memory_is_flat"  # twenty calls; the starter's generators, which these are, do it
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def written(
    folder: Path, config: CheckpointConfig, **options: Any
) -> tuple[Networks, ComponentSpec]:
    networks = Networks(config, seed=5)
    write_checkpoint(folder, config, networks.state_dict(), **options)
    return networks, spec_for(folder, id="mine")


def test_a_generator_comes_back_as_it_was_written(tmp_path: Path) -> None:
    config = codes_config()
    networks, spec = written(tmp_path, config)
    assert (spec.facts, spec.implementation) == (CODES.facts, CODES.implementation)
    generator = SpeechSECGenerator.from_pretrained(spec)
    assert set(generator.weights) == {"config.json", "model.safetensors"}
    canvas = make_canvas(config.facts, "edit", "tokens:fake-units", [CanvasItem(20)])
    direct = SpeechSECGenerator(spec, networks.generator, decode=config.decode.config())
    made, wanted = generator.fill(canvas), direct.fill(canvas)
    assert isinstance(made, Codes)
    assert isinstance(wanted, Codes)
    assert torch.equal(made.ids, wanted.ids)
    assert generator._free.steps == (2,)
    assert generator._decode.sample.top_k == 9


def test_half_the_size_is_nearly_the_same(tmp_path: Path) -> None:
    networks, spec = written(tmp_path, text_config(), half=True)
    generator = SpeechSECTextGenerator.from_pretrained(spec)
    weight = generator._network.head_weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, networks.generator.head_weight, rtol=1e-3, atol=1e-5)
    (phones,) = FakeFrontend.from_random(FakeFrontend.default_spec).phonemize("hello")
    slow, fast = (sum(generator.durations([phones], rate=rate)[0]) for rate in (0.5, 2.0))
    assert slow > fast


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"network": {"codebooks": 7}}, "codebooks is 7"),
        ({"network": {"voice_dim": 5}}, "voice_dim is 5"),
        ({"network": {"dim": 15}}, "must be even"),
        ({"colour": 1}, "colour"),
        ({"durations": {"phones": 3}}, "durations is True"),
        ({"format": "speechsec-9"}, "format"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    written(tmp_path, codes_config())
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for key, value in change.items():
        nested = isinstance(value, dict) and content.get(key)
        content[key] = {**content[key], **value} if nested else value
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=named):
        spec_for(tmp_path, id="mine")


def test_a_spec_of_other_facts_is_refused(tmp_path: Path) -> None:
    _, spec = written(tmp_path, codes_config())
    other = spec.model_copy(update={"facts": spec.facts.model_copy(update={"max_seconds": 9.0})})
    with pytest.raises(WeightsError, match="spec_for"):
        SpeechSECGenerator.from_pretrained(other)


def test_a_text_generator_of_one_rate_says_so() -> None:
    facts = TEXT.facts.model_copy(update={"styles": ()})
    generator = SpeechSECTextGenerator.from_random(TEXT.model_copy(update={"facts": facts}))
    (phones,) = FakeFrontend.from_random(FakeFrontend.default_spec).phonemize("hello")
    assert generator.durations([phones])
    with pytest.raises(ValueError, match="one rate"):
        generator.durations([phones], rate=2.0)


# The condition of a continuation ----------------------------------------------------------


def test_a_continuation_hears_its_prompt_twice_in_training() -> None:
    """The known codes of the level enter once more, for continuations without content only."""
    model = SpeechSEC(tiny().model_copy(update={"prompt_embedding": True}), seed=1)
    codes = torch.randint(0, 11, (40, 3, 20), generator=torch.Generator().manual_seed(0))
    config = MaskConfig(task_weights=(1, 1, 1, 1), said_share=0.3)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.full((40,), 20)
    made = draw_training_mask(
        codes, codes[:, 0] % 7, lengths, mask_id=11, generator=generator, config=config
    )
    assert 0 < int(made.free.sum()) < int((made.task == CONTINUE).sum())
    masked_loss(model, codes, lengths, made).loss.backward()  # type: ignore[no-untyped-call]
    gradient = model.prompt_embedding.weight.grad
    assert gradient is not None
    seen = set(torch.nonzero(gradient.abs().sum(-1))[:, 0].tolist())
    own = codes[torch.arange(40), made.level].masked_fill(made.region, 11)
    wanted = own + 12 * made.level[:, None]
    assert seen == set(wanted[made.free].flatten().tolist())


def test_a_continuation_hears_its_prompt_twice_in_decoding() -> None:
    spec = spec_of_config(codes_config(prompt_embedding=True), id="codes", checkpoint="x")
    config = codes_config(prompt_embedding=True).network
    network = SpeechSEC(config, seed=1)
    generator = SpeechSECGenerator(spec, network)
    facts = spec.facts
    assert isinstance(facts, GeneratorFacts)
    free = make_canvas(facts, "continue", None, [CanvasItem(24)])
    said = make_canvas(facts, "continue", "tokens:fake-units", [CanvasItem(24)])

    def made(canvas: Any) -> Any:
        filled = generator.fill(canvas)
        assert isinstance(filled, Codes)
        return filled.ids

    before = made(free), made(said)
    with torch.no_grad():
        network.prompt_embedding.weight.normal_(generator=torch.Generator().manual_seed(2))
    generator.execution = generator.execution
    assert not torch.equal(made(free), before[0])
    assert torch.equal(made(said), before[1])
    batch = make_canvas(facts, "continue", None, [CanvasItem(24), CanvasItem(9, seed=3)])
    assert torch.equal(made(batch)[0], made(free)[0])
