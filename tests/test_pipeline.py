"""The whole path with fakes: batches, streams, bit-exact recordings, refusals, hooks."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechloom.chain import Chain
from speechloom.container import load_audio, save_audio
from speechloom.errors import (
    AudioError,
    BackendUnavailable,
    PluginError,
    PluginLoadError,
    RoutingError,
    TextError,
    UnsupportedCapability,
    UsageError,
)
from speechloom.hooks import Hooks, hookimpl
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry
from speechloom.speech import Request, Speech
from speechloom.testing.fakes import FakeAligner, FakeFeatureGenerator, FakeTextGenerator
from speechloom.values import Audio, Voice, joined

Record = Callable[..., Audio]

SENTENCE = "the quick brown fox jumps"
TEXTS = [
    "hi",
    "Hello there. How are you?",
    SENTENCE,
    "A, b, c. D. E!",
    f"{SENTENCE}, {SENTENCE}. {SENTENCE}.",
    "no",
    "One two three. Four five.",
    "zebra",
]


def same(one: Speech, other: Speech) -> None:
    """Equal tokens, codes and samples."""
    assert one.seed == other.seed
    assert np.array_equal(one.audio.samples, other.audio.samples)
    assert one.audio.sample_rate == other.audio.sample_rate
    assert one.regions == other.regions
    assert one.alignment == other.alignment
    for ours, theirs in ((one.tokens, other.tokens), (one.codes, other.codes)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert a.ids.tolist() == b.ids.tolist()


def kept_exactly(speech: Speech, source: Audio) -> None:
    """Outside the regions the samples are the source's, in order, and the regions are made."""
    assert speech.audio.sample_rate == source.sample_rate
    assert speech.audio.channels == source.channels
    at, kept = 0, []
    for region in speech.regions:
        assert at <= region.start < region.end <= speech.audio.length
        kept.append((at, region.start))
        at = region.end
    kept.append((at, speech.audio.length))
    first, last = kept[0], kept[-1]
    samples = speech.audio.samples
    assert np.array_equal(samples[:, : first[1]], source.samples[:, : first[1]])
    tail = last[1] - last[0]
    if tail:
        assert np.array_equal(samples[:, last[0] :], source.samples[:, -tail:])
    for begin, end in kept[1:-1]:
        assert contains(source.samples, samples[:, begin:end])


def contains(whole: Any, part: Any) -> bool:
    length = part.shape[1]
    starts = np.flatnonzero(whole[0, : whole.shape[1] - length + 1] == part[0, 0])
    return any(np.array_equal(whole[:, i : i + length], part) for i in starts)


# Batches, streams -------------------------------------------------------------------------


CODES = {"content_generator": "fake-text-generator"}


def test_eight_texts_together_and_alone(fake_registry: Registry, hooks: Hooks) -> None:
    pipeline = Pipeline(registry=fake_registry, hooks=hooks, parts=CODES)  # type: ignore[arg-type]
    seeds = list(range(8))
    voices = ["ann", "bob"] * 4
    together = pipeline.synthesize(TEXTS, seed=seeds, voice=voices)
    for text, seed, voice, speech in zip(TEXTS, seeds, voices, together, strict=True):
        same(speech, pipeline.synthesize(text, seed=seed, voice=voice))
        assert speech.tokens
        assert speech.codes


def test_eight_recordings_together_and_alone(pipeline: Pipeline, record: Record) -> None:
    sources = [record(0.7 + 0.31 * i, rate, number=i) for i, rate in enumerate(
        [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 16_000, 8_000]
    )]  # fmt: skip
    seeds = list(range(10, 18))
    cases: dict[str, dict[str, Any]] = {
        "convert": {"voice": "ann"},
        "continue_": {"text": TEXTS},
        "edit": {"text": ["ab cd"] * 8, "new_text": ["ab ef cd", "cd", "ab", "xy zz"] * 2},
    }
    for task, options in cases.items():
        run = getattr(pipeline, task)
        together = run(sources, seed=seeds, **options)
        for i, speech in enumerate(together):
            alone = {k: v[i] if isinstance(v, list) else v for k, v in options.items()}
            same(speech, run(sources[i], seed=seeds[i], **alone))


def everything(record: Record) -> dict[str, tuple[Any, dict[str, Any]]]:
    source = record(3.3, 22_050, 2)
    return {
        "synthesize": (TEXTS[4], {"voice": "bob"}),
        "edit": (source, {"text": "one two three four", "new_text": "one tea three five four"}),
        "continue_": (source, {"text": "And on. And on we go."}),
        "convert": (source, {"voice": "ann"}),
    }


