"""How fast the starter is: warm synthesis, conversion, and the first chunk of a stream.

``nox -s bench``. The extra info of each row holds the real-time factor: seconds of work per second
of speech.
"""

from __future__ import annotations

import platform

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from speechloom import Pipeline

pytestmark = pytest.mark.bench
pytest.importorskip("speechloom_starter")

TEXT = "We walked along the river until the rain began to fall again on the quiet water."


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    pipeline = Pipeline()
    pipeline.synthesize("Warm up.", seed=0)
    return pipeline


def _note(benchmark: BenchmarkFixture, seconds: float) -> None:
    benchmark.extra_info.update(
        speech_seconds=seconds,
        real_time_factor=benchmark.stats.stats.median / seconds,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        machine=platform.processor() or platform.machine(),
    )


def test_synthesize(benchmark: BenchmarkFixture, pipeline: Pipeline) -> None:
    speech = benchmark.pedantic(
        pipeline.synthesize, (TEXT,), {"seed": 1}, rounds=5, warmup_rounds=1
    )
    _note(benchmark, speech.seconds)


def test_convert(benchmark: BenchmarkFixture, pipeline: Pipeline) -> None:
    source = pipeline.synthesize(TEXT, seed=1).audio
    speech = benchmark.pedantic(
        pipeline.convert, (source,), {"voice": "rolf", "seed": 1}, rounds=5, warmup_rounds=1
    )
    _note(benchmark, speech.seconds)


def test_first_chunk(benchmark: BenchmarkFixture, pipeline: Pipeline) -> None:
    def first() -> float:
        return next(iter(pipeline.synthesize(TEXT, seed=1, stream=True))).seconds

    _note(benchmark, benchmark.pedantic(first, rounds=5, warmup_rounds=1))
