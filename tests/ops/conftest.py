from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch

from speechloom.ops.masked_decode import NoiseKeys

MakeKeys = Callable[..., NoiseKeys]


@pytest.fixture(
    scope="session",
    params=[
        "reference",
        pytest.param(
            "cpu",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("numba") is None, reason="numba is not installed"
            ),
        ),
    ],
)
def impl(request: pytest.FixtureRequest) -> str:
    """Every implementation that runs on a CPU by itself; Triton has a process of its own."""
    return str(request.param)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """New memory holds NaN, or the largest integer, until it is written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def make_keys() -> MakeKeys:
    """Keys of N rows at positions 0 .. N - 1 of one item."""

    def make(
        rows: int, *, seed: int = 1, item: int = 0, first: int = 0, step: int = 0
    ) -> NoiseKeys:
        position = torch.arange(first, first + rows)
        return NoiseKeys(
            seed=torch.full_like(position, seed),
            item=torch.full_like(position, item),
            position=position,
            step=step,
        )

    return make


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of torch's threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def run_alone() -> Callable[..., None]:
    """Run a script in a new process, with a time limit for what would wait for ever."""

    def run(script: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, *options, "-c", textwrap.dedent(script)]
        env = {**os.environ, **(environment or {})}
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=env)
        assert done.returncode == 0, done.stderr

    return run
