"""Masked decoding beside its peers, on the same weights, in one run; see docs/benchmarks.md.

``nox -s bench`` runs all rows; ``SPEECHLOOM_BENCH_QUICK=1`` takes one round of the long ones.
A row first checks that both sides compute the same, and has no numbers if they do not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from speechloom_bench import machine, magnet, maskgct
from speechloom_bench import soundstorm as storm
from speechloom_bench.rows import Agreement, Row, Run, measure
from torch import Tensor

from speechloom.decoding import (
    DecodeConfig,
    ExecutionConfig,
    has_bfloat16_units,
)
from speechloom.ops.masked_decode import (
    LogitScores,
    NoiseKeys,
    SampleConfig,
    StepResult,
    decode_step,
)

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("ignore")]

FRAMES, LEVELS, SIZE = 500, storm.LEVELS, storm.SIZE
PRECISIONS = ["float32", "bfloat16"]
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25}


def named(row: str, precision: str) -> str:
    return row if precision == "float32" else f"{row}-bf16"


def execution(precision: str) -> ExecutionConfig:
    return ExecutionConfig(precision=precision)


def says(config: ExecutionConfig) -> str:
    chosen = config.on("cpu")
    return f"{str(chosen.dtype).removeprefix('torch.')}, {chosen.name} layers"


# Sampling steps.


def keys(rows: int) -> NoiseKeys:
    zero = torch.zeros(rows, dtype=torch.int64)
    return NoiseKeys(seed=zero, item=zero, position=torch.arange(rows), level=0, step=0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3)) * 2


def step_of(
    scores: LogitScores, config: SampleConfig, keep: int, choice: float
) -> Callable[..., StepResult]:
    rows = len(scores.logits)
    own = keys(rows)

    def step(impl: str = "auto") -> StepResult:
        return decode_step(
            scores,
            own,
            counts=[rows],
            keep_open=[keep],
            config=config,
            choice_temperature=choice,
            impl=impl,
        )

    return step


def same_as_reference(step: Callable[..., StepResult]) -> Agreement:
    """Rows that the fast step decides otherwise than the definition does."""
    fast, slow = step("auto"), step("reference")
    apart = (fast.tokens != slow.tokens) | (fast.closes != slow.closes)
    apart |= (fast.confidence - slow.confidence).abs() > 1e-3
    return Agreement(
        "rows of the fast step and of the reference", float(apart.float().mean()), 0.01
    )


def step_row(
    benchmark: BenchmarkFixture,
    name: str,
    title: str,
    step: Callable[..., StepResult],
    peers: dict[str, Run],
    must: float | None,
) -> None:
    row = Row(
        row=name,
        title=title,
        parity=lambda: same_as_reference(step),
        ours=step,
        peers=peers,
        config="float32 logits",
        must={} if must is None else {"float32": must},
        rounds=25,
    )
    measure(benchmark, row)


@pytest.mark.parametrize(("rows", "must"), [(500, 60.0), (4000, 8.0)])
def test_step_beside_soundstorm(benchmark: BenchmarkFixture, rows: int, must: float) -> None:
    logits = normal(FRAMES * LEVELS, SIZE)
    config = SampleConfig(temperature=0.9, top_k=storm.KEPT)
    step = step_of(LogitScores(logits=logits[:rows].contiguous()), config, 200, 0.0)
    peer = storm.peer_step(logits[None], FRAMES)
    peers = {"soundstorm-pytorch's step, 4000 rows": peer}
    step_row(benchmark, f"step-{rows}", f"one sampling step, {rows} rows", step, peers, must)


def test_step_beside_maskgct(benchmark: BenchmarkFixture) -> None:
    logits = normal(FRAMES, SIZE)
    config = SampleConfig(temperature=0.9, top_k=maskgct.KEPT)
    codes, open_ = torch.zeros(1, FRAMES).long(), torch.ones(1, FRAMES, 1).bool()
    peers: dict[str, Run] = {
        "MaskGCT's step": lambda: maskgct.peer_close(logits[None], codes, open_, 3, 10)
    }
    step = step_of(LogitScores(logits=logits), config, 300, 0.6)
    step_row(benchmark, "step-maskgct", "sampling step, k = 21", step, peers, 4.0)


def test_step_beside_magnet(benchmark: BenchmarkFixture) -> None:
    both = normal(2, 498, 2048)
    config = SampleConfig(temperature=0.9, top_p=magnet.TOP_P, guidance=5.0)
    codes = torch.full((1, 498), 2048)
    peers: dict[str, Run] = {"MAGNeT's step": lambda: magnet.close(both, codes, 2048, 0.5, 0.9)}
    scores = LogitScores(logits=both[0], unconditional=both[1])
    step = step_of(scores, config, 300, 0.0)
    step_row(benchmark, "step-magnet", "sampling step, guidance, top-p", step, peers, None)


# Whole decodes beside soundstorm-pytorch.


def eager_half(run: Run) -> Run:
    def half() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return half


def storm_peers(
    size: storm.Size, *frames: int, compiled: bool, padded: bool = False
) -> tuple[object, dict[str, Run]]:
    """The peer as it ships, and in its best easy configuration on this machine."""
    peer = storm.build_peer(size)
    options: dict[str, object] = {}
    if padded:
        real = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
        options = {"batch_size": len(frames), "mask": real}
    runs: dict[str, Run] = {
        "soundstorm-pytorch as shipped": lambda: storm.generate(peer, max(frames), **options)
    }
    if has_bfloat16_units("cpu"):
        name = "soundstorm-pytorch, autocast bfloat16"
        runs[name] = eager_half(next(iter(runs.values())))
    if compiled:
        fast = storm.build_peer(size)
        fast.net.forward = torch.compile(fast.net.forward)
        best: Run = lambda: storm.generate(fast, max(frames), **options)  # noqa: E731
        half = has_bfloat16_units("cpu")
        name = f"soundstorm-pytorch, compiled, {'bfloat16' if half else 'float32'}"
        runs[name] = eager_half(best) if half else best
    return peer, runs


def storm_row(
    benchmark: BenchmarkFixture,
    name: str,
    size: storm.Size,
    frames: tuple[int, ...],
    precision: str,
    must: dict[str, float],
    *,
    rounds: int,
    compiled: bool = False,
) -> None:
    if precision == "bfloat16" and not has_bfloat16_units("cpu"):
        pytest.skip("not measured on a processor without bfloat16 units")
    padded = len(frames) > 1
    peer, peers = storm_peers(size, *frames, compiled=compiled, padded=padded)
    network = storm.fast(peer, execution(precision))
    row = Row(
        row=named(name, precision),
        title=f"whole decode {size.name} ({size.dim} x {size.layers}), frames {list(frames)}",
        parity=lambda: storm.same_logits(
            peer, network, min(frames), 77, allowed=TOLERANCE[precision]
        ),
        ours=lambda: storm.decode(network, *frames),
        peers=peers,
        config=says(execution(precision)),
        must=must,
        flops=size.flops(*frames, alone=network.rows_alone),
        precision=precision,
        rounds=rounds,
        warm=rounds > 1 or compiled,
    )
    measure(benchmark, row)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decode_s(benchmark: BenchmarkFixture, precision: str, quick: bool) -> None:
    storm_row(
        benchmark,
        "decode-s",
        storm.S,
        (FRAMES,),
        precision,
        {"float32": 2.5, "bfloat16": 4.5},
        rounds=2 if quick else 5,
        compiled=True,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_decode_p(benchmark: BenchmarkFixture, precision: str, quick: bool) -> None:
    storm_row(
        benchmark,
        "decode-p",
        storm.P,
        (FRAMES,),
        precision,
        {"float32": 2.1, "bfloat16": 4.5},
        rounds=1 if quick else 3,
        compiled=not quick,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ragged(benchmark: BenchmarkFixture, precision: str, quick: bool) -> None:
    storm_row(
        benchmark,
        "ragged",
        storm.S,
        (125, 250, 375, 500),
        precision,
        {"float32": 6.0, "bfloat16": 11.0},
        rounds=1 if quick else 3,
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_thirty_seconds(benchmark: BenchmarkFixture, precision: str, quick: bool) -> None:
    storm_row(
        benchmark,
        "thirty-seconds",
        storm.S,
        (1500,),
        precision,
        {"float32": 3.2, "bfloat16": 6.5},
        rounds=1 if quick else 3,
    )


# The other loops.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_maskgct(benchmark: BenchmarkFixture, precision: str, quick: bool) -> None:
    if precision == "bfloat16" and not has_bfloat16_units("cpu"):
        pytest.skip("not measured on a processor without bfloat16 units")
    steps, prompted = (3, 1, 1), 150
    network = maskgct.Network(levels=len(steps))
    cond = normal(1, prompted + FRAMES, network.dim)
    prompt = torch.randint(0, SIZE, (1, prompted, len(steps)))
    laid_out = maskgct.fast(network, cond[0], prompted, execution(precision).on("cpu"))
    peers: dict[str, Run] = {
        "MaskGCT's loop": lambda: maskgct.peer_decode(network, cond, prompt, steps)
    }
    if has_bfloat16_units("cpu"):
        peers["MaskGCT's loop, autocast bfloat16"] = eager_half(peers["MaskGCT's loop"])
    row = Row(
        row=named("maskgct", precision),
        title="MaskGCT-like second stage, passes 3, 1, 1",
        parity=lambda: maskgct.same_hidden(network, laid_out, allowed=TOLERANCE[precision]),
        ours=lambda: maskgct.decode(laid_out, prompt, steps),
        peers=peers,
        config=says(execution(precision)),
        must={"float32": 2.3, "bfloat16": 4.8},
        flops=maskgct.flops(network, prompted, FRAMES, steps, alone=laid_out.rows_alone),
        precision=precision,
        rounds=1 if quick else 3,
        warm=not quick,
    )
    measure(benchmark, row)


def test_magnet(benchmark: BenchmarkFixture, quick: bool) -> None:
    frames, levels, steps = 498, LEVELS, [4, 2, 2, 2, 1, 1, 1, 1]
    peer = storm.build_peer(storm.S)
    condition = normal(1, frames, storm.S.dim) * 0.1
    both = torch.cat((condition, torch.zeros_like(condition)))

    def logits_of(codes: Tensor) -> Tensor:
        flat = codes.transpose(1, 2).reshape(2, -1)
        logits = peer.net(flat, cond=both)
        return logits.view(2, frames, levels, SIZE).transpose(1, 2)

    network = storm.FastConformer(peer.net, ExecutionConfig().on("cpu"), condition[0])
    network.unconditional = network.without_condition()
    sample = SampleConfig(temperature=magnet.HEAT, top_p=magnet.TOP_P, guidance=magnet.MOST)
    config = DecodeConfig(steps=tuple(steps), sample=sample, choice_temperature=0.0)
    row = Row(
        row="magnet",
        title="S with guidance",
        parity=lambda: storm.same_logits(
            peer, network.without_condition(), 77, frames, allowed=TOLERANCE["float32"]
        ),
        ours=lambda: storm.decode(network, frames, config=config),
        peers={"MAGNeT's loop": lambda: magnet.decode(logits_of, levels, frames, SIZE, steps)},
        config=says(ExecutionConfig()),
        flops=2
        * storm.S.network_flops(  # heads left out
            frames, storm.passes_of(frames, steps, config.schedule), alone=network.rows_alone
        ),
        rounds=1 if quick else 3,
    )
    measure(benchmark, row)


# Ourselves.


def test_first_call_after_a_warm_up(benchmark: BenchmarkFixture) -> None:
    """A fresh process: the announced warm-up, the first call, later calls."""
    pytest.importorskip("speechloom_speechsec")
    command = [sys.executable, "-W", "ignore", "-m", "speechloom_bench.first_call", str(FRAMES)]
    here = Path(__file__).parent
    printed = benchmark.pedantic(
        lambda: subprocess.run(command, cwd=here, check=True, capture_output=True, text=True),
        rounds=1,
    ).stdout
    seconds = json.loads(printed.splitlines()[-1])
    steady, spread = machine.spread(seconds["later"])
    benchmark.extra_info.update(
        row="first-call",
        title="SpeechSEC S, 4 + 7 passes, in a fresh process",
        peer="itself",
        config=says(ExecutionConfig()),
        parity={"what": "nothing", "error": 0.0, "allowed": 0.0, "passed": True},
        must={"at most": 1.3},
        seconds=steady,
        spread=spread,
        flops=0.0,
        warm_up_seconds=seconds["warm_up"],
        first_call_seconds=seconds["first"],
        first_over_steady=seconds["first"] / steady,
        machine=machine.facts(),
    )


@pytest.mark.parametrize("frames", [125, 500])
def test_one_by_one_beside_one_product_for_all(benchmark: BenchmarkFixture, frames: int) -> None:
    """Is it worth on this CPU to join the rows of four items in one product?"""
    linear = ExecutionConfig().on("cpu").layers.linear(normal(2048, 512))
    items = [normal(frames, 512) for _ in range(4)]
    joined = torch.cat(items)
    row = Row(
        row=f"joined-{frames}",
        title=f"linear 512 to 2048: four items of {frames} frames one by one",
        parity=lambda: Agreement(
            "rows alone and joined",
            float((linear(joined) - torch.cat([linear(x) for x in items])).abs().max()),
            1e-3,
        ),
        ours=lambda: [linear(x) for x in items],
        peers={"one product of all rows": lambda: linear(joined)},
        config=says(ExecutionConfig()),
        flops=2.0 * len(joined) * 512 * 2048,
        rounds=25,
    )
    measure(benchmark, row)
