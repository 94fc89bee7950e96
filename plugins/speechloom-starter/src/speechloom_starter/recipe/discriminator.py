"""Telling made speech from recorded speech, with linear layers on bands of spectrogram frames.

The two-dimensional convolutions of the usual discriminators are slow on a CPU. Here a token is one
band of one frame of a complex spectrogram, and all work is matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom_starter.mel import hann

BANDS = 8
View = tuple[Tensor, list[Tensor]]
Views = list[View]


class BandDiscriminator(nn.Module):
    """Scores for every band of every frame at one resolution.

    After the multi-resolution discriminator of Jang et al. 2021 (UnivNet, arXiv:2106.07889), on
    real and imaginary parts so that it hears phase, with weights shared over bands.
    """

    def __init__(self, size: int, width: int = 128) -> None:
        super().__init__()
        self.size = size
        self.band_bins = size // 2 // BANDS
        self.read = nn.Linear(2 * self.band_bins, width)
        self.band = nn.Parameter(torch.zeros(BANDS, width))
        self.layers = nn.ModuleList(nn.Linear(5 * width, width) for _ in range(3))
        self.score = nn.Linear(width, 1)

    def forward(self, audio: Tensor) -> View:
        """Scores [B, F, 8] and the features of each layer for ``audio`` [B, T]."""
        hidden = F.leaky_relu(self.read(self._tokens(audio)) + self.band, 0.1)
        features = [hidden]
        for layer in self.layers:
            hidden = F.leaky_relu(layer(_with_neighbours(hidden)), 0.1) + hidden
            features.append(hidden)
        return self.score(hidden)[..., 0].float(), features

    def _tokens(self, audio: Tensor) -> Tensor:
        pieces = audio.unfold(-1, self.size, self.size // 4) * hann(self.size, audio.device)
        spectrum = torch.view_as_real(torch.fft.rfft(pieces)[..., :-1])
        # The cube root of the magnitude, the phase kept: quiet bands count too.
        loud = spectrum.square().sum(-1, keepdim=True)
        compressed = spectrum * (loud + 1e-5) ** (-1 / 3)
        batch, frames = compressed.shape[:2]
        return compressed.reshape(batch, frames, BANDS, 2 * self.band_bins)


def _with_neighbours(x: Tensor) -> Tensor:
    """Each token beside those one frame before and after and one band below and above."""
    time = F.pad(x, (0, 0, 0, 0, 1, 1))
    band = F.pad(x, (0, 0, 1, 1))
    return torch.cat((x, time[:, :-2], time[:, 2:], band[:, :, :-2], band[:, :, 2:]), -1)


class Discriminators(nn.Module):
    """One band discriminator for each resolution."""

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024), width: int = 128) -> None:
        super().__init__()
        self.parts = nn.ModuleList(BandDiscriminator(size, width) for size in sizes)

    def forward(self, audio: Tensor) -> Views:
        """Scores and features of every resolution."""
        return [part(audio) for part in self.parts]


def critic_loss(true: Views, made: Views) -> Tensor:
    """Hinge loss of the discriminators."""
    pairs = zip(true, made, strict=True)
    terms = [F.relu(1 - t[0]).mean() + F.relu(1 + m[0]).mean() for t, m in pairs]
    return torch.stack(terms).mean()


def maker_loss(true: Views, made: Views) -> tuple[Tensor, Tensor]:
    """How badly the discriminators are fooled, and the distance of their features."""
    fooled = torch.stack([-m[0].mean() for m in made]).mean()
    distances = []
    for (_, wanted), (_, got) in zip(true, made, strict=True):
        for want, have in zip(wanted, got, strict=True):
            scale = want.detach().float().abs().mean() + 1e-4
            distances.append(F.l1_loss(have.float(), want.detach().float()) / scale)
    return fooled, torch.stack(distances).mean()
