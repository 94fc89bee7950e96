"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Schedule", "learning_rate"]

Schedule = Literal["cosine", "linear", "inverse_sqrt", "exponential", "constant"]
"""How the learning rate falls after the warm-up."""


def learning_rate(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup: int = 0,
    schedule: Schedule = "cosine",
    final: float = 0.01,
) -> float:
    """The learning rate of one step: a linear rise, then the schedule.

    Args:
        step: steps done before, from 0; beyond the last it stays where it is.
        peak: the highest rate.
        steps: of the whole training.
        warmup: steps of the rise; the last of them is at the peak.
        schedule: ``cosine``, ``linear`` and ``exponential`` reach ``final * peak`` at the last
            step; ``inverse_sqrt`` is peak * sqrt(warmup / step) (arXiv:1706.03762, section 5.3,
            scaled to the peak); ``constant`` stays.
        final: share of the peak that is left in the end.

    Examples:
        >>> settings = {"peak": 1.0, "steps": 8, "warmup": 2, "final": 0.1}
        >>> rates = [learning_rate(step, **settings) for step in (0, 1, 2, 5, 8)]
        >>> [round(rate, 3) for rate in rates]
        [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    if schedule == "cosine":
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))
    if schedule == "linear":
        return peak * (1 + (final - 1) * progress)
    if schedule == "exponential":
        return peak * math.pow(final, progress)
    if schedule == "inverse_sqrt":
        return peak * math.sqrt(max(1, warmup) / max(1, step + 1, warmup))
    return peak
