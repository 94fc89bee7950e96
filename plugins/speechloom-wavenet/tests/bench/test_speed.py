"""Samples per second of r9y9's published shape: 24 layers, 4 stacks, 128 / 256 / 128 channels.

Ours beside the incremental sampler of wavenet_vocoder 0.1.1 (where it is installed: ``pip install
--no-deps wavenet_vocoder``) and beside the plain way, a full receptive field for every sample. The
weights are random. Run with ``-m bench --benchmark-enable -s``; set OMP_NUM_THREADS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, cast

import pytest
import torch

from speechloom.mel import R9Y9_WAVENET
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.distribution import draw, start
from speechloom_wavenet.network import WaveNet
from speechloom_wavenet.sampler import CompiledSampler

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

Output = Literal["logistic", "mulaw"]
HOP = 256
# Enough samples for a second or so each.
FRAMES = {("ours", 1): 16, ("ours", 8): 4, ("r9y9", 1): 2, ("r9y9", 8): 1}


@cache
def network(output: Output) -> WaveNet:
    torch.manual_seed(0)
    shape = WaveNetConfig(
        mel=R9Y9_WAVENET.kind,
        output=output,
        layers=24,
        stacks=4,
        residual=128,
        gate=256,
        skip=128,
        context=2,
        scales=(4, 4, 4, 4),
    )
    return WaveNet(shape).eval().requires_grad_(False)


def report(benchmark: Any, samples: int, call: Callable[[], object]) -> None:
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    if benchmark.enabled:
        rate = samples / benchmark.stats.stats.median
        benchmark.extra_info["samples_per_second"] = rate
        print(f"\n{benchmark.name}: {rate:.0f} samples/s")


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("output", ["logistic", "mulaw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_ours(benchmark: Any, dtype: torch.dtype, output: Output, batch: int) -> None:
    sampler, frames = CompiledSampler(network(output), dtype), FRAMES["ours", batch]
    mels = [torch.randn(80, frames) for _ in range(batch)]

    def call() -> None:
        sampler.sample(mels, seeds=[0] * batch, items=range(batch))

    report(benchmark, batch * frames * HOP, call)


@pytest.mark.parametrize(
    ("output", "batch"), [("logistic", 1), ("mulaw", 1), ("logistic", 8)]
)  # its categorical draw takes one item only
def test_r9y9(benchmark: Any, output: Output, batch: int) -> None:
    package = pytest.importorskip("wavenet_vocoder")
    model = package.WaveNet(
        out_channels=30 if output == "logistic" else 256,
        layers=24,
        stacks=4,
        residual_channels=128,
        gate_channels=256,
        skip_out_channels=128,
        dropout=0.0,
        cin_channels=80,
        weight_normalization=False,  # folded, as its `make_generation_fast_` does
        upsample_conditional_features=True,
        upsample_scales=[4, 4, 4, 4],
        scalar_input=output == "logistic",
    ).eval()
    frames = FRAMES["r9y9", batch]
    mel = torch.rand(batch, 80, frames)

    @torch.no_grad()
    def call() -> None:
        model.incremental_forward(c=mel, T=frames * HOP)

    report(benchmark, batch * frames * HOP, call)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("output", ["logistic", "mulaw"])
def test_without_a_cache(benchmark: Any, output: Output, batch: int) -> None:
    """The whole receptive field for each of 16 samples, in the middle of a recording."""
    made = network(output)
    field, steps = made.config.receptive_field, 16
    dtype = torch.int64 if output == "mulaw" else torch.float32
    conditioning = torch.randn(batch, 80, field)

    @torch.no_grad()
    def call() -> None:
        samples = torch.full((batch, field), start(made.config), dtype=dtype)
        for _ in range(steps):
            outputs = made(samples, conditioning)[:, :, -1]
            first, second = torch.rand(2, batch).clamp(min=1e-6)
            drawn = draw(made.config, outputs, first, second)
            samples = torch.cat([samples[:, 1:], drawn.to(dtype)[:, None]], dim=1)

    report(cast(Any, benchmark), batch * steps, call)
