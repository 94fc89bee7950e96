"""Confidence intervals by resampling the cases."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from speechloom.errors import UsageError

__all__ = ["bootstrap_interval", "weighted_mean"]


def weighted_mean(values: ArrayLike, weights: ArrayLike) -> float:
    """Mean of values [N] with weights [N] that are not all zero.

    >>> weighted_mean([0.0, 1.0], [3, 1])
    0.25
    """
    return float(np.average(np.asarray(values, float), weights=np.asarray(weights, float)))


def bootstrap_interval(
    values: ArrayLike,
    weights: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the weighted mean.

    Args:
        values: one per case, [N].
        weights: one per case, [N], all positive; each goes with its value.
        confidence: share of the distribution inside the interval, between 0 and 1.
        resamples: how often N cases are drawn with replacement.
        seed: names the draws.

    Returns:
        (low, high), or None for fewer than two cases, which say nothing about their spread.

    Raises:
        UsageError: confidence lies outside (0, 1).

    Source: Efron 1979, Bootstrap methods: another look at the jackknife.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must lie between 0 and 1, but is {confidence}")
    value, weight = np.asarray(values, float), np.asarray(weights, float)
    if value.size < 2:
        return None
    draws = np.random.default_rng(seed).integers(0, value.size, (resamples, value.size))
    means = (value[draws] * weight[draws]).sum(axis=1) / weight[draws].sum(axis=1)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
