"""The Triton kernels without a GPU: interpreted, compiled for two chips, and absent."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run(*command: str, **environ: str) -> str:
    """Run Python in a process of its own, since Triton reads its settings once."""
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@needs_triton
def test_the_interpreter_passes_all_cases() -> None:
    cases = str(HERE / "triton_cases.py")
    output = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cases, TRITON_INTERPRET="1")
    assert " passed" in output
    assert "skipped" not in output


@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler comes for Linux")
@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile_for_a_chip_that_is_not_here(capability: str) -> None:
    output = run(str(HERE / "triton_compile.py"), capability, TRITON_INTERPRET="0")
    assert output.split() == ["logits", "head", "closing", "compiled"]


def test_the_operation_works_where_triton_is_absent() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from speechloom.ops.masked_decode import LogitScores, NoiseKeys, SampleConfig, decode_step
rows = torch.arange(4)
step = decode_step(
    LogitScores(logits=torch.eye(4)),
    NoiseKeys(seed=rows, item=rows, position=rows),
    counts=(4,),
    keep_open=(0,),
    config=SampleConfig(temperature=0.0),
)
assert step.tokens.tolist() == [0, 1, 2, 3]
assert not any(name.startswith("triton.") for name in sys.modules)
"""
    run("-c", program)
