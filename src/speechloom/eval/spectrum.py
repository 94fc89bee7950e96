"""Short-time spectra and mel cepstra, in numpy.

Frames are centred: frame f lies around sample f * hop, and a recording of T samples has
ceil(T / hop) of them, so that spectra and pitch of one recording can be read side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["frame", "mel_cepstra", "mel_filters", "power_spectra"]

SAMPLE_RATE = 16_000  # of everything that is compared frame by frame
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
FFT_SIZE = 512
MEL_BANDS = 40
CEPSTRA = 24
_FLOOR_BELOW_PEAK = 1e-3  # -60 dB: quieter is room, not speech


def frame(samples: NDArray[np.floating], size: int, hop: int) -> NDArray[np.float64]:
    """Cut samples [T] into centred frames [F, size], with zeros beyond the ends.

    >>> frame(np.arange(1.0, 6.0), 3, 2).tolist()
    [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 0.0]]
    """
    padded = np.pad(np.asarray(samples, np.float64), (size // 2, size))
    count = -(-len(samples) // hop)
    return np.lib.stride_tricks.sliding_window_view(padded, size)[: count * hop : hop]


def power_spectra(
    samples: NDArray[np.floating],
    *,
    window: int = WINDOW_SAMPLES,
    hop: int = HOP_SAMPLES,
    fft_size: int = FFT_SIZE,
) -> NDArray[np.float64]:
    """Power in Hann windows: samples [T] to [F, fft_size // 2 + 1]."""
    shape = np.hanning(window + 2)[1:-1]
    return np.abs(np.fft.rfft(frame(samples, window, hop) * shape, fft_size)) ** 2


def mel_filters(bands: int = MEL_BANDS, *, sample_rate: int, fft_size: int) -> NDArray[np.float64]:
    """Triangular filters of equal area on the mel scale, from 0 to half the sample rate.

    Returns:
        float64 [bands, fft_size // 2 + 1].
    """
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.arange(fft_size // 2 + 1) * sample_rate / fft_size
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequencies - low) / (centre - low)
    falling = (high - frequencies) / (high - centre)
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def log_mel(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithm of the mel amplitudes of samples [T] at 16 kHz: [F, bands].

    What lies 60 dB below the loudest band of the recording is raised to that level, so that
    digital silence and a quiet room are the same.
    """
    filters = mel_filters(sample_rate=SAMPLE_RATE, fft_size=FFT_SIZE)
    amplitude = np.sqrt(power_spectra(samples) @ filters.T)
    floor = max(amplitude.max() * _FLOOR_BELOW_PEAK, np.finfo(np.float64).tiny)
    logarithm: NDArray[np.float64] = np.log(np.maximum(amplitude, floor))
    return logarithm


def cosine_series(log_amplitude: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Coefficients 1 to `order` of log A(k) = c_0 + sum c_m cos(pi m (k + 1/2) / bands).

    Args:
        log_amplitude: [F, bands].
        order: how many; the level c_0 is left out.

    Returns:
        [F, order].
    """
    bands = log_amplitude.shape[1]
    angle = np.pi / bands * np.outer(np.arange(bands) + 0.5, np.arange(1, order + 1))
    coefficients: NDArray[np.float64] = 2 / bands * log_amplitude @ np.cos(angle)
    return coefficients


def mel_cepstra(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mel cepstra 1 to 24 of samples [T] at 16 kHz, every 10 ms: [F, 24], in nepers."""
    return cosine_series(log_mel(samples), CEPSTRA)
