"""convert by saying a transcript again in the timing of the recording."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from speechloom.errors import RoutingError, UsageError
from speechloom.hooks import Hooks
from speechloom.layout import TimedPhone
from speechloom.pipeline import Pipeline
from speechloom.preparing import _with_pauses
from speechloom.provenance import replay
from speechloom.registry import Registry
from speechloom.tasks.convert import plan
from speechloom.testing.fake_generators import FakeFeatureGenerator
from speechloom.testing.fake_specs import FEATURE_GENERATOR
from speechloom.values import Audio

F = Fraction
Record = Callable[..., Audio]


@pytest.fixture
def pipeline(fake_registry: Registry, hooks: Hooks) -> Pipeline:
    """The feature generator claims convert, too, and takes a voice."""
    facts = FEATURE_GENERATOR.facts.model_copy(
        update={"tasks": ("synthesize", "convert"), "voice": "fake-voice", "voice_size": 4}
    )
    spec = FEATURE_GENERATOR.model_copy(update={"id": "speaker-of-phones", "facts": facts})
    fake_registry.register(FakeFeatureGenerator, spec=spec)
    return Pipeline(registry=fake_registry, hooks=hooks, parts={"generator": "speaker-of-phones"})


def test_the_chain_finds_the_words_in_the_recording(pipeline: Pipeline) -> None:
    chain = pipeline.plan("convert")
    assert list(chain.parts) == [
        "generator", "vocoder", "speaker_encoder", "frontend", "aligner",
    ]  # fmt: skip


def test_without_the_transcript_it_says_what_is_missing(pipeline: Pipeline) -> None:
    with pytest.raises(RoutingError, match=r"its transcript \(text\) is needed"):
        pipeline.plan("convert", text=False)


def test_a_generator_of_units_still_reads_the_recording(
    fake_registry: Registry, hooks: Hooks, record: Record
) -> None:
    """It comes first, being shorter; with a transcript it says that it needs none."""
    pipeline = Pipeline(registry=fake_registry, hooks=hooks)
    assert "tokenizer" in pipeline.plan("convert")
    with pytest.raises(UsageError, match="leave the transcript out"):
        pipeline.convert(record(1.0), voice="ann", text="hi there")


def test_the_words_are_said_in_the_timing_of_the_recording(
    pipeline: Pipeline, record: Record, tmp_path: object
) -> None:
    source = record(2.0, 16_000)
    speech = pipeline.convert(source, voice="bob", text="hi there", seed=3)
    assert speech.audio.length == source.length
    assert [span.text for span in speech.alignment.words] == ["hi", "there"]
    # The fake aligner gives each symbol the same share, in whole frames of 20 ms.
    symbols = len("_hithere_")
    (hi, there) = speech.alignment.words
    share = 2.0 / symbols
    assert hi.start_seconds == pytest.approx(share, abs=0.02)
    assert there.end_seconds == pytest.approx(2.0 - share, abs=0.02)
    other = pipeline.convert(source, voice="ann", text="hi there", seed=3)
    assert other.audio.sha256 != speech.audio.sha256


def test_a_converted_file_is_replayed_with_its_transcript(
    pipeline: Pipeline, record: Record, tmp_path: object
) -> None:
    from pathlib import Path

    from speechloom.container import save_audio

    folder = Path(str(tmp_path))
    save_audio(record(1.0), folder / "source.wav")
    speech = pipeline.convert(folder / "source.wav", voice="bob", text="no", seed=1)
    speech.save(folder / "out.wav")
    assert replay(folder / "out.wav", pipeline=pipeline).audio.sha256 == speech.audio.sha256


def test_pauses_stand_where_nothing_is_said() -> None:
    phones = [("a", F(1), F(2)), ("x", F(2), F(2)), ("b", F(3), F(4))]
    assert _with_pauses(phones, "_", F(5)) == [
        TimedPhone("_", F(0), F(1)),
        TimedPhone("a", F(1), F(2)),
        TimedPhone("_", F(2), F(3)),
        TimedPhone("b", F(3), F(4)),
        TimedPhone("_", F(4), F(5)),
    ]
    assert _with_pauses([("a", F(0), F(5))], "_", F(5)) == [TimedPhone("a", F(0), F(5))]


def test_phones_and_words_go_to_the_sheets_that_they_lie_in() -> None:
    phones = [TimedPhone("a", F(0), F(4)), TimedPhone("b", F(4), F(7)), TimedPhone("c", F(7), F(9))]
    words = [("ab", F(0), F(7)), ("c", F(7), F(9))]
    layout = plan(F(9), max_seconds=6, quiet=[F(5)], phones=phones, words=words)
    first, second = layout.sheets
    assert first.phones == (TimedPhone("a", F(0), F(4)), TimedPhone("b", F(4), F(5)))
    assert second.phones == (TimedPhone("b", F(0), F(2)), TimedPhone("c", F(2), F(4)))
    assert first.words == (("ab", F(0), F(5)),)
    assert second.words == (("c", F(2), F(4)),)
