"""How a generated part sits in its recording: seams, silence and loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.sample import Sample, mono_16k
from speechloom.eval.spectrum import HOP_SAMPLES, SAMPLE_RATE, frame, log_mel, mel_cepstra

__all__ = ["METRICS", "seam_flux", "seam_level", "silence", "variety"]

Floats = NDArray[np.float64]

_FRAME_RATE = SAMPLE_RATE / HOP_SAMPLES
_SEAM_FRAMES = 5  # 50 ms: a cross-fade and the windows that see it
_ORDINARY = 0.99  # of all places; what is rougher than these is heard as a click or a jump
_SILENT_DECIBELS = -40.0
_LOUD = 0.95  # of all frames: speech level, whatever single peaks do
_LAGS = (10, 100)  # frames: loops of 0.1 to 1 s


def seam_flux(sample: Sample) -> Score:
    """Spectral change at the roughest seam over that of ordinary places; lower is better.

    The change is the mean absolute step of 40 log-mel bands in 10 ms; a place is 50 ms and has
    its largest one. 1 is the change that 99 of 100 places of the same recording stay below, so a
    seam of at most 1 is as smooth as speech itself.

    Raises:
        UsageError: there is no seam: everything was generated, or nothing.
    """
    steps = np.abs(np.diff(log_mel(mono_16k(sample.audio)), axis=0)).mean(axis=1)
    return Score(_roughest_seam(sample, steps))


def seam_level(sample: Sample) -> Score:
    """Step of the level in dB at the roughest seam, over ordinary places; lower is better.

    As `seam_flux`, of the level in frames of 25 ms.

    Raises:
        UsageError: there is no seam: everything was generated, or nothing.
    """
    levels = _decibels(mono_16k(sample.audio))
    heard = np.maximum(levels, levels.max() - 60)  # digital silence is no jump from a quiet room
    return Score(_roughest_seam(sample, np.abs(np.diff(heard))))


def silence(sample: Sample) -> Score:
    """Share of the generated part that is 40 dB below speech level; lower is better.

    Speech level is that which 95 of 100 frames of the whole recording stay below. Read speech
    has pauses: 0.1 to 0.2 is usual.

    Raises:
        UsageError: nothing was generated.
    """
    levels = _decibels(mono_16k(sample.audio))
    silent = levels < np.quantile(levels, _LOUD) + _SILENT_DECIBELS
    return Score(float(silent[_generated(sample, len(levels))].mean()))


def variety(sample: Sample) -> Score:
    """How much the generated part changes, over the known part; 1 is alike, 0 a hum or a loop.

    The mean distance of mel cepstra at the lag between 0.1 and 1 s where it is smallest: a held
    vowel repeats itself at all lags, a loop at its period.

    Raises:
        UsageError: the generated or the known part is shorter than 2 s.
    """
    cepstra = mel_cepstra(mono_16k(sample.audio))
    generated = _generated(sample, len(cepstra))
    parts = cepstra[generated], cepstra[~generated]
    if min(map(len, parts)) < 2 * _LAGS[1]:
        raise UsageError(
            "variety compares at least 2 s of generated with 2 s of known speech, but there are "
            f"{len(parts[0]) / _FRAME_RATE:.1f} s and {len(parts[1]) / _FRAME_RATE:.1f} s"
        )
    ours, theirs = map(_least_change, parts)
    return Score(ours / max(theirs, np.finfo(np.float64).tiny))


def _least_change(cepstra: Floats) -> float:
    """The smallest mean distance of frames [F, D] and themselves at a lag."""
    changes = (np.linalg.norm(cepstra[lag:] - cepstra[:-lag], axis=1) for lag in range(*_LAGS))
    return min(float(change.mean()) for change in changes)


def _decibels(samples: NDArray[np.floating]) -> Floats:
    """Level of each frame, float64 [F]."""
    power = (frame(samples, 400, HOP_SAMPLES) ** 2).mean(axis=1)
    levels: Floats = 10 * np.log10(np.maximum(power, 1e-12))
    return levels


def _generated(sample: Sample, frames: int) -> NDArray[np.bool_]:
    """Which frames were generated, bool [F]."""
    inside = np.zeros(frames, np.bool_)
    for region in sample.regions or ():
        start, end = region.start_seconds, region.end_seconds
        inside[round(start * _FRAME_RATE) : round(end * _FRAME_RATE)] = True
    if not inside.any():
        raise UsageError("nothing of the recording was generated")
    return inside


def _roughest_seam(sample: Sample, steps: Floats) -> float:
    """The largest step at a seam over that of ordinary places."""
    inside = _generated(sample, len(steps) + 1)
    seams = np.flatnonzero(inside[1:] != inside[:-1])
    if not len(seams):
        raise UsageError("the recording has no seam between known and generated speech")
    half = _SEAM_FRAMES // 2
    padded = np.pad(steps, half, mode="edge")
    largest = np.lib.stride_tricks.sliding_window_view(padded, _SEAM_FRAMES).max(axis=1)
    near = np.zeros(len(steps), np.bool_)
    for seam in seams:
        near[max(0, seam - _SEAM_FRAMES) : seam + _SEAM_FRAMES + 1] = True
    if near.all():
        raise UsageError("the recording is too short to compare its seams with the rest")
    ordinary = max(float(np.quantile(largest[~near], _ORDINARY)), np.finfo(np.float64).tiny)
    roughest: float = largest[seams].max()
    return float(roughest / ordinary)


METRICS = (
    Metric("seam_flux", seam_flux, "", "lower", ("regions",)),
    Metric("seam_level", seam_level, "", "lower", ("regions",)),
    Metric("silence", silence, "", "lower", ("regions",)),
    Metric("variety", variety, "", "higher", ("regions",)),
)
"""What is heard at and within generated regions: seams, silence, variety."""
