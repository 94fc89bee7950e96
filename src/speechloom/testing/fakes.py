"""A tiny, deterministic fake of every protocol, with no weights.

Together they make complete chains for all four tasks at 16 kHz and 50 frames a second; see
`speechloom.testing.fake_specs` for what each takes and gives. Each can be built with no arguments.
"""

from __future__ import annotations

from speechloom.testing.fake_generators import (
    FakeFeatureGenerator,
    FakeGenerator,
    FakeTextGenerator,
)
from speechloom.testing.fake_sound import (
    FakeAligner,
    FakeCodec,
    FakeSpeakerEncoder,
    FakeTokenizer,
    FakeVocoder,
)
from speechloom.testing.fake_specs import FAKE_SPECS
from speechloom.testing.fake_text import FakeFrontend

__all__ = [
    "FAKE_SPECS",
    "FakeAligner",
    "FakeCodec",
    "FakeFeatureGenerator",
    "FakeFrontend",
    "FakeGenerator",
    "FakeSpeakerEncoder",
    "FakeTextGenerator",
    "FakeTokenizer",
    "FakeVocoder",
]
