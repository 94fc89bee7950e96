"""Griffin-Lim: a vocoder without weights for every kind of mel spectrogram."""

from __future__ import annotations

import torch
from torch import Tensor

from speechloom.mel import MelSpec
from speechloom.spec import ComponentSpec, VocoderFacts
from speechloom.values import Audio, Features
from speechloom.weightless import Weightless
from speechloom_wavenet.playing import items_of
from speechloom_wavenet.samples import deemphasized

__all__ = ["GriffinLimVocoder", "magnitudes", "phases_found"]

UNMIXINGS = 40
"""Steps that spread mel bands over bins; the error hardly falls any more."""
ITERATIONS = 40
MOMENTUM = 0.99
"""The best of Perraudin et al. 2013 for speech."""
SMALLEST = 1e-10


class GriffinLimVocoder(Weightless):
    """Finds phases that a mel spectrogram's magnitudes go together with.

    Griffin and Lim 1984, "Signal estimation from modified short-time Fourier transform", with the
    momentum of Perraudin et al. 2013, "A fast Griffin-Lim algorithm". The magnitudes are a
    non-negative least-squares inversion of the mel filters by multiplicative steps (Lee and Seung
    2001). It sounds hollow, but every mel generator can be heard. The phases it starts from are
    drawn once for each frame and bin, so that the same frames sound the same.

    Args:
        spec: its facts name the kind that is played.
        device: where it computes.
    """

    def __init__(self, spec: ComponentSpec, device: str = "cpu") -> None:
        facts = spec.facts
        assert isinstance(facts, VocoderFacts), f"{spec.id} is a {spec.kind}"
        super().__init__(spec)
        self._facts = facts
        self._mel = MelSpec.from_kind(facts.features)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> GriffinLimVocoder:
        """Build it for the kind that the facts name."""
        return cls(spec, device)

    @torch.no_grad()
    def render(self, features: Features) -> list[Audio]:
        """Play a batch, a hop of samples per frame.

        Raises:
            UsageError: the features are of another kind or size, or an item has no frames.
        """
        items = items_of(self._facts, features)
        return [self._play(item.to(self._device)) for item in items]

    def _play(self, values: Tensor) -> Audio:
        mel, frames = self._mel, values.shape[-1]
        # Beyond the ends the outer frames go on, so that every sample lies under some window.
        outer = torch.cat([values[:, :1], values, values[:, -1:]], dim=1)
        samples = phases_found(mel, magnitudes(mel, outer))
        # Frame f of a mel lies around f hops, or where edges are `hop` half a hop later.
        first = mel.hop - (mel.hop // 2 if mel.edges == "hop" else 0)
        played = deemphasized(samples[first : first + frames * mel.hop].cpu(), mel.preemphasis)
        return Audio(played[None].numpy(), mel.rate)


def magnitudes(mel: MelSpec, values: Tensor) -> Tensor:
    """Magnitudes of the bins, [bins, F], whose mel spectrogram comes nearest to the values."""
    target = mel.expand(values).clamp(min=SMALLEST)
    filters = torch.tensor(mel.filters(), device=values.device)
    reach = filters.sum(0)[:, None]
    bins = torch.where(reach > 0, filters.T @ target, torch.zeros_like(reach))
    goal, product = filters.T @ target, filters.T @ filters
    for _ in range(UNMIXINGS):
        bins = bins * goal / (product @ bins).clamp(min=SMALLEST)
    return bins if mel.measure == "amplitude" else bins.sqrt()


def phases_found(mel: MelSpec, size: Tensor) -> Tensor:
    """Samples [(F - 1) x hop] whose spectrum's magnitudes come near to `size` [bins, F]."""
    frames = size.shape[-1]
    window = torch.hann_window(mel.win, device=size.device)
    length = (frames - 1) * mel.hop

    def to_samples(spectrum: Tensor) -> Tensor:
        return torch.istft(spectrum, mel.fft, mel.hop, mel.win, window, length=length)

    def to_spectrum(samples: Tensor) -> Tensor:
        return torch.stft(
            samples, mel.fft, mel.hop, mel.win, window, pad_mode="constant", return_complex=True
        )

    # Frame by frame, so that the same frames begin alike in a long and in a short piece.
    draws = torch.rand(frames, size.shape[0], generator=torch.Generator().manual_seed(0))
    angle = torch.polar(torch.ones_like(draws), 2 * torch.pi * draws).T.to(size.device)
    before = torch.zeros_like(angle)
    for _ in range(ITERATIONS):
        now = to_spectrum(to_samples(size * angle))
        ahead = now + MOMENTUM * (now - before)
        angle, before = ahead / ahead.abs().clamp(min=SMALLEST), now
    return to_samples(size * angle)
