"""The GPU table of the decoding kernel; one command of some minutes:

pytest tests/bench/test_gpu.py -m "gpu and bench" --benchmark-enable --benchmark-json gpu.json
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from speechloom_bench import gpu
from speechloom_bench.rows import Agreement
from speechloom_bench.soundstorm import load_peer
from torch import Tensor

from speechloom.decoding import DecodeConfig, ExecutionConfig, masked_decode
from speechloom.decoding.graphs import GraphedDecoder
from speechloom.ops.masked_decode import LogitScores, SampleConfig, decode_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.bench,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SAMPLE = SampleConfig(temperature=gpu.TEMPERATURE, top_k=gpu.KEPT)
DECODE = DecodeConfig(steps=(18,), schedule="linear", sample=SAMPLE, choice_temperature=0.0)
DIM, LAYERS, HEADS = 1024, 12, 16


def level_logits(batch: int) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (batch * gpu.FRAMES, gpu.SIZE)
    return torch.randn(shape, generator=generator, device="cuda", dtype=torch.bfloat16)


def eager_ours(logits: Tensor, batch: int, impl: str = "triton") -> Callable[[], Any]:
    keys = gpu.make_keys(batch, logits.device)
    scores = LogitScores(logits=logits)
    counts, stays = (gpu.FRAMES,) * batch, (gpu.STAYS,) * batch
    return lambda: decode_step(
        scores,
        keys,
        counts=counts,
        keep_open=stays,
        config=SAMPLE,
        choice_temperature=gpu.CHOICE,
        impl=impl,
    )


def recorded_ours(logits: Tensor, batch: int) -> Callable[[], Any]:
    """The two kernels as a graph, as a recorded decoding has them."""
    from speechloom.ops.masked_decode.triton import close_rows, draw_rows

    keys, scores = gpu.make_keys(batch, logits.device), LogitScores(logits=logits)
    starts = torch.arange(batch, device="cuda") * gpu.FRAMES
    counts = torch.full_like(starts, gpu.FRAMES)
    closing = counts - gpu.STAYS

    def step() -> tuple[Tensor, Tensor]:
        tokens, confidence = draw_rows(scores, keys, config=SAMPLE, choice_temperature=gpu.CHOICE)
        return tokens, close_rows(confidence, starts, counts, closing, longest=gpu.FRAMES)

    graph = torch.cuda.CUDAGraph()
    step()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        step.result = step()  # type: ignore[attr-defined]  # the graph writes there
    graph.keeps = step  # type: ignore[attr-defined]
    return graph.replay


def step_parity(logits: Tensor, batch: int) -> Agreement:
    ours, want = (eager_ours(logits, batch, impl)() for impl in ("triton", "reference"))
    differ = (ours.tokens != want.tokens) | (ours.closes != want.closes)
    return Agreement("rows of a step", float(differ.float().mean()), 2e-3)


@pytest.mark.parametrize(("batch", "must"), [(1, 15.0), (32, 20.0), (128, 10.0)])
def test_level_sampling(benchmark: BenchmarkFixture, batch: int, must: float) -> None:
    logits = level_logits(batch)
    floor = max(8e-6, logits.numel() * logits.element_size() / gpu.bandwidth())
    gpu.measure(
        benchmark,
        gpu.GpuRow(
            row=f"gpu-level-b{batch}",
            title=f"Level sampling of {batch} x {gpu.FRAMES} rows, top-k {gpu.KEPT}",
            parity=lambda: step_parity(logits, batch),
            ours=recorded_ours(logits, batch),
            peers={
                "torch eager, level only": gpu.eager_level_step(logits, batch),
                "ours without a graph": eager_ours(logits, batch),
            },
            config="two Triton kernels in a CUDA graph, bf16 logits",
            must={"bfloat16": must},
            floor=floor,
            calls=50,
        ),
    )


def test_full_grid_step(benchmark: BenchmarkFixture) -> None:
    peer, batch = load_peer(), 32
    logits = level_logits(batch)
    grid = level_logits(batch * gpu.LEVELS).view(batch, -1, gpu.SIZE)
    gpu.measure(
        benchmark,
        gpu.GpuRow(
            row="gpu-grid-b32",
            title="A step as soundstorm-pytorch makes it: all levels, ours one",
            parity=lambda: step_parity(logits, batch),
            ours=recorded_ours(logits, batch),
            peers={
                "soundstorm-pytorch's step": gpu.full_grid_step(
                    grid.float(), peer.top_k, peer.gumbel_sample
                )
            },
            config="two Triton kernels in a CUDA graph, bf16 logits",
            must={"bfloat16": 150.0},
            calls=3,
        ),
    )


class Decodings:
    """Decodings P of one batch size: recorded, and by a careful user of plain torch."""

    def __init__(self, batch: int) -> None:
        pytest.importorskip("speechloom_speechsec")
        from speechloom_speechsec.conditioned import condition
        from speechloom_speechsec.config import SpeechSECConfig
        from speechloom_speechsec.inference import InferenceSpeechSEC
        from speechloom_speechsec.model import SpeechSEC

        torch.manual_seed(0)
        config = SpeechSECConfig(
            content_vocab=100,
            codebooks=gpu.LEVELS,
            codebook_size=gpu.SIZE,
            dim=DIM,
            layers=LAYERS,
            heads=HEADS,
        )
        self.model = SpeechSEC(config).cuda().eval().requires_grad_(False)
        laid_out = InferenceSpeechSEC(self.model, ExecutionConfig(precision="bfloat16").on("cuda"))
        self.heads = [
            tuple(part.bfloat16() for part in self.model.head(level)) for level in range(gpu.LEVELS)
        ]

        def build(content: Tensor, task: Tensor) -> Bfloat16Heads:
            network = condition(laid_out, content, task, padded=False)
            return Bfloat16Heads(network.hidden, self.heads)

        self.build = build
        shape = (batch, gpu.LEVELS, gpu.FRAMES)
        every = torch.arange(batch, device="cuda")
        self.request = {
            "codes": torch.zeros(shape, dtype=torch.int64, device="cuda"),
            "known": torch.zeros(shape, dtype=torch.bool, device="cuda"),
            "lengths": every * 0 + gpu.FRAMES,
            "seeds": every,
            "items": every,
        }
        content = torch.randint(0, 100, (batch, gpu.FRAMES), device="cuda")
        self.condition = {"content": content, "task": every * 0}
        self.decoder = GraphedDecoder(self.build, buckets=(gpu.FRAMES,))
        self.flops = batch * gpu.decode_flops(DIM, LAYERS, gpu.FRAMES, 18 + gpu.LEVELS - 1)

    def recorded(self) -> Tensor:
        return self.decoder(**self.request, condition=self.condition, config=DECODE)

    def laid_out(self) -> Tensor:
        return masked_decode(self.build(**self.condition), **self.request, config=DECODE)

    def eager(self, mode: str = "") -> Callable[[], Tensor]:
        """The training layers under bf16 autocast, compiled where a mode is given."""
        run = torch.compile(self.model.hidden, mode=mode) if mode else self.model.hidden
        cond = self.model.embed_condition(**self.condition)

        def hidden(
            codes: Tensor,
            level: int,
            lengths: Tensor,
            items: Tensor,
            rows: Tensor,
            frames: Tensor,
        ) -> Tensor:
            with torch.autocast("cuda", torch.bfloat16):
                return run(codes, level, cond[items], None)[rows, frames]

        network = Bfloat16Heads(hidden, self.heads)
        return lambda: masked_decode(network, **self.request, config=DECODE)

    def parity(self) -> Agreement:
        differ = (self.recorded() != self.laid_out()).float().mean()
        return Agreement("codes of the recording and of the loop", float(differ), 0.0)


class Bfloat16Heads:
    """A `MaskedNetwork` of a function for its hidden states and heads in bfloat16."""

    codebook_size = gpu.SIZE
    unconditional = None

    def __init__(self, hidden: Callable[..., Tensor], heads: list[tuple[Tensor, ...]]) -> None:
        self.run, self.heads = hidden, heads

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        return self.run(codes, level, lengths, items, rows, frames).bfloat16()

    def head(self, level: int) -> tuple[Tensor, ...]:
        return self.heads[level]


@pytest.mark.parametrize(
    ("row", "batch", "mode", "peer", "must"),
    [
        ("gpu-decode-p-b1", 1, "", "its own network, eager bf16", 3.0),
        ("gpu-decode-p-b1-compiled", 1, "max-autotune", "compile max-autotune", 1.2),
        ("gpu-decode-p-b32", 32, "", "eager bf16", 1.5),
    ],
)
def test_whole_decode(
    benchmark: BenchmarkFixture, row: str, batch: int, mode: str, peer: str, must: float
) -> None:
    decodings = Decodings(batch)
    gpu.measure(
        benchmark,
        gpu.GpuRow(
            row=row,
            title=f"Whole decode P, {batch} x {gpu.FRAMES} frames",
            parity=decodings.parity,
            ours=decodings.recorded,
            peers={peer: decodings.eager(mode)},
            config="bf16, a CUDA graph of all passes",
            must={"bfloat16": must},
            flops=decodings.flops,
            rounds=3,
        ),
    )


def test_no_waiting(benchmark: BenchmarkFixture) -> None:
    decodings = Decodings(1)
    decodings.recorded()

    def forbidden_to_wait() -> Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return decodings.recorded()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    gpu.measure(
        benchmark,
        gpu.GpuRow(
            row="gpu-no-sync",
            title="Whole decode P in a graph, with waiting for the device forbidden",
            parity=decodings.parity,
            ours=forbidden_to_wait,
            peers={"the loop, which asks once": decodings.laid_out},
            config="bf16, a CUDA graph of all passes",
            flops=decodings.flops,
            rounds=3,
        ),
    )