@pytest.mark.parametrize("task", ["synthesize", "edit", "continue_", "convert"])
def test_a_stream_joined_is_the_whole(pipeline: Pipeline, record: Record, task: str) -> None:
    subject, options = everything(record)[task]
    run = getattr(pipeline, task)
    whole = run(subject, seed=5, **options)
    chunks = list(run(subject, seed=5, stream=True, **options))
    assert len(chunks) > 1
    assert all(isinstance(chunk, Audio) for chunk in chunks)
    assert np.array_equal(joined(chunks).samples, whole.audio.samples)
    assert chunks[0].sample_rate == whole.sample_rate


def test_a_stream_is_made_as_it_is_taken(pipeline: Pipeline, hooks: Hooks, record: Record) -> None:
    watch = Watch()
    with hooks.using(watch):
        chunks = pipeline.synthesize(". ".join(["abc"] * 6), voice="ann", seed=1, stream=True)
        assert isinstance(chunks, Iterator)
        next(chunks)
        first = len(watch.events)
        list(chunks)
    assert first < len(watch.events)
    fills = [e for e in watch.events if e.stage == "fill"]
    assert [(e.done, e.total) for e in fills] == [(i, 6) for i in range(1, 7)]


def test_a_bad_request_to_stream_is_refused_at_once(pipeline: Pipeline, record: Record) -> None:
    with pytest.raises(UsageError, match="needs a text"):
        pipeline.synthesize(None, stream=True)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="loop over the list"):
        pipeline.synthesize(["a", "b"], stream=True)  # type: ignore[call-overload]


# What was known stays ---------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_edit_and_continue_keep_the_callers_samples(
    pipeline: Pipeline, record: Record, rate: int, channels: int
) -> None:
    source = record(2.013, rate, channels)
    edited = pipeline.edit(
        source, text="one two three four", new_text="one tea three for four", seed=1
    )
    kept_exactly(edited, source)
    assert len(edited.regions) == 2
    assert 0 < edited.regions[0].start < edited.regions[1].end < edited.audio.length
    by_spans = pipeline.edit(
        source, spans=[(0.0, 0.2, "go"), (0.5, 0.5, "on"), (1.1, 1.4, ""), (1.9, 2.013, "so")],
        seed=1,
    )  # fmt: skip
    kept_exactly(by_spans, source)
    assert by_spans.regions[0].start == 0
    assert by_spans.regions[-1].end == by_spans.audio.length
    continued = pipeline.continue_(source, seconds=0.5, seed=1)
    kept_exactly(continued, source)
    (region,) = continued.regions
    assert (region.start, region.end) == (source.length, continued.audio.length)
    assert region.end - region.start == round(rate / 2)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("rate", [11_025, 44_100])
def test_files_keep_the_callers_samples(
    pipeline: Pipeline, record: Record, tmp_path: Path, subtype: str, rate: int
) -> None:
    draw = np.random.default_rng(0)
    noise = draw.uniform(-1, 1, (2, rate + 7)).astype(np.float32)
    save_audio(Audio(noise, rate), tmp_path / "in.wav", subtype=subtype)
    source = load_audio(tmp_path / "in.wav")
    for number, speech in enumerate(
        [
            pipeline.edit(tmp_path / "in.wav", spans=[(0.4, 0.6, "so")], seed=1),
            pipeline.continue_(tmp_path / "in.wav", text="so on", seed=1),
        ]
    ):
        path = tmp_path / f"out{number}.wav"
        speech.save(path)
        back = load_audio(path)
        assert back.subtype == subtype
        (region,) = speech.regions
        assert np.array_equal(back.samples[:, : region.start], source.samples[:, : region.start])
        tail = back.length - region.end
        assert np.array_equal(
            back.samples[:, region.end :], source.samples[:, source.length - tail :]
        )
        data, original = sample_bytes(path), sample_bytes(tmp_path / "in.wav")
        width = len(original) // source.length
        assert data[: region.start * width] == original[: region.start * width]
        assert data[region.end * width :] == original[len(original) - tail * width :]


def sample_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    at = data.index(b"data")
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    return data[at + 8 : at + 8 + size]


def test_a_span_shorter_than_a_sample(pipeline: Pipeline, record: Record) -> None:
    source = record(1.0)
    with pytest.raises(UsageError, match="would change nothing"):
        pipeline.edit(source, spans=[(0.5, 0.500001, "")])
    kept_exactly(pipeline.edit(source, spans=[(0.5, 0.50004, "")], seed=1), source)


