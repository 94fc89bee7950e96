from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from speechloom.errors import UsageError, WeightsError
from speechloom.mel import RTVC_SYNTHESIZER, TACOTRON2, MelSpec
from speechloom.ops.masked_decode import NoiseKeys, uniforms
from speechloom.testing import Inputs, check_plugin
from speechloom.values import Features
from speechloom_wavenet import spec_for
from speechloom_wavenet._spec import wavenet_spec
from speechloom_wavenet.checkpoint import save
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.distribution import (
    STAGE,
    draw,
    log_likelihood,
    mu_law_classes,
    mu_law_values,
    start,
)
from speechloom_wavenet.network import WaveNet
from speechloom_wavenet.sampler import CompiledSampler
from speechloom_wavenet.samples import from_network, to_network
from speechloom_wavenet.stepping import SteppingSampler
from speechloom_wavenet.vocoder import WaveNetVocoder

Output = Literal["mulaw", "logistic", "gaussian"]
OUTPUTS: tuple[Output, ...] = ("mulaw", "logistic", "gaussian")
# Sizes that are no whole panels, two dilation cycles, and a hop of 20 to be quick.
MEL = MelSpec(rate=4000, fft=80, win=80, hop=20, bands=6, low=0, high=2000)


def config(output: Output = "mulaw", **changes: Any) -> WaveNetConfig:
    values: dict[str, Any] = {
        "mel": MEL.kind,
        "output": output,
        "classes": 32,
        "mixtures": 3,
        "layers": 6,
        "stacks": 2,
        "residual": 20,
        "gate": 36,
        "skip": 70,
        "context": 1,
        "scales": (4, 5),
    }
    return WaveNetConfig(**values | changes)


def network(shape: WaveNetConfig, seed: int = 0) -> WaveNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = WaveNet(shape)
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.15)
    return made.eval().requires_grad_(False)


