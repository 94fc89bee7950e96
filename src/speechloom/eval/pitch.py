"""Fundamental frequency by YIN, in numpy and without a loop over frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from speechloom.eval.spectrum import HOP_SAMPLES, SAMPLE_RATE, frame

__all__ = ["Pitch", "track_pitch"]

MIN_HZ = 60.0
MAX_HZ = 500.0
_WINDOW_SAMPLES = 640  # 40 ms: two periods of the lowest voice
_APERIODICITY = 0.2  # the largest share of a frame that does not repeat, where it is voiced
_QUIET_BELOW_PEAK = 1e-2  # -40 dB: quieter frames are not voiced
_BLOCK_FRAMES = 2048  # bounds the memory for long recordings


@dataclass(frozen=True, eq=False)
class Pitch:
    """Fundamental frequency over time, every 10 ms.

    Attributes:
        hertz: float64 [F]; 0 where the frame is not voiced.
    """

    hertz: NDArray[np.float64]

    @property
    def voiced(self) -> NDArray[np.bool_]:
        """Whether each frame is voiced, bool [F]."""
        return self.hertz > 0


def track_pitch(samples: NDArray[np.floating]) -> Pitch:
    """Track the fundamental of samples [T] at 16 kHz between 60 and 500 Hz.

    Source: de Cheveigne and Kawahara 2002, YIN, steps 1 to 5. Frames more than 40 dB below the
    loudest are not voiced, whatever their period.
    """
    longest = int(np.ceil(SAMPLE_RATE / MIN_HZ)) + 1
    frames = frame(samples, _WINDOW_SAMPLES + longest, HOP_SAMPLES)
    level = np.sqrt((frames**2).mean(axis=1))
    blocks = [
        _periods(frames[start : start + _BLOCK_FRAMES], longest)
        for start in range(0, len(frames), _BLOCK_FRAMES)
    ]
    periods = np.concatenate(blocks)
    voiced = (periods > 0) & (level > level.max() * _QUIET_BELOW_PEAK)
    hertz = np.zeros(len(frames))
    hertz[voiced] = SAMPLE_RATE / periods[voiced]
    return Pitch(hertz)


def _periods(frames: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Period of each frame in samples, with fractions; 0 where it has none."""
    difference = _differences(frames, longest)
    lags = np.arange(1, longest + 1)
    sums = np.maximum(np.cumsum(difference[:, 1:], axis=1), np.finfo(np.float64).tiny)
    normalised = difference[:, 1:] * lags / sums  # column i stands for lag i + 1
    shortest = int(SAMPLE_RATE / MAX_HZ)
    inner = normalised[:, shortest - 1 : -1]
    dip = (
        (inner < _APERIODICITY)
        & (inner < normalised[:, shortest - 2 : -2])
        & (inner <= normalised[:, shortest:])
    )
    lag = np.argmax(dip, axis=1) + shortest
    return np.where(dip.any(axis=1), _refine(difference, lag), 0.0)


def _differences(frames: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Squared difference of each window and itself later: [F, W + longest] to [F, longest + 1]."""
    window = frames.shape[1] - longest
    size = 1 << (frames.shape[1] - 1).bit_length()  # lags 0 to longest do not wrap around
    head = np.fft.rfft(frames[:, :window], size)
    products = np.fft.irfft(np.conj(head) * np.fft.rfft(frames, size), size)[:, : longest + 1]
    energy = np.pad(np.cumsum(frames**2, axis=1), ((0, 0), (1, 0)))
    later = energy[:, window:] - energy[:, : longest + 1]
    return np.maximum(later[:, :1] + later - 2 * products, 0)


def _refine(difference: NDArray[np.float64], lag: NDArray[np.int64]) -> NDArray[np.float64]:
    """Lag of the bottom of the parabola through a dip and its neighbours."""
    rows = np.arange(len(lag))
    before, at, after = (difference[rows, lag + step] for step in (-1, 0, 1))
    curvature = before - 2 * at + after
    flat = curvature <= 0
    shift = (before - after) / (2 * np.where(flat, 1, curvature))
    return lag.astype(np.float64) + np.where(flat, 0.0, np.clip(shift, -0.5, 0.5))
