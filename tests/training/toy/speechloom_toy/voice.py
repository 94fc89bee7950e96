"""The component that a toy run makes: a voice is the mean of the packed spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from speechloom.checkpoints import find_checkpoint, load_exactly, read_tensors, sha256_of
from speechloom.errors import AudioError, UsageError
from speechloom.spec import ComponentSpec
from speechloom.values import Audio, Voice

RATE, HOP, BANDS, SIZE = 8_000, 80, 8, 4


def spectra(audio: Audio) -> Tensor:
    """Log energies of eight bands, float32 [F, 8], 100 frames a second."""
    samples = torch.from_numpy(audio.samples[0].copy())
    count = len(samples) // HOP
    if count == 0:
        raise AudioError(f"the example has {len(samples)} samples; a frame takes {HOP}")
    frames = samples[: count * HOP].reshape(count, HOP)
    power = torch.fft.rfft(frames).abs().square()[:, 1 : 1 + 5 * BANDS]
    return (power.reshape(count, BANDS, 5).mean(2) + 1e-3).log()


class ToyVoice:
    def __init__(self, spec: ComponentSpec, linear: nn.Linear, weights: Mapping[str, str]) -> None:
        self.spec, self.weights, self._linear = spec, weights, linear

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        name = "voice.safetensors"
        path = find_checkpoint(spec.options["checkpoint"], [name])[name]
        linear = nn.Linear(BANDS, SIZE)
        load_exactly(linear, read_tensors(path), path)
        return cls(spec, linear.to(device), {name: sha256_of(path)})

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(spec, nn.Linear(BANDS, SIZE), {})

    @torch.no_grad()
    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        return [self._voice(spectra(one.mono().resampled(RATE))) for one in audio]

    def _voice(self, frames: Tensor) -> Voice:
        packed: Tensor = self._linear(frames)
        return Voice(np.asarray(packed.mean(0)), self.spec.id)

    def named(self, name: str) -> Voice:
        raise UsageError(f"there is no voice {name!r}; give a recording")
