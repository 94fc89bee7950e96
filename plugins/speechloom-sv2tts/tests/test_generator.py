import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from speechloom.errors import UnsupportedCapability, UsageError, WeightsError
from speechloom.mel import RTVC_SYNTHESIZER
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.testing.canvases import CanvasItem, make_canvas
from speechloom.values import Phones
from speechloom_sv2tts import tacotron2_spec
from speechloom_sv2tts._spec import TACOTRON2_LJSPEECH
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.generator import Tacotron2Generator, _said
from speechloom_sv2tts.tacotron2 import Tacotron2
from speechloom_sv2tts.weights import read_tacotron2

SIZES = TacotronConfig.tiny(symbols=5, bands=80, voice=4, reduction=3)


def spec_of(checkpoint: str | Path) -> ComponentSpec:
    return tacotron2_spec(
        checkpoint,
        id="mine",
        mel=RTVC_SYNTHESIZER,
        alphabet="abcd",
        symbols={"a": 1, "b": 2, "c": 3, "d": 4},
        config=SIZES,
        voice="ge2e",
        max_seconds=3,
    )


SPEC = spec_of("nowhere")


@pytest.fixture(params=[0.0, 0.9], ids=["hears its frames", "hears few of them"])
def generator(request: pytest.FixtureRequest) -> Tacotron2Generator:
    sizes = SIZES.model_copy(update={"withheld": request.param})
    options = {**SPEC.options, "config": sizes.model_dump()}
    return Tacotron2Generator.from_random(SPEC.model_copy(update={"options": options}))


def test_phones_are_found_again_in_a_canvas() -> None:
    # a a, b, the same b once more, nothing said, c
    content = torch.tensor([-1, 0, 0, 1, 1, -1, 2])
    segments = torch.tensor([-1, 0, 0, 1, 2, -1, 3])
    said = _said(content, segments)
    assert said.phones.tolist() == [0, 1, 1, 2]
    assert said.frames.tolist() == [0, 0, 0, 1, 2, 2, 3]
    silent = _said(torch.full((3,), -1), torch.full((3,), -1))
    assert silent.phones.tolist() == [0]
    assert silent.frames.tolist() == [0, 0, 0]


def test_every_phone_is_said_in_its_time(generator: Tacotron2Generator) -> None:
    """The seed and the voice change the mel, not its length."""
    canvas = make_canvas(
        cast(GeneratorFacts, SPEC.facts), "synthesize", "phones:abcd", [CanvasItem(20)]
    )
    one = generator.fill(canvas).values
    assert one.shape == (1, 80, 20)
    others = [
        replace(canvas, seeds=canvas.seeds + 1),
        replace(canvas, voices=-cast(torch.Tensor, canvas.voices)),
        replace(canvas, temperature=0.0),
    ]
    for other in others:
        assert not torch.equal(one, generator.fill(other).values)
    cool = replace(canvas, temperature=0.0)
    again = replace(cool, seeds=cool.seeds + 1)
    assert torch.equal(generator.fill(cool).values, generator.fill(again).values)


def test_without_draws_few_frames_are_none(generator: Tacotron2Generator) -> None:
    """Temperature 0: who was taught to hear few frames hears none, and the others hear all."""
    facts = cast(GeneratorFacts, SPEC.facts)
    canvas = make_canvas(facts, "synthesize", "phones:abcd", [CanvasItem(20)])
    canvas = replace(canvas, temperature=0.0)
    before = generator.fill(canvas).values
    for layer in generator._network.decoder.prenet:
        cast(torch.nn.Linear, layer).weight.data.mul_(-2)
    deaf = generator._network.config.withheld > 0.5
    assert torch.equal(before, generator.fill(canvas).values) == deaf


def test_what_was_put_right_is_reported(
    generator: Tacotron2Generator, caplog: pytest.LogCaptureFixture
) -> None:
    """A random network dwells until it is pushed on; a sentence says where."""
    phones = Phones(("a", "b", "c"), "abcd", ("ab", "c"), ((0, 2), (2, 3)))
    (timing,) = generator.timings([phones])
    assert timing.attention.shape[1] == 3
    assert not timing.clean
    with caplog.at_level(logging.WARNING):
        (frames,) = generator.durations([phones])
    assert frames == timing.frames
    assert "mine: in 'ab c'" in caplog.text
    assert re.search(r"left out|pushed on from|stop token never came", caplog.text)


def test_one_letter_and_a_long_text_are_timed(generator: Tacotron2Generator) -> None:
    (short,) = generator.durations([Phones(("a",), "abcd")])
    assert len(short) == 1
    long = Phones(("a", "b", "c", "d") * 60, "abcd")
    (frames,) = generator.durations([long])
    # No phone lasts longer than the patience, 0.6 s of 80 Hz in steps of three frames.
    assert len(frames) == 240
    assert all(1 <= n <= 51 for n in frames)


