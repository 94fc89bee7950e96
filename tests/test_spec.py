from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from pydantic import ValidationError

from speechloom.spec import (
    KINDS,
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
from speechloom.testing.fake_specs import CODEC, FAKE_SPECS, GENERATOR, TOKENIZER

CODEC_FACTS: dict[str, Any] = {
    "codes": "c",
    "sample_rate": 44_100,
    "frame_rate": "44100/512",
    "codebooks": 9,
    "codebook_size": 1024,
}
GENERATOR_FACTS: dict[str, Any] = {
    "tasks": ("edit",),
    "content": ("tokens:units",),
    "gives": "codes:c",
    "frame_rate": 50,
    "codebook_size": 1024,
}


@pytest.mark.parametrize("spec", FAKE_SPECS, ids=lambda spec: spec.id)
def test_a_spec_survives_json(spec: ComponentSpec) -> None:
    back = ComponentSpec.model_validate_json(spec.model_dump_json())
    assert back == spec
    assert type(back.facts) is type(spec.facts)
    assert back.kind == spec.kind == spec.facts.kind


def test_fake_specs_cover_every_kind_and_task() -> None:
    assert {spec.kind for spec in FAKE_SPECS} == set(KINDS)
    assert {task for spec in FAKE_SPECS for task in spec.tasks} == set(TASKS)


def test_frame_rates_are_exact() -> None:
    facts = CodecFacts(**CODEC_FACTS)
    assert facts.frame_rate == Fraction(11025, 128)
    assert json.loads(facts.model_dump_json())["frame_rate"] == "11025/128"
    assert CodecFacts(**{**CODEC_FACTS, "frame_rate": 50}).frame_rate == Fraction(50)


@pytest.mark.parametrize("rate", [0, -50, "-1/2", "fast", "1/0", 86.13])
def test_rates_that_are_no_positive_fraction_are_refused(rate: object) -> None:
    with pytest.raises(ValidationError, match="frame_rate"):
        CodecFacts(**{**CODEC_FACTS, "frame_rate": rate})


def test_specs_and_facts_are_frozen_and_refuse_unknown_names() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CODEC.id = "other"
    with pytest.raises(ValidationError, match="frozen"):
        CODEC.facts.sample_rate = 8000  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="sample_rates"):
        CodecFacts(**{**CODEC_FACTS, "sample_rates": (8000,)})
    with pytest.raises(ValidationError, match="colour"):
        ComponentSpec(**{**CODEC.model_dump(), "colour": "red"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "My Codec"),
        ("id", "-codec"),
        ("implementation", "package.module"),
        ("implementation", "package.module:Class.method"),
        ("summary", ""),
        ("summary", "long " * 30),
        ("api_version", "1"),
        ("api_version", "1.0.0"),
        ("facts", {"kind": "codecs"}),
    ],
)
def test_malformed_specs_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ComponentSpec(**{**CODEC.model_dump(), field: value})


@pytest.mark.parametrize("field", ["codebooks", "codebook_size", "sample_rate", "channels"])
def test_counts_must_be_positive(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        CodecFacts(**{**CODEC_FACTS, field: 0})


def test_kinds_of_values_match_between_components() -> None:
    assert TokenizerFacts(
        vocabulary="u", vocabulary_size=2, sample_rate=1, frame_rate=Fraction(1)
    ).gives == ("tokens:u")
    assert CodecFacts(**CODEC_FACTS).takes == "codes:c"
    vocoder = VocoderFacts(features="mel", size=80, sample_rate=1, frame_rate=Fraction(1))
    assert vocoder.takes == "features:mel"
    frontend = FrontendFacts(alphabet="abc", phones=("_", "a"), pause="_", languages=("en",))
    assert frontend.gives == "phones:abc"
    assert TOKENIZER.facts.gives in GENERATOR.facts.content  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"content": ("units",)}, "must start with"),
        ({"gives": "mel"}, "must be audio, tokens:, codes: or features:"),
        ({"gives": "audio"}, "sample_rate belongs"),
        ({"sample_rate": 16_000}, "sample_rate belongs"),
        ({"voice_required": True}, "needs the voice kind"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": ("sing",)}, "tasks"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"voice": "v", "voice_size": 0}, "voice_size"),
    ],
)
def test_generator_facts_that_contradict_are_refused(changes: dict[str, Any], message: str) -> None:
    GeneratorFacts(**GENERATOR_FACTS)
    with pytest.raises(ValidationError, match=message):
        GeneratorFacts(**{**GENERATOR_FACTS, **changes})


def test_a_generator_of_audio_names_its_rate() -> None:
    facts = GeneratorFacts(**{**GENERATOR_FACTS, "gives": "audio", "sample_rate": 22_050})
    assert facts.sample_rate == 22_050


def test_only_generators_claim_tasks() -> None:
    assert GENERATOR.tasks == TASKS
    assert CODEC.tasks == ()


def test_serving_facts_check_their_sizes() -> None:
    with pytest.raises(ValidationError, match="size"):
        SpeakerEncoderFacts(voice="v", size=0, sample_rate=16_000)
    with pytest.raises(ValidationError, match="languages"):
        AlignerFacts(alphabet="abc", sample_rate=16_000, frame_rate=Fraction(50), languages=())


def test_importing_specs_imports_no_torch() -> None:
    code = (
        "import sys, speechloom.spec, speechloom.testing.fake_specs, speechloom.testing;"
        "import speechloom.testing.pytest_plugin as plugin;"
        "print([m for m in ('torch', 'soundfile', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
