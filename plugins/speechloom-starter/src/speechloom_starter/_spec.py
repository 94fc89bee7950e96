"""What the starter is made of. Light: importing this imports no torch."""

from __future__ import annotations

from fractions import Fraction

from speechloom.spec import (
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    Facts,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    TokenizerFacts,
)
from speechloom_starter.phones import PHONES

__all__ = ["ALIGNER", "CODEC", "ENGLISH", "TEXT_TO_UNITS", "UNITS", "UNITS_TO_CODES", "VOICE"]

SAMPLE_RATE = 16_000
FRAME_RATE = Fraction(50)
CODES = "starter-codec"
VOCABULARY = "starter-units"
VECTOR = "starter-voice"
ALPHABET = "radio"
LANGUAGES = ("en",)
MAX_SECONDS = 12.0
NAMED_VOICES = ("iris", "rolf", "angus", "karl", "mia", "nora", "lena", "otto", "emil")

_WEIGHTS_LICENSE = "Apache-2.0"
_INSTALL = "pip install speechloom-starter"


def _component(id_: str, implementation: str, summary: str, facts: Facts) -> ComponentSpec:
    return ComponentSpec.model_validate(
        {
            "id": id_,
            "implementation": f"speechloom_starter.components.{implementation}",
            "facts": facts.model_dump(),
            "summary": summary,
            "license": "Apache-2.0",
            "weights_license": _WEIGHTS_LICENSE,
            "requires": ("torch>=2.6", "safetensors>=0.4", "speechloom-speechsec"),
            "install": _INSTALL,
        }
    )


CODEC = _component(
    "starter-codec",
    "codec:StarterCodec",
    "16 kHz speech codec, 8 codebooks of 1024 at 50 Hz",
    CodecFacts(
        codes=CODES,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        codebooks=8,
        codebook_size=1024,
        context_frames=25,
    ),
)

UNITS = _component(
    "starter-units",
    "units:StarterUnits",
    "512 content units at 50 Hz, the same for every speaker",
    TokenizerFacts(
        vocabulary=VOCABULARY,
        vocabulary_size=512,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        context_frames=33,
    ),
)

TEXT_TO_UNITS = _component(
    "starter-text-to-units",
    "generators:StarterTextToUnits",
    "English phones to content units, with their durations (SpeechSEC)",
    GeneratorFacts(
        tasks=("synthesize", "edit", "continue"),
        content=(f"phones:{ALPHABET}",),
        gives=f"tokens:{VOCABULARY}",
        frame_rate=FRAME_RATE,
        codebook_size=512,
        styles=("rate",),
        languages=LANGUAGES,
        max_seconds=MAX_SECONDS,
    ),
)

UNITS_TO_CODES = _component(
    "starter-units-to-codes",
    "generators:StarterUnitsToCodes",
    "Content units and a voice to codec codes (SpeechSEC)",
    GeneratorFacts(
        tasks=("synthesize", "edit", "continue", "convert"),
        content=(f"tokens:{VOCABULARY}",),
        gives=f"codes:{CODES}",
        frame_rate=FRAME_RATE,
        codebooks=8,
        codebook_size=1024,
        free_tasks=("continue",),
        voice=VECTOR,
        voice_size=128,
        max_seconds=MAX_SECONDS,
    ),
)

VOICE = _component(
    "starter-voice",
    "voice:StarterVoice",
    "A recording of a speaker to a voice vector of 128 values",
    SpeakerEncoderFacts(
        voice=VECTOR,
        size=128,
        sample_rate=SAMPLE_RATE,
        min_seconds=0.5,
        named_voices=NAMED_VOICES,
    ),
)

ENGLISH = _component(
    "starter-english",
    "frontend:StarterEnglish",
    "English text to phones: numbers, dates, abbreviations, a lexicon and letter-to-sound",
    FrontendFacts(alphabet=ALPHABET, phones=PHONES, pause="pau", languages=LANGUAGES),
)

ALIGNER = _component(
    "starter-aligner",
    "aligner:StarterAligner",
    "Finds each phone of a known English text in a recording",
    AlignerFacts(
        alphabet=ALPHABET,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        languages=LANGUAGES,
        max_seconds=120.0,
    ),
)
