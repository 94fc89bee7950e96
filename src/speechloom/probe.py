"""Code that is tried in a process of its own, because it may crash, hang or import torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Probe", "Run", "inherited_path", "run_python"]

TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Probe:
    """What a piece of Python did in a process of its own.

    Attributes:
        worked: whether it ended without an error.
        text: what it printed, or the last line of its traceback.
    """

    worked: bool
    text: str


Run = Callable[[str], Probe]
"""What runs a probe in another interpreter, given its source."""


def run_python(code: str) -> Probe:
    """Run Python code in a new process with this one's module path."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env=inherited_path(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(False, f"did not end within {TIMEOUT_SECONDS} s")
    if done.returncode == 0:
        return Probe(True, done.stdout.strip())
    lines = done.stderr.strip().splitlines()
    return Probe(False, lines[-1] if lines else f"ended with code {done.returncode}")


def inherited_path() -> dict[str, str]:
    """The environment with this process's module path, for a process that must see the same."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
