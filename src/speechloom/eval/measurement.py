"""What a call cost: time and memory, taken around the call."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

__all__ = ["Measurement", "measure"]

Result = TypeVar("Result")

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc_pid_clear_refs(5)


@dataclass(frozen=True)
class Measurement:
    """What making one result cost.

    Attributes:
        wall_seconds: time the call took.
        peak_memory_bytes: peak resident memory of the process during the call; where the system
            cannot reset the peak (anything but Linux), since the process began; None where it is
            not known at all.
        first_chunk_seconds: time until the first piece of audio of a streamed call; None when the
            call was not streamed.
    """

    wall_seconds: float
    peak_memory_bytes: int | None = None
    first_chunk_seconds: float | None = None


def measure(call: Callable[[], Result]) -> tuple[Result, Measurement]:
    """Run a call and measure it.

    Returns:
        What the call returned, and its cost.
    """
    _reset_peak_memory()
    start = time.perf_counter()
    result = call()
    wall_seconds = time.perf_counter() - start
    return result, Measurement(wall_seconds, peak_memory_bytes())


def _reset_peak_memory() -> None:
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return  # not Linux, or not allowed: the peak since the process began is reported


def peak_memory_bytes() -> int | None:
    """Peak resident memory of this process since it was last reset, in bytes."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: ask the portable way below
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
