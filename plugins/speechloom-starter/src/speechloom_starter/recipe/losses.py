"""Spectral distances between samples, in float32 at several resolutions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from speechloom_starter.mel import hann, mel_filters, power_spectrum

RESOLUTIONS = (256, 512, 1024, 2048)
_BANDS = {256: 32, 512: 64, 1024: 100, 2048: 160}


def power(audio: Tensor, size: int) -> Tensor:
    """Power spectrogram [B, F, size // 2 + 1] at a hop of a quarter window."""
    pieces = audio.unfold(-1, size, size // 4) * hann(size, audio.device)
    return power_spectrum(torch.fft.rfft(pieces))


def spectral_distance(made: Tensor, true: Tensor) -> Tensor:
    """Mean distance of log mel, log magnitude and compressed magnitude over all resolutions.

    Args:
        made: samples float32 [B, T], at least 2048 of them.
        true: samples float32 [B, T].
    """
    total = made.new_zeros(())
    for size in RESOLUTIONS:
        ours = power(made, size)
        with torch.no_grad():
            theirs = power(true, size)
        filters = mel_filters(_BANDS[size], size, made.device)
        log_mel = F.l1_loss(_log(ours @ filters), _log(theirs @ filters))
        log_bins = F.l1_loss(_log(ours), _log(theirs))
        root = F.l1_loss((ours + 1e-6) ** 0.25, (theirs + 1e-6) ** 0.25)
        total = total + log_mel + 0.3 * log_bins + root
    return total / len(RESOLUTIONS)


def _log(power_values: Tensor) -> Tensor:
    return power_values.clamp(min=1e-5).log()