def test_removing_everything_is_refused(pipeline: Pipeline, record: Record) -> None:
    with pytest.raises(UsageError, match="nothing would be left"):
        pipeline.edit(record(1.0), spans=[(0.0, 1.0, "")])


def test_replacing_everything(pipeline: Pipeline, record: Record) -> None:
    speech = pipeline.edit(record(1.0, 44_100, 2), spans=[(0.0, 1.0, "anew")], seed=1)
    (region,) = speech.regions
    assert (region.start, region.end) == (0, speech.audio.length)
    assert speech.audio.channels == 2


def test_convert_lasts_as_long_and_is_mono_at_the_rate_of_the_codec(
    pipeline: Pipeline, record: Record
) -> None:
    for rate, length in ((8_000, 9_999), (11_025, 11_026), (44_100, 100_001)):
        source = record(length / rate, rate, 2)
        speech = pipeline.convert(source, voice="ann", seed=1)
        assert speech.audio.length == round(Fraction(length, rate) * 16_000)
        assert (speech.audio.channels, speech.sample_rate) == (1, 16_000)


def test_long_recordings_are_converted_in_parts(pipeline: Pipeline, record: Record) -> None:
    speech = pipeline.convert(record(65.0, 8_000), voice="ann", seed=1)
    assert speech.seconds == 65.0
    assert len(speech.codes) >= 3
    assert np.abs(np.diff(speech.audio.samples)).max() < 0.5


# Where the words are ----------------------------------------------------------------------


def test_words_of_a_continuation_follow_the_recording(pipeline: Pipeline, record: Record) -> None:
    speech = pipeline.continue_(record(2.0), text="and on. so on", seed=1)
    assert [w.text for w in speech.alignment.words] == ["and", "on", "so", "on"]
    assert speech.alignment.words[0].start_seconds >= 2.0
    assert speech.alignment.phones[0].start_seconds >= 2.0
    ends = [w.end_seconds for w in speech.alignment.words]
    assert ends == sorted(ends)
    assert ends[-1] <= speech.seconds


def test_words_of_an_edit_are_those_of_the_new_text(pipeline: Pipeline, record: Record) -> None:
    new = "zero one four five two"
    speech = pipeline.edit(record(3.0), text="one two three four", new_text=new, seed=1)
    assert [w.text for w in speech.alignment.words] == new.split()
    starts = [w.start_seconds for w in speech.alignment.words]
    assert starts == sorted(starts)
    assert speech.alignment.words[-1].end_seconds <= speech.seconds + 1e-6


def test_new_words_follow_the_tempo_around_them(
    fake_registry: Registry, hooks: Hooks, record: Record
) -> None:
    class Hastening(FakeAligner):
        """Finds a sentence at half the fakes' 80 ms a phone, and the next at twice as much."""

        def align(self, audio: Audio, phones: Any) -> list[list[tuple[float, float]]]:
            spans, at = [], 0.0
            for one, length in zip(phones, (0.04, 0.16), strict=True):
                spans.append([(at + i * length, at + (i + 1) * length) for i in range(len(one))])
                at = spans[-1][-1][1]
            return spans

    sentence = "nine nine nine nine nine nine nine four nine nine nine nine nine nine nine."
    text, source = (
        f"{sentence} {sentence}",
        record(13.0),
    )  # 2.4 s at the one tempo, 9.6 at the other
    with fake_registry.override(Hastening.from_random(Hastening.default_spec)):
        pipeline = Pipeline(registry=fake_registry, hooks=hooks)

        def seconds(new_text: str, **options: Any) -> float:
            speech = pipeline.edit(source, text=text, new_text=new_text, seed=1, **options)
            (word,) = [w for w in speech.alignment.words if w.text == "eight"]
            return word.end_seconds - word.start_seconds

        early, late = text.replace("four", "eight", 1), "eight".join(text.rsplit("four", 1))
        assert seconds(early) == pytest.approx(5 * 0.04)
        assert seconds(late) == pytest.approx(5 * 0.16)
        assert seconds(late, style={"rate": 2.0}) == pytest.approx(5 * 0.08)


def test_words_of_several_sentences(pipeline: Pipeline) -> None:
    speech = pipeline.synthesize("Hello there. You too", seed=1)
    assert [w.text for w in speech.alignment.words] == ["Hello", "there", "You", "too"]
    assert speech.seconds == 0.08 * (1 + 10 + 1 + 1 + 6 + 1)


# Long text --------------------------------------------------------------------------------


