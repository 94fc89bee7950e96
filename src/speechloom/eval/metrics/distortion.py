"""Mel-cepstral distortion and errors of the fundamental, along a warping path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.pitch import Pitch, track_pitch
from speechloom.eval.sample import Sample, mono_16k
from speechloom.eval.spectrum import mel_cepstra
from speechloom.eval.warping import distances, warping_path

__all__ = ["METRICS", "f0_error", "mcd", "voicing_error"]

_DECIBELS = 10 * np.sqrt(2) / np.log(10)  # per neper of distance between cepstra


def _pairing(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Frames of the result and of the reference along the path, and their distances in nepers."""

    def make() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        assert sample.reference is not None
        one, other = mel_cepstra(mono_16k(sample.audio)), mel_cepstra(mono_16k(sample.reference))
        ours, theirs = warping_path(distances(one, other))
        return ours, theirs, np.linalg.norm(one[ours] - other[theirs], axis=1)

    return sample.once("pairing", make)


def _pitches(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fundamental of the result and of the reference along the path in Hz; 0 where unvoiced."""

    def make() -> tuple[Pitch, Pitch]:
        assert sample.reference is not None
        return track_pitch(mono_16k(sample.audio)), track_pitch(mono_16k(sample.reference))

    ours, theirs, _ = _pairing(sample)
    result, reference = sample.once("pitches", make)
    return result.hertz[ours], reference.hertz[theirs]


def mcd(sample: Sample) -> Score:
    """Mel-cepstral distortion over the best alignment, in dB; lower is better.

    The distance of 24 mel cepstra without the level, every 10 ms at 16 kHz, averaged along the
    warping path: the root mean square difference of the smoothed spectra.

    Source: Kubichek 1993. Cepstra are those of 40 mel bands, not of SPTK's all-pole analysis, so
    compare values only with others from here.
    """
    return Score(float(_DECIBELS * _pairing(sample)[2].mean()))


def f0_error(sample: Sample) -> Score:
    """Root mean square error of the fundamental where both are voiced, in cents; lower is better.

    Weighted by the number of such frames.

    Raises:
        UsageError: no two voiced frames meet.
    """
    ours, theirs = _pitches(sample)
    both = (ours > 0) & (theirs > 0)
    if not both.any():
        raise UsageError("no voiced frame of the result meets one of the reference")
    cents = 1200 * np.log2(ours[both] / theirs[both])
    return Score(float(np.sqrt((cents**2).mean())), weight=int(both.sum()))


def voicing_error(sample: Sample) -> Score:
    """Share of aligned frames of which one is voiced and the other is not; lower is better."""
    ours, theirs = _pitches(sample)
    return Score(float(((ours > 0) != (theirs > 0)).mean()))


METRICS = (
    Metric("mcd", mcd, "dB", "lower", ("reference",)),
    Metric("f0_error", f0_error, "cents", "lower", ("reference",)),
    Metric("voicing_error", voicing_error, "", "lower", ("reference",)),
)
"""Mel-cepstral distortion, and the errors of pitch and of voicing."""
