"""The starter's voice encoder and its named voices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from speechloom.errors import AudioError, UsageError
from speechloom.spec import ComponentSpec, SpeakerEncoderFacts
from speechloom.values import Audio, Voice
from speechloom_starter.blocks import build_seeded
from speechloom_starter.components.base import StarterComponent, samples_of
from speechloom_starter.voice_model import VoiceConfig, VoiceEncoder
from speechloom_starter.weights import load_voice_encoder, named_voices

__all__ = ["StarterVoice"]

SILENCE_DBFS = -60.0
"""A recording whose loudest tenth of a second is below this holds no voice."""

MAX_SECONDS = 30
"""More of a recording tells nothing new about who speaks."""


class StarterVoice(StarterComponent):
    """A recording to a unit vector; speech of 3 to 5 s gives a stable one."""

    uses = ("voice", "voices")

    def __init__(
        self,
        spec: ComponentSpec,
        model: VoiceEncoder,
        voices: Mapping[str, Tensor],
        *,
        trained: bool,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, trained=trained)
        self._model = model.eval().requires_grad_(False).to(device)
        self._voices = dict(voices)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterVoice:
        """The shipped encoder and voices."""
        return cls(spec, load_voice_encoder(), named_voices(), trained=True, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterVoice:
        """A tiny encoder with random voices of the same names."""
        assert isinstance(spec.facts, SpeakerEncoderFacts)
        generator = torch.Generator().manual_seed(seed)
        voices = {
            name: torch.nn.functional.normalize(
                torch.randn(spec.facts.size, generator=generator), dim=0
            )
            for name in spec.facts.named_voices
        }
        model = build_seeded(lambda: VoiceEncoder(VoiceConfig.tiny()), seed)
        return cls(spec, model, voices, trained=False)

    @torch.inference_mode()
    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """One voice per recording.

        Raises:
            AudioError: a recording is too short, or silent.
        """
        facts = self.spec.facts
        assert isinstance(facts, SpeakerEncoderFacts)
        for one in audio:
            _check_speech(one, facts.min_seconds)
        heard = [one.slice(0, min(one.length, MAX_SECONDS * one.sample_rate)) for one in audio]
        return [
            Voice(self._model(samples)[0].cpu().numpy(), facts.voice)
            for samples in samples_of(heard, self._device)
        ]

    def named(self, name: str) -> Voice:
        """A voice that comes with the starter.

        Raises:
            UsageError: no voice has that name.
        """
        facts = self.spec.facts
        assert isinstance(facts, SpeakerEncoderFacts)
        if name not in self._voices:
            raise UsageError(
                f"no voice is called {name!r}; the voices are {', '.join(self._voices)}"
            )
        return Voice(self._voices[name].numpy().copy(), facts.voice, name)


def _check_speech(audio: Audio, min_seconds: float) -> None:
    if audio.seconds < min_seconds:
        raise AudioError(
            f"the recording of the voice lasts {audio.seconds:.2f} s; at least {min_seconds:g} s "
            "are needed, and 3 to 5 s are good"
        )
    samples = audio.mono().samples[0]
    block = max(1, audio.sample_rate // 10)
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    loudest = float(np.sqrt(np.square(blocks, dtype=np.float64).mean(axis=1)).max(initial=0.0))
    if 20 * math.log10(max(loudest, 1e-12)) < SILENCE_DBFS:
        raise AudioError("the recording of the voice is silent; give one with speech")