def test_two_hundred_sentences_are_all_spoken(pipeline: Pipeline) -> None:
    words = [f"word{'abcdefghij'[i % 10]}{'abcdefghijklmnopqrst'[i // 10]}" for i in range(200)]
    speech = pipeline.synthesize(". ".join(words), voice="ann", seed=1)
    assert [w.text for w in speech.alignment.words] == words
    assert len(speech.codes) == 200
    frames = sum(codes.ids.shape[-1] for codes in speech.codes)
    assert speech.audio.length == frames * 320
    joins = np.cumsum([codes.ids.shape[-1] * 320 for codes in speech.codes])[:-1]
    steps = np.abs(np.diff(speech.audio.samples[0]))
    assert steps[joins - 1].max() < 0.02
    assert steps.max() < 0.2


def test_one_endless_sentence_is_parted(pipeline: Pipeline) -> None:
    text = " ".join(["abcdefgh"] * 120)
    speech = pipeline.synthesize(text, seed=1)
    assert len(speech.alignment.words) == 120
    assert speech.seconds > 60


# Seeds ------------------------------------------------------------------------------------


def test_seeds(pipeline: Pipeline) -> None:
    one = pipeline.synthesize("hello", voice="ann", seed=7)
    assert one.seed == 7
    same(one, pipeline.synthesize("hello", voice="ann", seed=np.int64(7)))  # type: ignore[arg-type]
    other = pipeline.synthesize("hello", voice="ann", seed=8)
    assert not np.array_equal(one.audio.samples, other.audio.samples)
    drawn = [pipeline.synthesize("hello", voice="ann") for _ in range(3)]
    assert len({speech.seed for speech in drawn}) == 3
    same(drawn[0], pipeline.synthesize("hello", voice="ann", seed=drawn[0].seed))
    many = pipeline.synthesize(["hello"] * 3, voice="ann")
    assert len({speech.seed for speech in many}) == 3
    largest = pipeline.synthesize("hello", voice="ann", seed=2**63 - 1)
    assert largest.seed == 2**63 - 1


@pytest.mark.parametrize("task", ["synthesize", "edit", "continue_", "convert"])
def test_global_random_state_is_neither_read_nor_changed(
    pipeline: Pipeline, record: Record, task: str
) -> None:
    from speechloom.testing.isolation import random_state, restored_random_state

    pytest.importorskip("torch")
    subject, options = everything(record)[task]
    run = getattr(pipeline, task)
    before = random_state()
    first = run(subject, seed=3, **options)
    run(subject, **options)
    assert random_state() == before
    with restored_random_state(shift=5):
        random.seed(99)
        same(first, run(subject, seed=3, **options))


# Lists ------------------------------------------------------------------------------------


def test_a_list_gives_a_list(pipeline: Pipeline) -> None:
    assert [type(s) for s in pipeline.synthesize(["a"])] == [Speech]
    assert isinstance(pipeline.synthesize("a"), Speech)


