"""Checkpoints of r9y9/wavenet_vocoder, written here by its names; the parity test has its code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from speechloom.errors import WeightsError
from speechloom.mel import MelSpec
from speechloom_wavenet import spec_for
from speechloom_wavenet.checkpoint import load
from speechloom_wavenet.network import WaveNet
from speechloom_wavenet.r9y9 import config
from speechloom_wavenet.vocoder import WaveNetVocoder

NEW: dict[str, Any] = {
    "input_type": "raw",
    "quantize_channels": 65536,
    "preprocess": "preemphasis",
    "global_gain_scale": 0.55,
    "sample_rate": 8000,
    "num_mels": 7,
    "fmin": 125,
    "fmax": 3800,
    "fft_size": 128,
    "hop_size": 6,
    "win_length": 128,
    "output_distribution": "Logistic",
    "log_scale_min": -9.0,
    "out_channels": 6,
    "layers": 4,
    "stacks": 2,
    "residual_channels": 8,
    "gate_channels": 12,
    "skip_out_channels": 10,
    "kernel_size": 3,
    "cin_channels": 7,
    "cin_pad": 2,
    "upsample_conditional_features": True,
    "upsample_net": "ConvInUpsampleNetwork",
    "upsample_params": {"upsample_scales": [2, 3]},
    "gin_channels": -1,
}
OLD = {
    **{k: v for k, v in NEW.items() if k not in ("upsample_net", "upsample_params", "cin_pad")},
    "output_distribution": "Logistic",
    "upsample_scales": [2, 3],
    "freq_axis_kernel_size": 3,
    "preprocess": "",
    "global_gain_scale": 1.0,
    "min_level_db": -100,
    "ref_level_db": 20,
}
Shapes = dict[str, tuple[int, ...]]


def convolution(name: str, *shape: int, bias: bool = True) -> Shapes:
    """A weight-normalised convolution as its checkpoints name it."""
    ones = (1,) * (len(shape) - 1)
    bias_shape = {f"{name}.bias": (shape[0],)} if bias else {}
    return {f"{name}.weight_g": (shape[0], *ones), f"{name}.weight_v": shape, **bias_shape}


def state(settings: dict[str, Any], speakers: int = 0) -> dict[str, Tensor]:
    is_old = "upsample_net" not in settings
    shapes: Shapes = {}
    inputs = settings["out_channels"] if settings["input_type"] == "mulaw-quantize" else 1
    shapes |= convolution("first_conv", 8, inputs, 1)
    for layer in range(4):
        at = f"conv_layers.{layer}"
        shapes |= convolution(f"{at}.conv", 12, 8, 3)
        shapes |= convolution(f"{at}.conv1x1c", 12, 7, 1, bias=is_old)
        shapes |= convolution(f"{at}.conv1x1_out", 8, 6, 1)
        shapes |= convolution(f"{at}.conv1x1_skip", 10, 6, 1)
        if speakers:
            shapes |= convolution(f"{at}.conv1x1g", 12, 5, 1, bias=False)
    if speakers:
        shapes |= {"embed_speakers.weight": (speakers, 5)}
    shapes |= convolution("last_conv_layers.1", 10, 10, 1)
    shapes |= convolution("last_conv_layers.3", settings["out_channels"], 10, 1)
    for step, scale in enumerate((2, 3)):
        if is_old:
            shapes |= convolution(f"upsample_conv.{2 * step}", 1, 1, 3, scale)
        else:
            at = f"upsample_net.upsample.up_layers.{2 * step + 1}"
            shapes |= convolution(at, 1, 1, 1, 2 * scale + 1, bias=False)
    if not is_old:
        shapes |= {"upsample_net.conv_in.weight_g": (7, 1, 1)}
        shapes |= {"upsample_net.conv_in.weight_v": (7, 7, 5)}
    draws = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}


def write(
    folder: Path, settings: dict[str, Any], tensors: dict[str, Tensor] | None = None, **more: Any
) -> None:
    (folder / "hparams.json").write_text(json.dumps(settings))
    content = {"state_dict": state(settings) if tensors is None else tensors, "global_step": 3}
    torch.save(content | more, folder / "checkpoint_latest.pth")


def test_settings_of_the_repository() -> None:
    shape = config(NEW, Path("hparams.json"))
    assert (shape.output, shape.mixtures, shape.context) == ("logistic", 2, 2)
    assert (shape.preemphasis, shape.gain, shape.skip_sum) == (0.85, 0.55, "mean")
    mel = MelSpec.from_kind(shape.mel)
    assert (mel.log, mel.floor, mel.hop, mel.low) == ("log10", 1e-10, 6, 125)


def test_settings_of_the_package() -> None:
    shape = config(OLD, Path("hparams.json"))
    assert (shape.upsampling, shape.skip_sum, shape.clamp_scales) == ("transposed", "halving", True)
    assert shape.mel_spec.span == (-80, 20)
    assert shape.mel_spec.onto == (0, 1)
    assert config({**OLD, "legacy": False}, Path()).skip_sum == "plain"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cin_channels": -1}, "not conditioned"),
        ({"upsample_net": "UpsampleNetwork"}, "UpsampleNetwork"),
        ({"input_type": "mulaw"}, "mulaw"),
        ({"output_distribution": "Normal"}, "Normal"),
        ({"preprocess": "lowpass"}, "lowpass"),
        ({"upsample_params": {"upsample_scales": [2, 2]}}, "hop"),
        ({"layers": "many"}, "does not describe"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    write(tmp_path, NEW)
    (tmp_path / "hparams.json").write_text(json.dumps({**NEW, **changes}))
    with pytest.raises(WeightsError, match=why):
        spec_for(tmp_path, id="theirs")


def test_weights_land_where_they_belong(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    network, path = load(tmp_path, statistics="none")
    assert path.name == "checkpoint_latest.pth"
    theirs = state(NEW)
    length, direction = theirs["conv_layers.2.conv.weight_g"], theirs["conv_layers.2.conv.weight_v"]
    folded = length * direction / direction.norm(dim=(1, 2), keepdim=True)
    ours = network.state_dict()
    torch.testing.assert_close(ours["layers.2.dilated.weight"], folded)
    skip = theirs["conv_layers.1.conv1x1_skip.bias"]
    assert torch.equal(ours["layers.1.out.bias"][8:], skip)


def test_averaged_weights_go_first(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    (tmp_path / "checkpoint_latest.pth").rename(tmp_path / "checkpoint_latest_ema.pth")
    write(tmp_path, NEW, {name: value * 2 for name, value in state(NEW).items()})
    assert load(tmp_path, statistics="none")[1].name == "checkpoint_latest_ema.pth"


def test_a_speaker_is_built_in(tmp_path: Path) -> None:
    tensors = state(NEW, speakers=3)
    write(tmp_path, NEW, tensors)
    for wrong in (None, 3, -1):
        with pytest.raises(WeightsError, match="speaker=0 to 2"):
            load(tmp_path, statistics="none", speaker=wrong)
    first, _ = load(tmp_path, statistics="none", speaker=0)
    other, _ = load(tmp_path, statistics="none", speaker=1)
    name = "layers.0.dilated.bias"
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_standardised_mels_need_their_statistics(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    with pytest.raises(WeightsError, match="statistics"):
        load(tmp_path)
    np.savez(tmp_path / "stats.npz", mean=np.full(7, -4.0), scale=np.full(7, 2.0))
    network, _ = load(tmp_path, statistics=str(tmp_path / "stats.npz"))
    plain, _ = load(tmp_path, statistics="none")
    mel = torch.randn(1, 7, 3)
    torch.testing.assert_close(network.condition(mel * 2 - 4), plain.condition(mel))
    np.savez(tmp_path / "stats.npz", mean=np.zeros(7))
    with pytest.raises(WeightsError, match="savez"):
        load(tmp_path, statistics=str(tmp_path / "stats.npz"))
    np.savez(tmp_path / "stats.npz", mean=np.zeros(8), scale=np.ones(8))
    with pytest.raises(WeightsError, match=r"mean \[8\] instead of \[7\]"):
        load(tmp_path, statistics=str(tmp_path / "stats.npz"))


@pytest.mark.parametrize("settings", [NEW, OLD])
def test_missing_keys_are_listed(tmp_path: Path, settings: dict[str, Any]) -> None:
    tensors = state(settings)
    del tensors["conv_layers.1.conv1x1_out.weight_g"], tensors["conv_layers.1.conv1x1_out.weight_v"]
    write(tmp_path, settings, tensors)
    with pytest.raises(WeightsError, match=r"lacks layers\.1\.out\.weight"):
        load(tmp_path, statistics="none")


def test_files_that_are_something_else(tmp_path: Path) -> None:
    write(tmp_path, NEW)
    torch.save([1, 2], tmp_path / "checkpoint_latest.pth")
    with pytest.raises(WeightsError, match="state_dict"):
        load(tmp_path, statistics="none")
    torch.save({"state_dict": {}, "code": WaveNet}, tmp_path / "checkpoint_latest.pth")
    with pytest.raises(WeightsError, match="could run code"):
        load(tmp_path, statistics="none")
    (tmp_path / "checkpoint_latest.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="cannot be read"):
        load(tmp_path, statistics="none")


@pytest.mark.parametrize("settings", [NEW, OLD])
def test_it_plays(tmp_path: Path, settings: dict[str, Any]) -> None:
    tensors = {name: value * 0.3 for name, value in state(settings).items()}
    write(tmp_path, settings, tensors)
    spec = spec_for(tmp_path, id="theirs", statistics="none")
    vocoder = WaveNetVocoder.from_pretrained(spec)
    mel = config(settings, Path()).mel_spec
    noise = torch.rand(1, 1600, generator=torch.Generator().manual_seed(0))
    from speechloom.values import Audio

    heard = mel.compute(Audio(noise.numpy(), 8000))
    (audio,) = vocoder.render(heard)
    assert audio.length == heard.values.shape[-1] * 6
