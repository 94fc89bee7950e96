"""Short-time objective intelligibility."""

from __future__ import annotations

import warnings

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.packages import require
from speechloom.eval.sample import Sample, same_timing

__all__ = ["METRICS", "stoi"]

_EXTRA = "eval"
_SAMPLE_RATE = 10_000  # the rate that STOI is defined at


def stoi(sample: Sample) -> Score:
    """STOI of the result against a reference of the same timing, about 0 to 1; higher is better.

    Source: Taal et al. 2011, by the package pystoi.

    Raises:
        UsageError: the timing differs, or less than 0.4 s of the reference is speech.
    """
    assert sample.reference is not None
    pystoi = require("pystoi", extra=_EXTRA, purpose="STOI")
    audio, reference = same_timing(sample.audio, sample.reference, _SAMPLE_RATE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # pystoi's way to say "too short"
            value = pystoi.stoi(reference, audio, _SAMPLE_RATE)
    except (RuntimeWarning, ValueError) as error:
        raise UsageError(f"STOI needs at least 0.4 s of speech in the reference: {error}") from None
    return Score(float(value))


METRICS = (Metric("stoi", stoi, "", "higher", ("reference",), ("pystoi",), _EXTRA),)
"""Short-time objective intelligibility."""
