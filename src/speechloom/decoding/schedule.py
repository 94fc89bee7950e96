"""How many positions stay open after each pass, and how hot each pass is. Pure numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from speechloom.errors import UsageError

SCHEDULES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "cosine": lambda t: math.cos(t * math.pi / 2),
        "linear": lambda t: 1.0 - t,
    }
)
"""Share of positions that stay open after share t of the passes."""


def open_after(unknown: int, steps: int, *, schedule: str = "cosine") -> tuple[int, ...]:
    """Count the positions that stay open after each pass.

    The counts fall with every pass and end at 0. Every pass closes something, so fewer unknown
    positions than steps take one pass each, and none take none.

    Args:
        unknown: positions to fill, 0 or more.
        steps: passes, at least 1.
        schedule: a name in `SCHEDULES`.

    Returns:
        min(unknown, steps) numbers.

    Raises:
        UsageError: a number is out of range or the schedule is unknown.

    >>> open_after(10, 4)
    (9, 7, 3, 0)
    >>> open_after(2, 4)
    (1, 0)
    """
    if unknown < 0 or steps < 1:
        raise UsageError(
            f"`unknown` must be 0 or more and `steps` 1 or more, but are {unknown} and {steps}."
        )
    share = SCHEDULES[check_schedule(schedule)]
    passes = min(unknown, steps)
    counts: list[int] = []
    before = unknown
    for step in range(1, passes + 1):
        wanted = math.floor(unknown * share(step / passes) + 1e-6)  # 5 x 0.2 is 1, not 0.99
        before = min(before - 1, max(wanted, passes - step))
        counts.append(before)
    return tuple(counts)


def check_schedule(name: str) -> str:
    """Return the name of a schedule, or raise a `UsageError` that lists them."""
    if name not in SCHEDULES:
        raise UsageError(f"`schedule` must be one of {', '.join(SCHEDULES)}, but is {name!r}.")
    return name


def anneal(start: float, step: int, steps: int) -> float:
    """Let a temperature fall in equal parts from `start` at step 0 to start / steps at the last.

    Examples:
        >>> [anneal(2.0, step, 4) for step in range(4)]
        [2.0, 1.5, 1.0, 0.5]
    """
    return start * ((steps - step) / steps)
