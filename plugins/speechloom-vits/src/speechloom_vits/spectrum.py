"""The spectrograms of training: linear for the posterior encoder, mel for the loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from speechloom.mel import MelSpec

__all__ = ["linear_spectrum", "loss_mel"]


def linear_spectrum(samples: Tensor, window: int, hop: int) -> Tensor:
    """Magnitudes under a Hann window, as the original computes them.

    Args:
        samples: float32 [B, T], T a multiple of `hop`.
        window: samples; also the points of the transform.
        hop: samples from frame to frame.

    Returns:
        float32 [B, window // 2 + 1, T // hop]; frame f is centred in its hop.
    """
    edge = (window - hop) // 2
    # A recording shorter than the edge cannot be reflected; silence follows it.
    short = max(0, edge + 1 - samples.shape[-1])
    padded = functional.pad(functional.pad(samples, (0, short)), (edge, edge), mode="reflect")
    hann = torch.hann_window(window, device=samples.device)
    spectrum = torch.stft(padded, window, hop, window, hann, center=False, return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    return torch.sqrt(power + 1e-6)[..., : samples.shape[-1] // hop]


def loss_mel(sample_rate: int, window: int, hop: int, bands: int = 80) -> MelSpec:
    """The mel spectrogram that decoded speech is compared in: HiFi-GAN's, up to half the rate."""
    return MelSpec(
        rate=sample_rate,
        fft=window,
        win=window,
        hop=hop,
        bands=bands,
        low=0,
        high=sample_rate / 2,
        edges="hop",
    )
