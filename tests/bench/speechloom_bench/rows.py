"""One row of the table: parity first, then everybody in turns."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from speechloom.decoding import has_bfloat16_units
from speechloom.ops.masked_decode import (
    HeadScores,
    LogitScores,
    NoiseKeys,
    SampleConfig,
    decode_step,
)
from speechloom_bench import machine

Run = Callable[[], object]
Parity = Callable[[], "Agreement"]


@dataclass(frozen=True)
class Agreement:
    """How far two ways of computing the same thing are apart.

    Attributes:
        what: what was compared.
        error: the largest difference, or the share of entries that differ.
        allowed: the most that passes.
    """

    what: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return self.error <= self.allowed


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        row: short name; what a GPU run or another machine calls the same comparison.
        title: what is done.
        parity: what must agree before anything is timed.
        ours: the run that pytest-benchmark times.
        peers: other runs, by name; the first is the one that `must` speaks of.
        config: how ours runs.
        must: the ratio that is asked for, by number format.
        flops: multiplications and additions of matrix products in one run of ours, 0 for none.
        precision: of ours.
        rounds: timed rounds; each runs every peer, then ours.
        warm: run everybody once before the first round.
    """

    row: str
    title: str
    parity: Parity
    ours: Run
    peers: Mapping[str, Run]
    config: str
    must: Mapping[str, float] = field(default_factory=dict)
    flops: float = 0.0
    precision: str = "float32"
    rounds: int = 5
    warm: bool = True


@torch.inference_mode()
def measure(benchmark: BenchmarkFixture, row: Row) -> None:
    """Check parity, time everybody in turns, leave the result in the benchmark's record.

    A row whose parity fails ends here, with a failed test and no numbers.
    """
    if row.precision == "bfloat16" and not has_bfloat16_units("cpu"):
        pytest.skip("not measured on a processor without bfloat16 units")
    agreement = row.parity()
    if not agreement.passed:
        pytest.fail(
            f"{row.row}: no ratio, because {agreement.what} differ by {agreement.error:.3g} "
            f"(allowed: {agreement.allowed:.3g})"
        )
    warm_sampler()
    if row.warm:
        for run in (*row.peers.values(), row.ours):
            run()
    times: dict[str, list[float]] = {name: [] for name in row.peers}
    busy, own = machine.busy_ticks()

    def peers_first() -> None:
        for name, run in row.peers.items():
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)

    wall = time.perf_counter()
    benchmark.pedantic(row.ours, setup=peers_first, rounds=row.rounds, iterations=1)
    wall = time.perf_counter() - wall
    busy_after, own_after = machine.busy_ticks()
    foreign = (busy_after - busy) - (own_after - own)
    benchmark.extra_info.update(
        _record(row, agreement, times, sorted(benchmark.stats.stats.data)),
        foreign_cpu=round(max(0.0, foreign / wall), 3),
        machine=machine.facts(),
    )


@functools.lru_cache(maxsize=1)
def warm_sampler() -> None:
    """Let the sampling kernel compile before the first row that has a single round."""
    zero = torch.zeros(8, dtype=torch.int64)
    keys = NoiseKeys(seed=zero, item=zero, position=torch.arange(8), level=0, step=0)
    rows = torch.randn(8, 16)
    for scores in (
        LogitScores(logits=rows),
        HeadScores(hidden=rows, weight=rows, bias=rows[0, :8]),
    ):
        for config in (SampleConfig(), SampleConfig(temperature=0.0), SampleConfig(top_k=3)):
            decode_step(scores, keys, counts=[8], keep_open=[4], config=config)


def _record(
    row: Row, agreement: Agreement, times: Mapping[str, list[float]], ours: list[float]
) -> dict[str, object]:
    median, half = machine.spread(ours)
    reached, ceilings = row.flops / median / 1e9, machine.ceilings()
    best = max(rate for name, rate in ceilings.items() if name.endswith(row.precision))
    return {
        "row": row.row,
        "title": row.title,
        "peer": next(iter(row.peers), ""),
        "config": row.config,
        "precision": row.precision,
        "parity": {
            "what": agreement.what,
            "error": agreement.error,
            "allowed": agreement.allowed,
            "passed": agreement.passed,
        },
        "must": dict(row.must),
        "seconds": median,
        "spread": half,
        "flops": row.flops,
        "gflops": round(reached, 1),
        "ceilings": ceilings,
        "of_ceiling": round(reached / best, 3),
        "rounds": row.rounds,
        "peers": {name: _peer(own, median) for name, own in times.items()},
    }


def _peer(times: list[float], ours: float) -> dict[str, float]:
    median, half = machine.spread(times)
    return {"seconds": median, "spread": half, "ratio": median / ours}