def mel_of(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(6, frames, generator=torch.Generator().manual_seed(seed))


# The shape --------------------------------------------------------------------------------


def test_what_follows_from_the_shape() -> None:
    shape = config()
    assert shape.dilations == (1, 2, 4, 1, 2, 4)
    assert shape.receptive_field == 2 * 14 + 1
    assert config("logistic").outputs == 9
    assert config("gaussian").outputs == 2
    assert config(skip_sum="halving", layers=3, stacks=1).skip_gains == pytest.approx(
        (0.5, 0.5, math.sqrt(0.5))
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layers": 7}, "multiple of stacks"),
        ({"gate": 35}, "even"),
        ({"scales": (4, 4)}, "hop"),
        ({"smoothing_bands": 2}, "odd"),
        ({"upsampling": "transposed"}, "stretch"),
        ({"mel": "wavlm-6"}, "no mel"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        config(**changes)


def test_outputs_depend_on_the_receptive_field_alone() -> None:
    shape = config("gaussian")
    made, conditioning = network(shape), torch.zeros(1, 6, 60)
    samples = torch.zeros(1, 60)
    changed = samples.clone()
    changed[0, 20] = 0.5  # what precedes sample 20, so sample 19
    difference = (made(samples, conditioning) != made(changed, conditioning)).any(1)[0]
    where = difference.nonzero()[:, 0].tolist()
    assert where[0] == 20
    assert where[-1] == 20 + shape.receptive_field - 1


# Distributions ----------------------------------------------------------------------------


def test_mu_law_by_hand() -> None:
    values = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    assert mu_law_classes(values, 256).tolist() == [0, 128, 255, 255]
    assert mu_law_values(torch.tensor([0, 255]), 256).tolist() == pytest.approx([-1, 1])
    assert start(config(classes=256)) == 127


@given(st.floats(-1, 1), st.sampled_from([16, 256, 1024]))
def test_mu_law_comes_back_to_the_same_class(value: float, classes: int) -> None:
    index = mu_law_classes(torch.tensor([value]), classes)
    assert torch.equal(mu_law_classes(mu_law_values(index, classes), classes), index)


def test_a_logistic_mixture_is_a_distribution() -> None:
    shape = config("logistic", levels=64, mixtures=2)
    outputs = torch.tensor([0.3, -0.2, 0.1, -0.9, -2.0, -3.0])[None, :, None].expand(1, 6, 64)
    steps = torch.linspace(-1, 1, 64)[None]
    total = log_likelihood(shape, outputs, steps).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-5)


def test_a_gaussian_by_hand() -> None:
    outputs = torch.tensor([[[0.5], [math.log(0.1)]]])
    expected = -0.5 * 4 - math.log(0.1) - 0.5 * math.log(2 * math.pi)
    value = log_likelihood(config("gaussian"), outputs, torch.tensor([[0.3]]))
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
def test_draws_follow_the_distribution(output: Output) -> None:
    shape, count = config(output, classes=4, mixtures=2), 40_000
    row = {
        "mulaw": [0.0, 1.0, -1.0, 0.5],
        "logistic": [0.4, -0.4, 0.2, -0.3, -3.0, -3.5],
        "gaussian": [0.1, -2.0],
    }[output]
    outputs = torch.tensor(row).expand(count, -1)
    first, second = torch.rand(2, count, generator=torch.Generator().manual_seed(0)).clamp(1e-6)
    drawn = draw(shape, outputs, first, second)
    if output == "mulaw":
        expected = torch.tensor(row).softmax(0)
        torch.testing.assert_close(
            torch.bincount(drawn, minlength=4) / count, expected, atol=0.01, rtol=0
        )
    else:
        weights = torch.tensor(row[:2]).softmax(0) if output == "logistic" else torch.ones(1)
        means = torch.tensor(row[2:4]) if output == "logistic" else torch.tensor(row[:1])
        assert float(drawn.mean()) == pytest.approx(float(weights @ means), abs=0.01)


def test_no_temperature_takes_the_best() -> None:
    half = torch.full((1,), 0.9)
    assert draw(config(classes=3), torch.tensor([[0.0, 2.0, 1.0]]), half, half, 0.0).item() == 1
    assert draw(config("gaussian"), torch.tensor([[0.3, 1.0]]), half, half, 0.0).item() == (
        pytest.approx(0.3)
    )


# Samples in and out -----------------------------------------------------------------------


@given(st.integers(1, 700), st.floats(0, 0.97))
def test_preemphasis_is_undone(length: int, factor: float) -> None:
    shape = config(preemphasis=factor, gain=0.5)
    samples = torch.sin(torch.arange(length) * 0.1) * 0.5
    torch.testing.assert_close(
        from_network(shape, to_network(shape, samples)), samples, atol=1e-5, rtol=0
    )


# Samplers ---------------------------------------------------------------------------------

SHAPES = [
    *[config(output) for output in OUTPUTS],
    config("logistic", kernel=2, context=0, mixed_bands=5, clamp_scales=True, log_scale_min=-1.0),
    config(
        "gaussian",
        upsampling="transposed",
        context=0,
        smoothing_bands=3,
        conditioning_bias=True,
        skip_sum="halving",
    ),
    config("mulaw", skip_sum="plain", residual=64, gate=128, skip=64, layers=2, stacks=1),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_cached_convolutions_are_the_full_ones(shape: WaveNetConfig) -> None:
    """Teacher-forced by its own samples, over several blocks."""
    made, mel = network(shape), mel_of(30)
    sampler = CompiledSampler(made)
    (samples,) = sampler.sample([mel], seeds=[5], items=[3])
    assert samples.shape == (600,)
    heard = samples.long() if shape.output == "mulaw" else samples
    before = torch.cat([torch.tensor([start(shape)], dtype=heard.dtype), heard[:-1]])
    outputs = made(before[None], made.condition(mel[None]))[0]
    torch.testing.assert_close(sampler.distributions(mel, samples), outputs, atol=3e-6, rtol=1e-5)
    keys = NoiseKeys(
        seed=torch.full((600,), 5),
        item=torch.full((600,), 3),
        position=torch.arange(600),
        stage=STAGE,
    )
    drawn = draw(shape, outputs.T, *uniforms(keys)).float()
    torch.testing.assert_close(drawn, samples, atol=2e-5, rtol=0)


def test_weights_in_bfloat16_give_nearly_the_same_distributions() -> None:
    made = network(config("gaussian"))
    mel, samples = mel_of(7), torch.rand(140) * 2 - 1
    exact = CompiledSampler(made).distributions(mel, samples)
    rounded = CompiledSampler(made, torch.bfloat16).distributions(mel, samples)
    # 8 bits of each weight: 0.2 % at random.
    error = (rounded - exact).square().mean().sqrt() / exact.std()
    assert 1e-5 < error < 1e-2


@pytest.mark.parametrize(
    ("output", "temperature"), [("mulaw", 0.5), ("logistic", 1.0), ("gaussian", 0.5)]
)
def test_the_stepping_sampler_draws_the_same(output: Output, temperature: float) -> None:
    made = network(config(output))
    mels = [mel_of(2), mel_of(4, seed=1)]
    ours = CompiledSampler(made).sample(mels, seeds=[1, 2], items=[0, 1], temperature=temperature)
    plain = SteppingSampler(made).sample(mels, seeds=[1, 2], items=[0, 1], temperature=temperature)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


@pytest.mark.parametrize("output", OUTPUTS)
def test_an_item_is_the_same_in_any_batch(output: Output) -> None:
    sampler = CompiledSampler(network(config(output)))
    mels = [mel_of(frames, seed=frames) for frames in (3, 31, 1, 14, 14)]
    together = sampler.sample(mels, seeds=[7, 8, 9, 10, 10], items=[0, 1, 2, 3, 3])
    for index, mel in enumerate(mels):
        seed, item = [7, 8, 9, 10, 10][index], [0, 1, 2, 3, 3][index]
        assert torch.equal(together[index], sampler.sample([mel], seeds=[seed], items=[item])[0])
    assert torch.equal(together[3], together[4])
    assert not torch.equal(together[3], sampler.sample([mels[3]], seeds=[11], items=[3])[0])


def test_threads_change_nothing() -> None:
    sampler, mels = CompiledSampler(network(config())), [mel_of(5, seed=s) for s in range(5)]
    alone = sampler.sample(mels, seeds=range(5), items=[0] * 5)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = sampler.sample(mels, seeds=range(5), items=[0] * 5)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


@pytest.mark.parametrize("temperature", [-1.0, math.inf, math.nan])
def test_a_senseless_temperature_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="temperature"):
        CompiledSampler(network(config())).sample(
            [mel_of(1)], seeds=[0], items=[0], temperature=temperature
        )


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("sampler", [CompiledSampler, SteppingSampler])
def test_weights_that_are_not_finite_are_named(output: Output, sampler: Any) -> None:
    made = network(config(output))
    made.last.bias = torch.nn.Parameter(torch.full((made.config.outputs,), math.nan))
    with pytest.raises(WeightsError, match="NaN"):
        sampler(made).sample([mel_of(1)], seeds=[0], items=[0])


# The vocoder ------------------------------------------------------------------------------


def vocoder(tmp_path: Path, shape: WaveNetConfig, **options: Any) -> WaveNetVocoder:
    save(network(shape), tmp_path)
    return WaveNetVocoder.from_pretrained(spec_for(tmp_path, id="mine", **options))


def features(*frames: int, mel: MelSpec = MEL) -> Features:
    values = torch.stack([mel_of(max(frames), seed=count) for count in frames])
    return Features(values, mel.kind, mel.frame_rate, torch.tensor(frames))


def test_conformance() -> None:
    full = WaveNetConfig(
        mel=RTVC_SYNTHESIZER.kind,
        layers=2,
        stacks=1,
        residual=8,
        gate=16,
        skip=8,
        scales=(200,),
    )
    inputs = Inputs(long_seconds=5)
    check_plugin(wavenet_spec(full, id="wavenet", checkpoint="somewhere"), inputs=inputs)


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_saved_network_plays(tmp_path: Path, output: Output) -> None:
    shape = config(output, preemphasis=0.5, gain=2.0)
    played = vocoder(tmp_path, shape).render(features(7, 2))
    assert [audio.length for audio in played] == [140, 40]
    assert played[0].sample_rate == 4000
    assert set(vocoder(tmp_path, shape).weights) == {"wavenet.safetensors"}
    again = WaveNetVocoder.from_pretrained(spec_for(tmp_path, id="mine")).render(features(7))
    np.testing.assert_array_equal(again[0].samples, played[0].samples)
    other = WaveNetVocoder.from_pretrained(spec_for(tmp_path, id="mine", seed=1))
    assert not np.array_equal(other.render(features(7))[0].samples, played[0].samples)


def test_pieces_are_as_long_as_the_whole(tmp_path: Path) -> None:
    cut = vocoder(tmp_path, config("gaussian"), segment_frames=10)
    for frames in (3, 10, 11, 14, 15, 24, 47):
        (audio,) = cut.render(features(frames))
        assert audio.length == 20 * frames
        assert np.abs(audio.samples).max() <= 1
    whole = WaveNetVocoder.from_pretrained(spec_for(tmp_path, id="mine")).render(features(10))
    np.testing.assert_array_equal(whole[0].samples, cut.render(features(10))[0].samples)


def test_a_mel_of_another_scale_is_refused(tmp_path: Path) -> None:
    natural = MEL.model_copy(update={"log": "log10"})
    with pytest.raises(UsageError, match="log=ln.*log=log10"):
        vocoder(tmp_path, config()).render(features(3, mel=natural))


def test_no_frames_are_refused(tmp_path: Path) -> None:
    empty = Features(torch.zeros(2, 6, 3), MEL.kind, MEL.frame_rate, torch.tensor([3, 0]))
    with pytest.raises(UsageError, match="item 1 .* no frames"):
        vocoder(tmp_path, config()).render(empty)


def test_a_spec_of_another_mel_is_refused(tmp_path: Path) -> None:
    save(network(config()), tmp_path)
    other = WaveNetConfig.model_validate(
        config().model_dump() | {"mel": TACOTRON2.kind, "scales": (256,)}
    )
    with pytest.raises(WeightsError, match="spec_for"):
        WaveNetVocoder.from_pretrained(wavenet_spec(other, id="mine", checkpoint=tmp_path))


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="wavenet.safetensors"):
        spec_for(tmp_path, id="mine")
    save(network(config()), tmp_path)
    (tmp_path / "wavenet.json").write_text("{")
    with pytest.raises(WeightsError, match="does not describe"):
        spec_for(tmp_path, id="mine")
    save(network(config(layers=4)), tmp_path)
    (tmp_path / "wavenet.json").write_text(config().model_dump_json())
    with pytest.raises(WeightsError, match="layers.4"):
        WaveNetVocoder.from_pretrained(spec_for(tmp_path, id="mine"))