def test_one_voice_vector_for_all_and_one_each(pipeline: Pipeline, record: Record) -> None:
    vector = [1.0, 0.0, 0.0, 0.0]
    ann = pipeline.synthesize(["ab", "cd", "ef", "gh"], seed=1, voice="ann")
    ways: list[Any] = [vector, np.array(vector), ["ann"] * 4, [vector] * 4, [np.array(vector)] * 4]
    for voice in ways:
        for one, other in zip(
            ann, pipeline.synthesize(["ab", "cd", "ef", "gh"], seed=1, voice=voice), strict=True
        ):
            same(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": ["a", "b"], "seed": [1]}, "seed has 1 items for 2"),
        ({"text": ["a", "b"], "seed": []}, "seed has 0 items for 2"),
        ({"text": ["a", "b"], "voice": ["ann"] * 3}, "voice has 3 items for 2"),
        ({"text": ["a", "b"], "voice": ["ann"]}, "voice has 1 items for 2"),
        ({"text": []}, "empty list"),
        ({"text": "a", "seed": [1]}, "seed must be a whole number"),
        ({"text": "a", "voice": ["ann", "bob"]}, "vector of numbers"),
        ({"text": ["a", None]}, "needs a text"),
        ({"text": ["a", 3]}, "text must be text"),
    ],
)
def test_lists_of_wrong_lengths(pipeline: Pipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline.synthesize(**options)


def test_lists_of_recordings_with_other_lengths(pipeline: Pipeline, record: Record) -> None:
    two = [record(1.0), record(1.0)]
    with pytest.raises(UsageError, match="text has 1 items for 2"):
        pipeline.edit(two, text=["a b"], new_text=["a", "b"])
    with pytest.raises(UsageError, match="new_text has 3 items for 2"):
        pipeline.edit(two, text="a b", new_text=["a", "b", "c"])
    with pytest.raises(UsageError, match="audio is an empty list"):
        pipeline.convert([], voice="ann")
    with pytest.raises(UsageError, match="run them apart"):
        pipeline.continue_(two, text=["a", None])


def test_a_stream_of_bytes_is_read_once_for_all(
    pipeline: Pipeline, record: Record, tmp_path: Path
) -> None:
    save_audio(record(1.0), tmp_path / "a.wav")
    expected = pipeline.convert(tmp_path / "a.wav", voice=str(tmp_path / "a.wav"), seed=1)
    with (tmp_path / "a.wav").open("rb") as audio, (tmp_path / "a.wav").open("rb") as voice:
        both = pipeline.convert([audio, audio], voice=voice, seed=1)
    for speech in both:
        same(speech, expected)


# Bad values -------------------------------------------------------------------------------

BAD_NUMBERS = [math.nan, math.inf, -math.inf, "3", None, [1.0], 10**400, 1j]


def refused(call: Callable[[], object], *words: str) -> None:
    """One UsageError of one sentence, and nothing foreign."""
    with pytest.raises(UsageError) as caught:
        call()
    text = str(caught.value)
    assert text
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize("text", [None, 3, b"hello", ("a", "b"), {"a": 1}, 1.5])
def test_text_that_is_none(pipeline: Pipeline, text: Any) -> None:
    refused(lambda: pipeline.synthesize(text), "text")


@pytest.mark.parametrize("text", ["", "  ", "...", "\u4f60\u597d", "5 \u20ac", "[[hh zz]]", "[[]]"])
def test_text_that_cannot_be_spoken(pipeline: Pipeline, text: str) -> None:
    with pytest.raises(TextError):
        pipeline.synthesize(text)


@pytest.mark.parametrize(
    "seed", [-1, 2**63, 2**64, 10**400, 1.0, 1.5, "1", math.nan, True, [1], 1j, b"1"]
)
def test_seeds_that_are_none(pipeline: Pipeline, seed: Any) -> None:
    refused(lambda: pipeline.synthesize("a", seed=seed), "seed must be a whole number")


@pytest.mark.parametrize("temperature", [*BAD_NUMBERS, -0.1, True])
def test_temperatures_that_are_none(pipeline: Pipeline, temperature: Any) -> None:
    refused(lambda: pipeline.synthesize("a", temperature=temperature), "temperature")


@pytest.mark.parametrize("rate", [x for x in BAD_NUMBERS if x is not None] + [0, -1, 0.2, 4.1])
def test_rates_that_are_none(pipeline: Pipeline, rate: Any) -> None:
    if not isinstance(rate, str):
        refused(lambda: pipeline.synthesize("a", style=rate))
    refused(lambda: pipeline.synthesize("a", style={"rate": rate}), "rate")


@pytest.mark.parametrize(
    ("style", "word"),
    [("fats", "did you mean fast?"), ("", "normal, slow, fast"), (["fast"], "style"),
     ({"mood": 1.0}, "has no style mood"), (b"fast", "style")],
)  # fmt: skip
def test_styles_that_do_not_exist(pipeline: Pipeline, style: Any, word: str) -> None:
    refused(lambda: pipeline.synthesize("a", style=style), word)


def test_an_unclaimed_style_is_an_unsupported_capability(
    pipeline: Pipeline, record: Record
) -> None:
    with pytest.raises(UnsupportedCapability, match="rate"):
        pipeline.synthesize("a", style={"mood": 1.0})
    with pytest.raises(UnsupportedCapability):
        pipeline.continue_(record(1.0), seconds=1, style={"rate": 1.1})


@pytest.mark.parametrize(
    "lexicon", [3, "abc", {"a": 3}, {"a": []}, {"a": [1]}, {1: ["a"]}, [("a", "b")], {"a": ["zz"]}]
)
def test_lexicons_that_are_none(pipeline: Pipeline, lexicon: Any) -> None:
    refused(lambda: pipeline.synthesize("a", lexicon=lexicon))


def test_lexicons(pipeline: Pipeline) -> None:
    one = pipeline.synthesize("Bat", lexicon={"BAT": ["k", "a"]}, seed=1)
    other = pipeline.synthesize("Bat", lexicon={"bat": "k a"}, seed=1)
    same(one, other)
    assert [p.text for p in one.alignment.phones] == ["_", "k", "a", "_"]


@pytest.mark.parametrize(
    ("voice", "word"),
    [("carl", "ann, bob"), ("no/such.wav", "does not exist"), ([1.0, 2.0], "2 values"),
     (["a"], "vector of numbers"), ([], "voice"), (3, "audio must be"), ({}, "audio must be"),
     ([math.nan] * 4, "finite"), (np.zeros((2, 2), np.float32), "[2, 2]"),
     ((np.zeros(16_000, np.float32), 16_000), "silence"), (b"", "empty"),
     (Voice(np.ones(4, np.float32), "xvector"), "xvector"), ("a\0b", "voice")],
)  # fmt: skip
def test_voices_that_are_none(pipeline: Pipeline, voice: Any, word: str) -> None:
    refused(lambda: pipeline.synthesize("a", voice=voice), word)


def test_convert_without_a_voice(pipeline: Pipeline, record: Record) -> None:
    refused(lambda: pipeline.convert(record(1.0), voice=None), "needs a voice", "ann, bob")


@pytest.mark.parametrize("task", ["edit", "continue_", "convert"])
@pytest.mark.parametrize(
    "audio", [None, 3, np.zeros(9, np.float32), "no.wav", b"", b"RIFF", (1, 2, 3), {}]
)
def test_recordings_that_are_none(pipeline: Pipeline, task: str, audio: Any) -> None:
    options: dict[str, Any] = {
        "edit": {"spans": [(0.1, 0.2, "a")]}, "continue_": {}, "convert": {"voice": "ann"}
    }[task]  # fmt: skip
    refused(lambda: getattr(pipeline, task)(audio, **options))


@pytest.mark.parametrize("seconds", [*(x for x in BAD_NUMBERS if x is not None), 0, -1, -1e-9])
def test_seconds_that_are_none(pipeline: Pipeline, record: Record, seconds: Any) -> None:
    source = record(1.0)
    refused(lambda: pipeline.continue_(source, seconds=seconds), "seconds must be more than 0")
    refused(lambda: pipeline.continue_(source, text="a", seconds=seconds), "seconds")


def test_seconds_out_of_reach(pipeline: Pipeline, record: Record) -> None:
    source = record(1.0)
    refused(lambda: pipeline.continue_(source, seconds=1e-9), "more than 0")
    refused(lambda: pipeline.continue_(source, seconds=1e9), "at most 29 seconds")
    for seconds in (1e-9, 1e9):
        refused(lambda s=seconds: pipeline.continue_(source, text="hello", seconds=s), "times")


def test_seconds_with_text_set_its_tempo(pipeline: Pipeline, record: Record) -> None:
    source = record(1.0)
    usual = pipeline.continue_(source, text="hello there", seed=1).seconds - 1
    slow = pipeline.continue_(source, text="hello there", seconds=2 * usual, seed=1).seconds - 1
    assert slow == pytest.approx(2 * usual, rel=0.1)


@pytest.mark.parametrize(
    "spans",
    [3, [3], ["abc"], [(0.1, 0.2)], [(0.1, 0.2, "a", "b")], [(0.1, 0.2, None)], [(0.1, 0.2, 3)],
     [("0.1", 0.2, "a")], [(math.nan, 0.2, "a")], [(0.1, math.inf, "a")], [(0.5, 0.2, "a")],
     [(-0.1, 0.2, "a")], [(0.1, 9.0, "a")], [(0.6, 0.7, "a"), (0.1, 0.2, "a")],
     [(0.1, 0.5, "a"), (0.4, 0.6, "b")], [(0.5, 0.5, "")], [(0.5, 0.5, " ")], [(10**400, 1, "a")]],
    ids=repr,
)  # fmt: skip
def test_spans_that_are_none(pipeline: Pipeline, record: Record, spans: Any) -> None:
    refused(lambda: pipeline.edit(record(1.0), spans=spans), "span")


def test_edits_say_what_is_missing(pipeline: Pipeline, record: Record) -> None:
    source = record(1.0)
    spans = [(0.1, 0.2, "a")]
    refused(lambda: pipeline.edit(source), "either the transcript")
    refused(lambda: pipeline.edit(source, spans=spans, text="a", new_text="b"), "either")
    refused(lambda: pipeline.edit(source, spans=spans, new_text="b"), "either")
    refused(lambda: pipeline.edit(source, text="a"), "new_text")
    refused(lambda: pipeline.edit(source, new_text="a"), "(text)")
    refused(lambda: pipeline.edit(source, text="a b", new_text="A, b!"), "nothing to edit")
    refused(lambda: pipeline.edit(source, text="a b", new_text=3), "new_text must be text")
    refused(lambda: pipeline.edit(source, text="word " * 60, new_text="word"), "frames")


def test_requests_made_by_hand_are_checked_too(pipeline: Pipeline, record: Record) -> None:
    for bad in (
        Request("sing", text="a"),  # type: ignore[arg-type]
        Request("synthesize"),
        Request("synthesize", text="a", audio=record(1.0)),
        Request("convert", voice="ann"),
        Request("synthesize", text="a", seed=-1),
        Request("synthesize", text="a", style="fast"),  # type: ignore[arg-type]
        Request("continue", audio=record(1.0), seconds=math.nan),
        Request("edit", audio=record(1.0), spans=((math.nan, 1.0, "a"),)),
    ):
        refused(lambda request=bad: pipeline.run(request))


def test_recordings_too_short_for_a_voice_or_the_words(pipeline: Pipeline, record: Record) -> None:
    with pytest.raises(AudioError, match="0.2 s"):
        pipeline.continue_(record(0.1), seconds=1)
    refused(lambda: pipeline.edit(record(0.3), text="one two three four", new_text="one"))


def test_an_unknown_role(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="codek.*speaker_encoder"):
        Pipeline(parts={"codek": "x"})  # type: ignore[dict-item]


# Parts ------------------------------------------------------------------------------------


def test_a_part_that_is_installed_but_broken_says_why(tmp_plugin: Any, hooks: Hooks) -> None:
    tmp_plugin.broken("sick", "RuntimeError('no lungs')")
    tmp_plugin.missing("bare")
    registry = tmp_plugin.registry()
    with pytest.raises(PluginLoadError, match="no lungs"):
        Pipeline(registry=registry, hooks=hooks, parts={"codec": "sick"}).plan("convert")
    with pytest.raises(BackendUnavailable, match="package-that-is-not-here"):
        Pipeline(registry=registry, hooks=hooks, parts={"codec": "bare"}).plan("convert")


def test_planning_loads_nothing(fake_registry: Registry, hooks: Hooks) -> None:
    Pipeline(registry=fake_registry, hooks=hooks).plan("edit")
    assert not any(record.status.value == "loaded" for record in fake_registry.records())


def test_a_chain_that_cannot_be_is_a_routing_error(
    isolated_registry: Registry, hooks: Hooks
) -> None:
    pipeline = Pipeline(registry=isolated_registry, hooks=hooks)
    with pytest.raises(RoutingError, match="no generator is installed"):
        pipeline.synthesize("a")


# Hooks ------------------------------------------------------------------------------------


class Watch:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.events: list[Any] = []
        self.speeches: list[Speech] = []

    @hookimpl
    def speechloom_before_task(self, request: Request) -> None:
        self.calls.append(f"before {request.task} {request.seed}")

    @hookimpl
    def speechloom_after_task(self, request: Request, speech: Speech) -> None:
        self.calls.append(f"after {request.task} {request.seed}")
        self.speeches.append(speech)

    @hookimpl
    def speechloom_progress(self, event: Any) -> None:
        self.events.append(event)


def test_hooks_are_told_of_every_request(pipeline: Pipeline, hooks: Hooks) -> None:
    watch = Watch()
    with hooks.using(watch):
        speeches = pipeline.synthesize(["a", "b. c"], seed=[1, 2])
    assert watch.calls == [
        "before synthesize 1", "before synthesize 2", "after synthesize 1", "after synthesize 2"
    ]  # fmt: skip
    assert [id(s) for s in watch.speeches] == [id(s) for s in speeches]
    stages = [e.stage for e in watch.events]
    assert list(dict.fromkeys(stages)) == ["prepare", "fill", "play"]
    for stage, total in (("prepare", 2), ("fill", 3), ("play", 2)):
        last = [e for e in watch.events if e.stage == stage][-1]
        assert (last.task, last.done, last.total) == ("synthesize", total, total)


def test_nobody_is_told_of_a_request_that_was_refused(pipeline: Pipeline, hooks: Hooks) -> None:
    watch = Watch()
    with hooks.using(watch), pytest.raises(UsageError):
        pipeline.synthesize(["a", "b"], seed=[1, -1])
    assert watch.calls == []


@pytest.mark.parametrize("hook", ["before_task", "after_task", "progress"])
def test_a_hook_that_fails_is_named(pipeline: Pipeline, hooks: Hooks, hook: str) -> None:
    def fail(self: object) -> None:
        raise RuntimeError("boom")

    fail.__name__ = f"speechloom_{hook}"
    plugin = type("Grumpy", (), {fail.__name__: hookimpl(fail)})()
    hooks.register(plugin, name="grumpy")
    with pytest.raises(PluginError, match="grumpy.*boom") as caught:
        pipeline.synthesize("a")
    assert caught.value.plugin == "grumpy"


def test_a_router_policy_has_its_say(pipeline: Pipeline, hooks: Hooks) -> None:
    class Longest:
        @hookimpl
        def speechloom_router_policy(self, chains: list[Chain]) -> list[Chain]:
            return chains[::-1]

    assert "vocoder" in pipeline.plan("synthesize")
    with hooks.using(Longest()):
        assert "codec" in pipeline.plan("synthesize")
        assert pipeline.synthesize("a").codes


# Results ----------------------------------------------------------------------------------


def test_what_a_speech_carries(pipeline: Pipeline) -> None:
    speech = pipeline.synthesize("hello. you", voice="ann", seed=4, temperature=0.5)
    assert set(speech.timings) == {"load", "prepare", "fill", "play"}
    assert all(value >= 0 for value in speech.timings.values())
    assert speech.provenance["request"]["temperature"] == 0.5
    (region,) = speech.regions
    assert (region.start, region.end) == (0, speech.audio.length)
    assert [t.vocabulary for t in speech.tokens] == ["fake-units"] * 2
    assert [c.codec for c in speech.codes] == ["fake-codes"] * 2


def test_styles_change_the_tempo(pipeline: Pipeline) -> None:
    usual = pipeline.synthesize("hello there", seed=1).seconds
    assert pipeline.synthesize("hello there", style="slow", seed=1).seconds > usual
    assert pipeline.synthesize("hello there", style="fast", seed=1).seconds < usual
    same(
        pipeline.synthesize("hello there", style=1.25, seed=1),
        pipeline.synthesize("hello there", style="fast", seed=1),
    )
    same(
        pipeline.synthesize("hello there", style="normal", seed=1),
        pipeline.synthesize("hello there", seed=1),
    )


def test_temperature_zero_takes_the_most_likely(pipeline: Pipeline) -> None:
    one = pipeline.synthesize("hello", voice="ann", seed=1, temperature=0)
    other = pipeline.synthesize("hello", voice="ann", seed=2, temperature=0)
    assert np.array_equal(one.audio.samples, other.audio.samples)


def test_a_voice_may_be_a_recording(pipeline: Pipeline, record: Record, tmp_path: Path) -> None:
    reference = record(1.0)
    save_audio(reference, tmp_path / "v.wav")
    ways: list[Any] = [
        reference, tmp_path / "v.wav", str(tmp_path / "v.wav"), (reference.samples, 16_000),
        (tmp_path / "v.wav").read_bytes(),
    ]  # fmt: skip
    speeches = [pipeline.synthesize("hello", voice=voice, seed=1) for voice in ways]
    for speech in speeches[1:]:
        same(speech, speeches[0])
    ann = pipeline.synthesize("hello", voice="ann", seed=1)
    assert not np.array_equal(ann.audio.samples, speeches[0].audio.samples)


def test_every_task_has_its_signature_documented() -> None:
    for name in ("synthesize", "edit", "continue_", "convert"):
        method = getattr(Pipeline, name)
        doc = inspect.getdoc(method) or ""
        for parameter in list(inspect.signature(method).parameters)[1:]:
            assert f"{parameter}:" in doc, f"{name}({parameter})"


def test_durations_are_asked_for_with_the_seed(
    pipeline: Pipeline, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of the words around an edit, and those that a continuation stretches."""
    asked: list[int] = []
    usual = FakeTextGenerator.durations

    def durations(self: Any, *args: Any, seed: int, **options: Any) -> Any:
        asked.append(seed)
        return usual(self, *args, seed=seed, **options)

    for fake in (FakeTextGenerator, FakeFeatureGenerator):
        monkeypatch.setattr(fake, "durations", durations)
    pipeline.synthesize(["one two", "three"], seed=[5, 6])
    assert set(asked) == {5, 6}
    source = record(2.0, 16_000)
    for run in (
        lambda: pipeline.edit(source, text="one two three", new_text="one tea three", seed=7),
        lambda: pipeline.edit(source, spans=[(0.5, 0.9, "so")], seed=7),
        lambda: pipeline.continue_(source, text="so on", seconds=0.7, seed=7),
    ):
        asked.clear()
        run()
        assert set(asked) == {7}
