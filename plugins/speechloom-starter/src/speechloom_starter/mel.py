"""Log-mel frames at 50 Hz, the one input of every network of the starter.

A frame is 320 samples and holds two sub-frames of 160 samples, each seen through a 640-sample
window around its centre. Sub-frame j covers samples ``160 j - 240`` to ``160 j + 400``; outside the
recording there is silence. Nothing is normalised over time, so a window of a long recording has the
features that the whole recording has there, but for ``MEL_EDGE_FRAMES`` at the cut.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

SAMPLE_RATE = 16_000
HOP = 320
SUB_HOP = 160
WINDOW = 640
FFT = 1024
MEL_BANDS = 100
MEL_DIM = 2 * MEL_BANDS
MEL_EDGE_FRAMES = 1
EDGE = (WINDOW - SUB_HOP) // 2


def frame_count(samples: int) -> int:
    """How many 20 ms frames hold ``samples`` samples."""
    return -(-samples // HOP)


@lru_cache(maxsize=16)
def hann(size: int, device: torch.device) -> Tensor:
    """Periodic Hann window [size]."""
    return torch.hann_window(size, device=device)


@lru_cache(maxsize=16)
def mel_filters(bands: int, fft: int, device: torch.device) -> Tensor:
    """Triangular filters on the HTK mel scale from 0 to 8 kHz, [fft // 2 + 1, bands]."""
    top = 2595.0 * torch.log10(torch.tensor(1.0 + SAMPLE_RATE / 2 / 700.0, dtype=torch.float64))
    edges = 700.0 * (
        10.0 ** (torch.linspace(0, 1, bands + 2, dtype=torch.float64) * top / 2595) - 1
    )
    bins = torch.linspace(0, SAMPLE_RATE / 2, fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rising, falling).clamp(min=0)
    # A triangle narrower than a bin may miss all bins: give it the nearest one.
    empty = filters.sum(0) == 0
    nearest = (bins - edges[1:-1]).abs().argmin(0)
    filters[nearest[empty], torch.nonzero(empty)[:, 0]] = 1.0
    return filters.float().to(device)


def power_spectrum(spectrum: Tensor) -> Tensor:
    """Squared magnitude, without the slow square root of ``abs`` on complex numbers."""
    return spectrum.real.square() + spectrum.imag.square()


def log_mel(audio: Tensor) -> Tensor:
    """Log-mel frames of mono audio.

    Args:
        audio: float [B, T], 16 kHz.

    Returns:
        float32 [B, F, 200] with ``F = ceil(T / 320)``: the two sub-frames of a frame side by side.
    """
    audio = audio.float()
    missing = frame_count(audio.shape[-1]) * HOP - audio.shape[-1]
    with torch.autocast(audio.device.type, enabled=False):
        padded = F.pad(audio, (EDGE, EDGE + missing))
        pieces = padded.unfold(-1, WINDOW, SUB_HOP) * hann(WINDOW, audio.device)
        power = power_spectrum(torch.fft.rfft(pieces, n=FFT))
        mel = power @ mel_filters(MEL_BANDS, FFT, audio.device)
        # Speech at usual levels then has a mean near 0 and a spread near 1.
        features = (mel.clamp(min=1e-5).log() + 4.0) / 4.0
    batch, frames, bands = features.shape
    return features.reshape(batch, frames // 2, 2 * bands)
