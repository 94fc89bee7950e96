"""The starter's two generators: SpeechSEC networks of two sizes, and the durations of phones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from speechloom.decoding import DecodeConfig
from speechloom.ops.masked_decode import SampleConfig
from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.model import SpeechSEC
from speechloom_speechsec.text_generator import SpeechSECTextGenerator
from speechloom_starter.blocks import build_seeded
from speechloom_starter.components.base import shipped_files
from speechloom_starter.duration_model import DurationConfig, DurationModel
from speechloom_starter.phones import PHONES
from speechloom_starter.thirds import THIRDS_VOCABULARY
from speechloom_starter.weights import load_durations, load_t2u, load_u2c

__all__ = ["StarterTextToUnits", "StarterUnitsToCodes"]

# Chosen by the word error of held-out sentences. One pass that takes the best units loses fewer
# words than several that draw, and guidance of 2 took the word error from 0.38 to 0.18; more of it
# moves the sound away from the recording's. Twelve passes and guidance of all levels cost two
# fifths more time and gain nothing: 0.289 beside 0.275, on sixty sentences. Guidance of the first
# level alone was not enough: 0.25 beside 0.23 on forty, with the second round's network.
UNITS_DECODE = DecodeConfig(steps=(1,), sample=SampleConfig(temperature=0.0))
DRAWN_UNITS_DECODE = DecodeConfig(
    steps=(4,), sample=SampleConfig(temperature=0.3, top_p=0.9), choice_temperature=0.2
)
CODES_DECODE = DecodeConfig(
    steps=(8,),
    sample=SampleConfig(temperature=0.4, top_p=0.9, guidance=2.0),
    choice_temperature=0.3,
    guided_levels=2,
)
# Units of a recording leave less to draw: half of the passes, and guidance of the first level
# alone, lost as many words (0.001 more, of 32 cases, give or take 0.057) and kept the voice.
CONVERT_DECODE = replace(CODES_DECODE, steps=(4,), guided_levels=1)
# Speech without words has nothing to follow: ranked by confidence alone it settles on one vowel.
FREE_DECODE = DecodeConfig(
    steps=(16,),
    sample=SampleConfig(temperature=0.9, top_p=0.95),
    choice_temperature=12.0,
)


def _weights_of(files: Mapping[str, WeightFile]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}


def _tiny(facts: GeneratorFacts, content_vocab: int, voice_dim: int) -> SpeechSECConfig:
    return SpeechSECConfig(
        content_vocab=content_vocab,
        codebooks=facts.codebooks,
        codebook_size=facts.codebook_size,
        voice_dim=voice_dim,
        dim=16,
        layers=2,
        heads=2,
        ff_mult=2,
    )


class _StarterGenerator(SpeechSECGenerator):
    """A generator whose weights come with the package."""

    uses: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """Weight files by name; nothing is loaded."""
        return shipped_files(cls.uses)


class StarterUnitsToCodes(_StarterGenerator):
    """Content units and a voice to codes: 8 passes at the first level, one at each finer."""

    uses = ("u2c",)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterUnitsToCodes:
        """The shipped network."""
        weights = _weights_of(cls.weight_files(spec))
        return cls(
            spec,
            load_u2c(),
            decode=CODES_DECODE,
            free=FREE_DECODE,
            convert=CONVERT_DECODE,
            weights=weights,
            device=device,
        )

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterUnitsToCodes:
        """A tiny network of the same layout."""
        assert isinstance(spec.facts, GeneratorFacts)
        network = SpeechSEC(_tiny(spec.facts, 512, 128), seed=seed)
        return cls(spec, network, decode=CODES_DECODE, free=FREE_DECODE, convert=CONVERT_DECODE)


class StarterTextToUnits(_StarterGenerator, SpeechSECTextGenerator):
    """Phones to content units, and how long each phone lasts, the same for every voice."""

    uses = ("t2u", "durations")

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterTextToUnits:
        """The shipped networks."""
        weights = _weights_of(cls.weight_files(spec))
        return cls(
            spec,
            load_t2u(),
            load_durations(),
            PHONES,
            decode=UNITS_DECODE,
            weights=weights,
            device=device,
        )

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterTextToUnits:
        """Tiny networks of the same layout, that draw: so tests see that draws are named."""
        assert isinstance(spec.facts, GeneratorFacts)
        network = SpeechSEC(_tiny(spec.facts, THIRDS_VOCABULARY, 0), seed=seed)
        lengths = build_seeded(lambda: DurationModel(DurationConfig.tiny()), seed)
        return cls(spec, network, lengths, PHONES, decode=DRAWN_UNITS_DECODE)