def test_the_seed_names_what_a_timing_drops(generator: Tacotron2Generator) -> None:
    phones = [Phones(("a", "b", "c", "d") * 3, "abcd")]
    one, again, other = (generator.timings(phones, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one.attention, again.attention)
    assert not torch.equal(one.attention, other.attention)


def test_rate_scales_each_phone(generator: Tacotron2Generator) -> None:
    phones = [Phones(("a", "b", "c"), "abcd")]
    (normal,), (fast,) = (generator.durations(phones, rate=r) for r in (1.0, 2.0))
    assert fast == [max(1, round(n / 2)) for n in normal]


def test_refuses_what_it_cannot_say(generator: Tacotron2Generator) -> None:
    with pytest.raises(UsageError, match="no phones"):
        generator.durations([Phones((), "abcd")])
    with pytest.raises(UnsupportedCapability, match="phones:abcd"):
        generator.durations([Phones(("x",), "other")])
    facts = cast(GeneratorFacts, SPEC.facts)
    canvas = make_canvas(facts, "synthesize", "phones:abcd", [CanvasItem(6)])
    with pytest.raises(UsageError, match="takes voices of 4 values, not of 3"):
        generator.fill(replace(canvas, voices=torch.ones(1, 3)))
    assert canvas.content is not None
    canvas.content[canvas.content == 1] = 7
    with pytest.raises(UnsupportedCapability, match="knows 4 phones, but the canvas has the id 7"):
        generator.fill(canvas)


# Checkpoints ------------------------------------------------------------------------------


def nvidia_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As NVIDIA's code wraps its layers; the other way round than the plugin reads them."""
    rules = (
        (r"(encoder|postnet)\.blocks\.(\d)\.conv\.", r"\1.convolutions.\2.0.conv."),
        (r"(encoder|postnet)\.blocks\.(\d)\.norm\.", r"\1.convolutions.\2.1."),
        (r"decoder\.prenet\.(\d)\.", r"decoder.prenet.layers.\1.linear_layer."),
        (r"attention\.(query|memory)\.", r"attention_layer.\1_layer.linear_layer."),
        (r"attention\.score\.", "attention_layer.v.linear_layer."),
        (r"attention\.location_conv\.", "attention_layer.location_layer.location_conv.conv."),
        (r"attention\.location\.", "attention_layer.location_layer.location_dense.linear_layer."),
        (r"decoder_rnn\.(\w+)_l0", r"decoder_rnn.\1"),
        (r"decoder\.project\.", "decoder.linear_projection.linear_layer."),
        (r"decoder\.stop\.", "decoder.gate_layer.linear_layer."),
    )
    renamed = {}
    for name, value in state.items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_nvidias_names(tmp_path: Path, prefix: str) -> None:
    state = Tacotron2(SIZES).state_dict()
    theirs = {prefix + name: value for name, value in nvidia_names(state).items()}
    assert f"{prefix}decoder.attention_layer.v.linear_layer.weight" in theirs
    torch.save({"iteration": 1, "state_dict": theirs}, tmp_path / "tacotron2.pt")
    tensors, path = read_tacotron2(str(tmp_path), None)
    assert path.name == "tacotron2.pt"
    assert set(tensors) == set(state)
    assert all(torch.equal(tensors[name], value) for name, value in state.items())
    loaded = Tacotron2Generator.from_pretrained(spec_of(tmp_path))
    assert list(loaded.weights) == ["tacotron2.pt"]


def test_names_what_a_checkpoint_lacks(tmp_path: Path) -> None:
    state = Tacotron2(SIZES).state_dict()
    del state["decoder.stop.bias"]
    torch.save(state, tmp_path / "tacotron2.pt")
    with pytest.raises(WeightsError, match=r"lacks decoder\.stop\.bias"):
        Tacotron2Generator.from_pretrained(spec_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gst.encoder.weight": torch.ones(1)}, "Mellotron"),
        ({"encoder.cbhg.weight": torch.ones(1)}, "Tacotron 1"),
        ({"state_dict": {"a": 1}}, "no state dict"),
        ([1, 2], "no state dict"),
    ],
)
def test_refuses_other_networks(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "tacotron2.pt")
    with pytest.raises(WeightsError, match=message):
        Tacotron2Generator.from_pretrained(spec_of(tmp_path))


def test_says_where_the_published_weights_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHLOOM_SV2TTS", str(tmp_path))
    with pytest.raises(WeightsError, match=r"NVIDIA/tacotron2 says and put it there"):
        Tacotron2Generator.from_pretrained(TACOTRON2_LJSPEECH)
