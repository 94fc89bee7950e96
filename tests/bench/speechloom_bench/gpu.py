"""What the GPU rows share: peers in plain torch, the device's own limits, timing on the device."""

from __future__ import annotations

import functools
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from speechloom.ops.masked_decode import NoiseKeys
from speechloom_bench.rows import Agreement

FRAMES, LEVELS, SIZE, KEPT = 500, 8, 1024, 308
TEMPERATURE, CHOICE, STAYS = 0.9, 1.0, 200
Run = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class GpuRow:
    """One comparison on a device; the names are those of `rows.Row`.

    Attributes:
        row: short name, as in the catalogue.
        title: what is done.
        parity: what must agree before anything is timed.
        ours: the run that is timed.
        peers: other runs, by name.
        config: how ours runs.
        must: the ratio that is asked for.
        flops: of matrix products in one run of ours.
        floor: seconds that no implementation can beat, by arithmetic; 0 where none is known.
        calls: runs between two looks at the clock.
        rounds: timed rounds; each runs every peer, then ours.
    """

    row: str
    title: str
    parity: Callable[[], Agreement]
    ours: Run
    peers: Mapping[str, Run]
    config: str
    must: Mapping[str, float] = field(default_factory=dict)
    flops: float = 0.0
    floor: float = 0.0
    calls: int = 1
    rounds: int = 5


@torch.inference_mode()
def measure(benchmark: BenchmarkFixture, row: GpuRow) -> None:
    """Check parity, time everybody in turns by the device's clock, leave the record."""
    agreement = row.parity()
    if not agreement.passed:
        pytest.fail(
            f"{row.row}: no ratio, because {agreement.what} differ by {agreement.error:.3g} "
            f"(allowed: {agreement.allowed:.3g})"
        )
    everybody = {**row.peers, "": row.ours}
    for run in everybody.values():
        for _ in range(3):
            run()
    times: dict[str, list[float]] = {name: [] for name in everybody}
    for _ in range(row.rounds):
        for name, run in everybody.items():
            times[name].append(device_seconds(run, row.calls))
    benchmark.pedantic(lambda: (row.ours(), torch.cuda.synchronize()), rounds=3)
    record = make_record(row, agreement, times, ceilings(), bandwidth())
    benchmark.extra_info.update(record, machine=facts())


def make_record(
    row: GpuRow,
    agreement: Agreement,
    times: Mapping[str, list[float]],
    rates: Mapping[str, float],
    bytes_per_second: float,
) -> dict[str, object]:
    """What the page is rendered from; our own times have the empty name."""
    median = {name: statistics.median(own) for name, own in times.items()}
    half = {name: (max(own) - min(own)) / 2 for name, own in times.items()}
    reached = row.flops / median[""] / 1e9
    return {
        "row": row.row,
        "title": row.title,
        "peer": next(iter(row.peers), ""),
        "config": row.config,
        "precision": "bfloat16",
        "parity": {
            "what": agreement.what,
            "error": agreement.error,
            "allowed": agreement.allowed,
            "passed": agreement.passed,
        },
        "must": dict(row.must),
        "seconds": median[""],
        "spread": half[""],
        "floor_seconds": row.floor,
        "flops": row.flops,
        "gflops": round(reached, 1),
        "ceilings": dict(rates),
        "bandwidth": bytes_per_second,
        "of_ceiling": round(reached / max(rates.values()), 3),
        "peers": {
            name: {
                "seconds": median[name],
                "spread": half[name],
                "ratio": median[name] / median[""],
            }
            for name in row.peers
        },
    }


def device_seconds(run: Run, calls: int) -> float:
    """Seconds of one call, by the device's clock around `calls` of them."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / calls


def facts() -> dict[str, object]:
    """Device and versions, for the record."""
    import triton

    major, minor = torch.cuda.get_device_capability()
    return {
        "processor": torch.cuda.get_device_name(),
        "capability": f"compute capability {major}.{minor}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "bfloat16_units": True,
    }


@functools.lru_cache(maxsize=1)
def ceilings(size: int = 8192) -> dict[str, float]:
    """GFLOP/s of a large bfloat16 product, the best of many."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = min(device_seconds(lambda: a @ b, 5) for _ in range(6))
    return {"matmul bfloat16": round(2 * size**3 / best / 1e9, 1)}


@functools.lru_cache(maxsize=1)
def bandwidth(megabytes: int = 1024) -> float:
    """Bytes per second of a copy, read and written, the best of many."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    best = min(device_seconds(lambda: target.copy_(source), 5) for _ in range(6))
    return 2 * source.numel() / best


def make_keys(batch: int, device: torch.device) -> NoiseKeys:
    """Keys of all frames of all items."""
    position = torch.arange(FRAMES, device=device).repeat(batch)
    item = torch.arange(batch, device=device).repeat_interleave(FRAMES)
    return NoiseKeys(seed=item * 0 + 1, item=item, position=position)


def eager_level_step(logits: Tensor, batch: int) -> Callable[[], Tensor]:
    """A sampling step of one level in plain torch: which rows close, bool [B, F]."""

    def step() -> Tensor:
        best = logits.topk(KEPT, dim=-1)
        weights = (best.values.float() / TEMPERATURE).softmax(-1)
        token = best.indices.gather(-1, weights.multinomial(1))
        sure = logits.float().log_softmax(-1).gather(-1, token)[:, 0]
        noise = -torch.log(-torch.log(torch.rand_like(sure).clamp(1e-9)))
        ranked = (sure + CHOICE * noise).view(batch, FRAMES)
        closing = ranked.topk(FRAMES - STAYS, dim=-1).indices
        return torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, closing, True)

    return step


def full_grid_step(
    logits: Tensor,
    top_k: Callable[..., Tensor],
    gumbel_sample: Callable[..., Tensor],
) -> Callable[[], Tensor]:
    """What `SoundStorm.generate` does after the network, on logits [B, F * K, V].

    Re-expressed from soundstorm-pytorch 0.6.1, with its own `top_k` and `gumbel_sample`.
    """
    batch, rows, size = logits.shape
    state = torch.full((batch, rows), size, device=logits.device)
    is_open = torch.ones_like(state, dtype=torch.bool)

    def step() -> Tensor:
        kept = top_k(logits, 0.7)
        drawn = gumbel_sample(kept, temperature=TEMPERATURE)
        codes = torch.where(is_open, drawn, state)
        scores = (1 - kept.softmax(dim=-1)).gather(2, drawn[..., None])[..., 0]
        scores = scores.masked_fill(~is_open, -torch.finfo(scores.dtype).max)
        again = scores.argsort(dim=-1, descending=True).argsort(dim=-1) < STAYS
        again.view(batch, -1, LEVELS)[:, :, 1:] = True
        return codes.masked_fill(again, size)

    return step


def decode_flops(dim: int, layers: int, frames: int, passes: int) -> float:
    """Multiplications and additions of a SpeechSEC's matrix products in all passes of one item.

    Per frame and layer 23 D^2 weights (two feed-forwards of 8, attention 4, convolution 3) and
    attention over F frames; the network runs on all frames in all passes, the head on few rows.
    """
    return 2.0 * frames * (23 * dim**2 + 2 * frames * dim) * layers * passes
