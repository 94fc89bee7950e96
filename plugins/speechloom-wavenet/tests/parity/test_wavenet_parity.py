"""The same weights and the same uniform numbers in r9y9's wavenet_vocoder and here.

The original is built with random weights and saved as its training saves it; the plugin reads the
file. Where the original draws, the uniform numbers of the core's noise are fed to the inverse of
the distribution function that it draws from. Its version 0.1.1 is on the package index; where a
checkout of its repository is on the path instead, the later generation is compared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from speechloom.ops.masked_decode import NoiseKeys, uniforms
from speechloom_wavenet.checkpoint import load
from speechloom_wavenet.distribution import STAGE, start
from speechloom_wavenet.sampler import CompiledSampler

wavenet_vocoder = pytest.importorskip("wavenet_vocoder")
theirs = pytest.importorskip("wavenet_vocoder.wavenet")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]

IS_OLD = not hasattr(theirs, "upsample")
SEED, ITEM, FRAMES, HOP = 11, 4, 3, 256
SIZES = {
    "small": {"layers": 6, "stacks": 2, "residual": 20, "gate": 36, "skip": 28},
    "full": {"layers": 24, "stacks": 4, "residual": 128, "gate": 256, "skip": 128},
}
OUTPUTS = {
    "mulaw": {"input_type": "mulaw-quantize", "quantize_channels": 256, "out_channels": 256},
    "logistic": {"input_type": "raw", "quantize_channels": 65536, "out_channels": 30},
    "gaussian": {
        "input_type": "raw",
        "quantize_channels": 65536,
        "out_channels": 2,
        "output_distribution": "Normal",
    },
}
CASES = [
    (output, size)
    for output in OUTPUTS
    for size in SIZES
    if not (IS_OLD and output == "gaussian")  # which only the later generation has
]


def settings(output: str, size: str) -> dict[str, Any]:
    shape = SIZES[size]
    common: dict[str, Any] = {
        "sample_rate": 22050,
        "num_mels": 80,
        "fmin": 125,
        "fmax": 7600,
        "fft_size": 1024,
        "hop_size": HOP,
        "preprocess": "",
        "log_scale_min": -7.0,
        "layers": shape["layers"],
        "stacks": shape["stacks"],
        "residual_channels": shape["residual"],
        "gate_channels": shape["gate"],
        "skip_out_channels": shape["skip"],
        "kernel_size": 3,
        "cin_channels": 80,
        "upsample_conditional_features": True,
        **OUTPUTS[output],
    }
    if IS_OLD:
        return common | {"upsample_scales": [4, 4, 4, 4], "freq_axis_kernel_size": 3}
    return common | {
        "cin_pad": 2,
        "upsample_net": "ConvInUpsampleNetwork",
        "upsample_params": {"upsample_scales": [4, 4, 4, 4], "cin_pad": 2},
    }


def original(hparams: dict[str, Any]) -> Any:
    names = (
        "out_channels", "layers", "stacks", "residual_channels", "gate_channels",
        "skip_out_channels", "kernel_size", "cin_channels", "upsample_conditional_features",
        "upsample_scales", "freq_axis_kernel_size", "upsample_net", "upsample_params", "cin_pad",
        "output_distribution",
    )  # fmt: skip
    torch.manual_seed(0)
    model = theirs.WaveNet(
        **{name: hparams[name] for name in names if name in hparams},
        dropout=0.0,
        scalar_input=hparams["input_type"] == "raw",
    )
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.data = 0.1 * torch.randn_like(weight)
    return model.eval()


def given_uniforms(count: int) -> tuple[Tensor, Tensor]:
    keys = NoiseKeys(
        seed=torch.full((count,), SEED),
        item=torch.full((count,), ITEM),
        position=torch.arange(count),
        stage=STAGE,
    )
    return uniforms(keys)


def inverse(probabilities: Tensor, uniform: Tensor) -> int:
    running = probabilities.double().reshape(-1).cumsum(0)
    return int(torch.searchsorted(running, uniform.double() * running[-1], right=True))


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the original draw with given uniform numbers."""

    def feed(count: int) -> None:
        numbers: Iterator[tuple[Tensor, Tensor]] = zip(*given_uniforms(count), strict=True)

        def choice(values: Any, p: Any) -> int:
            return inverse(torch.as_tensor(p), next(numbers)[0])

        def one_hot(self: Any, *shape: Any) -> Tensor:
            index = inverse(self.probs, next(numbers)[0])
            return torch.nn.functional.one_hot(torch.tensor([index]), self.probs.shape[-1]).float()

        def logistic(y: Tensor, log_scale_min: float = -7.0, **_: Any) -> Tensor:
            first, second = next(numbers)
            logits, means, log_scales = y[0, :, 0].chunk(3)
            index = inverse(logits.softmax(0), first)
            # The later generation does not clamp while sampling.
            scale = log_scales[index].clamp(min=log_scale_min if IS_OLD else -np.inf).exp()
            return (means[index] + scale * torch.logit(second)).clamp(-1, 1).reshape(1, 1)

        def gaussian(y: Tensor, log_scale_min: float = -7.0) -> Tensor:
            first, second = next(numbers)
            away = torch.sqrt(-2 * first.log()) * torch.cos(2 * torch.pi * second)
            return (y[0, 0, 0] + y[0, 1, 0].exp() * away).clamp(-1, 1).reshape(1, 1)

        monkeypatch.setattr(np.random, "choice", choice)
        monkeypatch.setattr(torch.distributions.OneHotCategorical, "sample", one_hot)
        monkeypatch.setattr(theirs, "sample_from_discretized_mix_logistic", logistic)
        if not IS_OLD:
            monkeypatch.setattr(theirs, "sample_from_mix_gaussian", gaussian)

    return feed


@pytest.mark.parametrize(("output", "size"), CASES)
def test_same_weights_and_numbers_same_samples(
    tmp_path: Path, fed: Callable[[int], None], output: str, size: str
) -> None:
    hparams = settings(output, size)
    model = original(hparams)
    (tmp_path / "hparams.json").write_text(json.dumps(hparams))
    torch.save({"state_dict": model.state_dict(), "global_step": 1}, tmp_path / "checkpoint.pth")
    network, _ = load(tmp_path / "checkpoint.pth", statistics="none")
    mel = torch.rand(80, FRAMES, generator=torch.Generator().manual_seed(1))
    padded = mel[None]
    if not IS_OLD:
        padded = torch.nn.functional.pad(padded, (2, 2), mode="replicate")

    fed(FRAMES * HOP)
    with torch.no_grad():
        expected = model.incremental_forward(c=padded, T=FRAMES * HOP)[0]
    expected = expected.argmax(0).float() if output == "mulaw" else expected[0]
    sampler = CompiledSampler(network)
    (samples,) = sampler.sample([mel], seeds=[SEED], items=[ITEM])
    worst = float((samples - expected).abs().max())
    print(f"{output}, {size}: samples differ by at most {worst:.1e}")
    assert len(set(expected.tolist())) > 50, "the samples hardly vary"
    assert worst == 0 if output == "mulaw" else worst < 1e-3

    first = torch.tensor([float(start(network.config))])
    before = torch.cat([first, expected[:-1]])[None, None]
    if output == "mulaw":
        before = torch.nn.functional.one_hot(before[:, 0].long(), 256).float().transpose(1, 2)
    with torch.no_grad():
        full = model(before, padded)[0]
    error = float((sampler.distributions(mel, expected) - full).abs().max())
    print(f"{output}, {size}: outputs differ by at most {error:.1e} of {float(full.std()):.2f}")
    assert error < 1e-4
