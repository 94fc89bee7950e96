"""Specs of the fakes: light, as every plugin's spec module is. No torch here.

Together the fakes make one complete chain at 16 kHz and 50 frames a second: text to phones
(`FakeFrontend`) to units (`FakeTextGenerator`) to codes (`FakeGenerator`) to audio (`FakeCodec`).
`FakeFeatureGenerator` and `FakeVocoder` make the shorter one over features.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from speechloom.spec import (
    TASKS,
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    TokenizerFacts,
    VocoderFacts,
)

__all__ = [
    "ALIGNER",
    "CODEC",
    "FAKE_SPECS",
    "FEATURE_GENERATOR",
    "FRONTEND",
    "GENERATOR",
    "SPEAKER_ENCODER",
    "TEXT_GENERATOR",
    "TOKENIZER",
    "VOCODER",
]

SAMPLE_RATE = 16_000
FRAME_RATE = Fraction(50)
BLOCKS = 8
PAUSE = "_"
PHONES = (PAUSE, *"abcdefghijklmnopqrstuvwxyz")
VOICE_SIZE = 4


def _spec(name: str, module: str, implementation: str, summary: str, facts: Any) -> ComponentSpec:
    return ComponentSpec(
        id=name,
        implementation=f"speechloom.testing.{module}:{implementation}",
        facts=facts,
        summary=summary,
        license="MIT",
    )


TOKENIZER = _spec(
    "fake-tokenizer",
    "fake_sound",
    "FakeTokenizer",
    "loudness and sign changes of each frame as a unit; for tests",
    TokenizerFacts(
        vocabulary="fake-units",
        vocabulary_size=128,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        context_frames=0,
    ),
)
CODEC = _spec(
    "fake-codec",
    "fake_sound",
    "FakeCodec",
    "eight mu-law block means per frame; keeps what lies below 100 Hz; for tests",
    CodecFacts(
        codes="fake-codes",
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        codebooks=BLOCKS,
        codebook_size=256,
        context_frames=1,
    ),
)
GENERATOR = _spec(
    "fake-generator",
    "fake_generators",
    "FakeGenerator",
    "units to codes by a counted draw; for tests",
    GeneratorFacts(
        tasks=TASKS,
        content=("tokens:fake-units",),
        gives="codes:fake-codes",
        frame_rate=FRAME_RATE,
        codebooks=BLOCKS,
        codebook_size=256,
        free_tasks=("continue",),
        voice="fake-voice",
        voice_size=VOICE_SIZE,
    ),
)
TEXT_GENERATOR = _spec(
    "fake-text-generator",
    "fake_generators",
    "FakeTextGenerator",
    "letter phones to units, four frames each; for tests",
    GeneratorFacts(
        tasks=("synthesize", "edit", "continue"),
        content=("phones:letters",),
        gives="tokens:fake-units",
        frame_rate=FRAME_RATE,
        codebook_size=128,
        styles=("rate",),
        languages=("en",),
    ),
)
FEATURE_GENERATOR = _spec(
    "fake-feature-generator",
    "fake_generators",
    "FakeFeatureGenerator",
    "letter phones to block means; for tests",
    GeneratorFacts(
        tasks=("synthesize",),
        content=("phones:letters",),
        gives="features:fake-blocks",
        frame_rate=FRAME_RATE,
        codebook_size=2,
        styles=("rate",),
        languages=("en",),
    ),
)
VOCODER = _spec(
    "fake-vocoder",
    "fake_sound",
    "FakeVocoder",
    "draws a line through eight block means per frame; for tests",
    VocoderFacts(
        features="fake-blocks",
        size=BLOCKS,
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        context_frames=1,
    ),
)
FRONTEND = _spec(
    "fake-frontend",
    "fake_text",
    "FakeFrontend",
    "one phone per letter; for tests",
    FrontendFacts(alphabet="letters", phones=PHONES, pause=PAUSE, languages=("en",)),
)
SPEAKER_ENCODER = _spec(
    "fake-speaker-encoder",
    "fake_sound",
    "FakeSpeakerEncoder",
    "four autocorrelations as a voice; for tests",
    SpeakerEncoderFacts(
        voice="fake-voice",
        size=VOICE_SIZE,
        sample_rate=SAMPLE_RATE,
        min_seconds=0.2,
        named_voices=("ann", "bob"),
    ),
)
ALIGNER = _spec(
    "fake-aligner",
    "fake_sound",
    "FakeAligner",
    "gives every phone the same share of the recording; for tests",
    AlignerFacts(
        alphabet="letters",
        sample_rate=SAMPLE_RATE,
        frame_rate=FRAME_RATE,
        languages=("en",),
        max_seconds=120.0,
    ),
)

FAKE_SPECS: tuple[ComponentSpec, ...] = (
    TOKENIZER,
    CODEC,
    GENERATOR,
    TEXT_GENERATOR,
    FEATURE_GENERATOR,
    VOCODER,
    FRONTEND,
    SPEAKER_ENCODER,
    ALIGNER,
)
"""One spec for each fake."""
