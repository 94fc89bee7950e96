"""Perceptual evaluation of speech quality."""

from __future__ import annotations

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.packages import require
from speechloom.eval.sample import Sample, same_timing
from speechloom.eval.spectrum import SAMPLE_RATE

__all__ = ["METRICS", "pesq"]

_EXTRA = "eval-pesq"


def pesq(sample: Sample) -> Score:
    """Wide-band PESQ against a reference of the same timing, 1.0 to 4.64; higher is better.

    Source: ITU-T P.862.2, by the package pesq.

    Raises:
        UsageError: the timing differs, or no speech is found.
    """
    assert sample.reference is not None
    package = require("pesq", extra=_EXTRA, purpose="PESQ")
    audio, reference = same_timing(sample.audio, sample.reference, SAMPLE_RATE)
    if not audio.any():
        raise UsageError("PESQ finds no speech in a silent result")
    try:
        return Score(float(package.pesq(SAMPLE_RATE, reference, audio, "wb")))
    except package.PesqError as error:
        raise UsageError(f"PESQ cannot judge this recording: {error}") from None


METRICS = (Metric("pesq", pesq, "MOS", "higher", ("reference",), ("pesq",), _EXTRA),)
"""PESQ, wide band."""
