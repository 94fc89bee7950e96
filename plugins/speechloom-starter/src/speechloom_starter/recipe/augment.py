"""Making clean engine speech sound like speech in rooms, through microphones, by other people."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from speechloom_starter.mel import MEL_BANDS, SAMPLE_RATE


def _curve(batch: int, bins: int, knots: int, spread: float, rng: np.random.Generator) -> Tensor:
    """Smooth random gain over frequency [B, bins], in dB with ``spread`` as deviation."""
    points = torch.from_numpy(rng.normal(0, spread, (batch, 1, knots)).astype(np.float32))
    return F.interpolate(points, bins, mode="linear", align_corners=True)[:, 0]


def _room(batch: int, samples: int, rng: np.random.Generator) -> Tensor:
    """Impulse responses [B, samples]: a direct path and a decaying tail of noise."""
    size = SAMPLE_RATE // 4
    time = torch.arange(size) / SAMPLE_RATE
    decay = torch.from_numpy(rng.uniform(0.02, 0.12, (batch, 1)).astype(np.float32))
    level = torch.from_numpy(rng.uniform(0.0, 0.04, (batch, 1)).astype(np.float32))
    level = level * torch.from_numpy((rng.random((batch, 1)) < 0.5).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal((batch, size), dtype=np.float32))
    tail = level * noise * (-time / decay).exp()
    tail[:, 0] = 1.0
    return F.pad(tail, (0, samples - size))


def degrade(audio: Tensor, rng: np.random.Generator) -> Tensor:
    """Random equaliser, band limit, room, noise and level for each item of ``audio`` [B, T]."""
    batch, samples = audio.shape
    spectrum = torch.fft.rfft(audio)
    bins = spectrum.shape[1]
    gain = _curve(batch, bins, 9, 3.0, rng) + _curve(batch, bins, 2, 5.0, rng)
    edge = torch.from_numpy(rng.uniform(3200, 8000, (batch, 1)).astype(np.float32))
    edge = torch.where(torch.from_numpy(rng.random((batch, 1)) < 0.7), 9000.0, edge)
    frequency = torch.linspace(0, SAMPLE_RATE / 2, bins)
    gain = gain - (frequency - edge).clamp(min=0) / 10.0
    spectrum = spectrum * 10 ** (gain / 20) * torch.fft.rfft(_room(batch, samples, rng))
    out: Tensor = torch.fft.irfft(spectrum, n=samples)
    white = torch.from_numpy(rng.standard_normal((batch, samples), dtype=np.float32))
    shape = _curve(batch, bins, 6, 8.0, rng) - frequency / 8000 * 12
    noise = torch.fft.irfft(torch.fft.rfft(white) * 10 ** (shape / 20), n=samples)
    ratio = torch.from_numpy(rng.uniform(5, 50, (batch, 1)).astype(np.float32))
    power = out.square().mean(1, keepdim=True) / noise.square().mean(1, keepdim=True).clamp(
        min=1e-9
    )
    out = out + noise * (power * 10 ** (-ratio / 10)).sqrt()
    level = torch.from_numpy(rng.uniform(0.01, 0.2, (batch, 1)).astype(np.float32))
    return out * (level / out.square().mean(1, keepdim=True).sqrt().clamp(min=1e-5))


def warp_formants(mel: Tensor, rng: np.random.Generator, spread: float = 0.12) -> Tensor:
    """Stretch the frequency axis of log-mel frames [B, F, 200] by a random factor for each item."""
    batch, frames, _ = mel.shape
    factor = torch.from_numpy(np.exp(rng.uniform(-spread, spread, batch)).astype(np.float32))
    bands = mel.reshape(batch, frames * 2, MEL_BANDS)
    position = (torch.arange(MEL_BANDS) * factor[:, None]).clamp(max=MEL_BANDS - 1.001)
    low = position.long()
    share = (position - low)[:, None]
    index = low[:, None].expand(-1, frames * 2, -1)
    warped = bands.gather(2, index) * (1 - share) + bands.gather(2, index + 1) * share
    return warped.reshape(mel.shape)


def hide_stripes(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv:1904.08779): blank some times and some bands."""
    batch, frames, _ = mel.shape
    bands = mel.reshape(batch, frames, 2, MEL_BANDS).clone()
    for item in range(batch):
        for _ in range(2):
            width, start = int(rng.integers(0, 9)), int(rng.integers(0, frames))
            bands[item, start : start + width] = -1.5
            width, start = int(rng.integers(0, 16)), int(rng.integers(0, MEL_BANDS))
            bands[item, :, :, start : start + width] = -1.5
    return bands.reshape(mel.shape)
