"""Filling: phones, tokens and codes on the grid of a canvas, whatever the rates.

The index codec writes down which samples it was given, so that a pasted frame can be proven to be
of the right moment of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom import filling
from speechloom.errors import PluginError
from speechloom.filling import Filler, SheetJob
from speechloom.layout import Copy, Sheet, TimedPhone
from speechloom.spec import CodecFacts, ComponentSpec, FrontendFacts, GeneratorFacts
from speechloom.tasks import edit
from speechloom.testing.fake_specs import CODEC, FRONTEND, GENERATOR, TEXT_GENERATOR, TOKENIZER
from speechloom.testing.fakes import FakeCodec, FakeGenerator, FakeTextGenerator, FakeTokenizer
from speechloom.values import Audio, Canvas, Codes, Tokens, Voice, frames_in, pad_stack

torch = pytest.importorskip("torch")

F = Fraction
RATES = [F(50), F(75), F(44_100, 512)]
SAMPLE_RATES = [8_000, 11_025, 16_000, 44_100]
INDEX_SIZE = 1 << 30


def changed(spec: ComponentSpec, **facts: Any) -> ComponentSpec:
    data = spec.facts.model_dump() | facts
    return spec.model_copy(update={"facts": type(spec.facts)(**data)})


class IndexCodec(FakeCodec):
    """Codes of a frame: the first sample of what it was given, and the number of the frame."""

    def __init__(self, rate: Fraction, context_frames: int | None = 2, missing: int = 0) -> None:
        super().__init__(
            changed(
                CODEC, frame_rate=rate, codebooks=2, codebook_size=INDEX_SIZE,
                context_frames=context_frames,
            )
        )  # fmt: skip
        self.rate = rate
        self.missing = missing
        self.heard: list[Audio] = []

    def encode(self, audio: Sequence[Audio]) -> Codes:
        self.heard += audio
        items = []
        for one in audio:
            frames = frames_in(one.length, one.sample_rate, self.rate) - self.missing
            begin = round(float(one.samples[0, 0]) * 2**24)
            items.append(torch.stack([torch.full((frames,), begin), torch.arange(frames)]))
        lengths = torch.tensor([item.shape[-1] for item in items])
        return Codes(pad_stack(items), "fake-codes", INDEX_SIZE, self.rate, lengths)


def indexed(length: int, sample_rate: int) -> Audio:
    """A recording whose samples say where they stand."""
    return Audio((np.arange(length) / 2.0**24).astype(np.float32), sample_rate)


class Listener(FakeGenerator):
    """Keeps the canvases that it was given and fills in zeros."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(changed(GENERATOR, **facts))
        self.canvases: list[Canvas] = []

    def fill(self, canvas: Canvas) -> Codes:
        self.canvases.append(canvas)
        facts = self.spec.facts
        assert isinstance(facts, GeneratorFacts)
        return Codes(canvas.ids, "fake-codes", facts.codebook_size, facts.frame_rate)

    @property
    def canvas(self) -> Canvas:
        (canvas,) = self.canvases
        return canvas


class Counter(FakeTextGenerator):
    """Tokens that count the frames, at a rate of its own."""

    def __init__(self, rate: Fraction) -> None:
        super().__init__(changed(TEXT_GENERATOR, frame_rate=rate, codebook_size=INDEX_SIZE))

    def fill(self, canvas: Canvas) -> Tokens:
        ids = torch.arange(canvas.ids.shape[-1]).expand(canvas.batch, -1)
        return Tokens(ids, "fake-units", INDEX_SIZE, canvas.frame_rate, canvas.lengths)


def job(sheet: Sheet, source: Audio | None = None, **options: Any) -> SheetJob:
    values: dict[str, Any] = {"voice": None, "seed": 1, "temperature": 1.0} | options
    return SheetJob(sheet, source, **values)


def letters() -> FrontendFacts:
    assert isinstance(FRONTEND.facts, FrontendFacts)
    return FRONTEND.facts


# Phones -----------------------------------------------------------------------------------


def spoken(*phones: tuple[str, Fraction, Fraction], seconds: Fraction) -> Sheet:
    return Sheet(0, seconds, phones=tuple(TimedPhone(*phone) for phone in phones))


def phones_at(rate: Fraction, sheet: Sheet) -> tuple[list[int], list[int]]:
    listener = Listener(frame_rate=rate, content=("phones:letters",))
    Filler("synthesize", listener, frontend=letters()).fill([job(sheet)])
    canvas = listener.canvas
    assert canvas.content_kind == "phones:letters"
    assert canvas.content is not None
    assert canvas.segments is not None
    return canvas.content[0].tolist(), canvas.segments[0].tolist()


def test_a_frame_says_the_phone_at_its_middle() -> None:
    sheet = spoken(("a", F(0), F(3, 100)), ("b", F(3, 100), F(7, 100)), seconds=F(1, 10))
    content, segments = phones_at(F(50), sheet)
    assert content == [1, 2, 2, -1, -1]
    assert segments == [0, 1, 1, -1, -1]


def test_the_same_phone_twice_in_a_row_stays_two() -> None:
    sheet = spoken(("a", F(0), F(1, 25)), ("a", F(1, 25), F(2, 25)), seconds=F(2, 25))
    assert phones_at(F(50), sheet) == ([1, 1, 1, 1], [0, 0, 1, 1])


def test_a_phone_of_no_length_has_no_frame() -> None:
    sheet = spoken(
        ("a", F(0), F(1, 25)), ("b", F(1, 25), F(1, 25)), ("c", F(1, 25), F(2, 25)),
        seconds=F(2, 25),
    )  # fmt: skip
    assert phones_at(F(50), sheet) == ([1, 1, 3, 3], [0, 0, 2, 2])


def test_phones_of_50_frames_a_second_at_86_by_hand() -> None:
    # Frames of 11.61 ms have their middles at 5.8, 17.4, 29.0, 40.6, 52.2 and 63.9 ms.
    sheet = spoken(("a", F(0), F(1, 50)), ("b", F(1, 50), F(3, 50)), seconds=F(3, 50))
    assert phones_at(F(44_100, 512), sheet) == ([1, 1, 2, 2, 2, -1], [0, 0, 1, 1, 1, -1])


@given(
    durations=st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any),
    rate=st.sampled_from(RATES),
)
@settings(deadline=None, max_examples=60)
def test_phones_without_gaps_leave_no_frame_silent(durations: list[int], rate: Fraction) -> None:
    edges = [F(sum(durations[:i]), 50) for i in range(len(durations) + 1)]
    phones = [("a", edges[i], edges[i + 1]) for i in range(len(durations))]
    content, segments = phones_at(rate, spoken(*phones, seconds=edges[-1]))
    for frame, segment in enumerate(segments):
        middle = F(2 * frame + 1, 2) / rate
        if middle < edges[-1]:
            assert edges[segment] <= middle < edges[segment + 1]
        else:
            assert (segment, content[frame]) == (-1, -1)


# Tokens of another rate -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [
        (F(50), F(50), [0, 1, 2, 3, 4, 5]),
        (F(50), F(75), [0, 1, 1, 2, 3, 3, 4, 5, 5]),
        (F(75), F(50), [0, 2, 3, 5, 6, 8]),
        (F(25), F(50), [0, 0, 1, 1, 2, 2]),
        (F(50), F(25), [1, 3, 5]),
        (F(50), F(44_100, 512), [0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (F(44_100, 512), F(50), [0, 2, 4, 6, 7, 9]),
    ],
)
def test_each_frame_takes_the_token_at_its_middle(
    source: Fraction, to: Fraction, expected: list[int]
) -> None:
    listener = Listener(frame_rate=to)
    filler = Filler("synthesize", listener, Counter(source), frontend=letters())
    (filled,) = filler.fill([job(Sheet(0, F(12, 100)))])
    canvas = listener.canvas
    assert canvas.content_kind == "tokens:fake-units"
    assert canvas.content is not None
    assert canvas.content[0].tolist() == expected
    assert filled.token_kind == ("fake-units", INDEX_SIZE, source)
    assert len(filled.tokens) == frames_in(12, 100, source)
    (tokens,) = filled.as_tokens()
    assert tokens.frame_rate == source


@given(
    seconds=st.fractions(F(1, 100), 40, max_denominator=44_100),
    source=st.sampled_from([*RATES, F(25)]),
    to=st.sampled_from([*RATES, F(25)]),
)
@settings(deadline=None, max_examples=100)
def test_bridges_never_drift(seconds: Fraction, source: Fraction, to: Fraction) -> None:
    listener = Listener(frame_rate=to)
    Filler("synthesize", listener, Counter(source), frontend=letters()).fill(
        [job(Sheet(0, seconds))]
    )
    assert listener.canvas.content is not None
    tokens = listener.canvas.content[0].tolist()
    last = frames_in(seconds.numerator, seconds.denominator, source) - 1
    for frame in (0, len(tokens) // 2, len(tokens) - 1):
        middle = F(2 * frame + 1, 2) / to
        assert tokens[frame] == min(last, (middle * source).__floor__())


# Codes of the recording -------------------------------------------------------------------


def known_codes(
    sheet: Sheet, source: Audio, rate: Fraction, codec: IndexCodec | None = None
) -> Canvas:
    listener = Listener(
        frame_rate=rate, codebooks=2, codebook_size=INDEX_SIZE, free_tasks=("continue",)
    )
    codec = codec or IndexCodec(rate)
    Filler("continue", listener, codec=codec).fill([job(sheet, source)])
    return listener.canvas


def check_known(canvas: Canvas, sheet: Sheet, source: Audio, rate: Fraction) -> int:
    """Known frames are of the right moment to half a sample; returns how many there are."""
    begins, numbers = canvas.ids[0].tolist()
    known = canvas.known[0].all(0).tolist()
    assert known == canvas.known[0].any(0).tolist()
    for frame, (begin, number) in enumerate(zip(begins, numbers, strict=True)):
        start, stop = F(frame) / rate, F(frame + 1) / rate
        inside = [c for c in sheet.known if c.at <= start and stop <= c.end]
        touched = [c for c in sheet.known if c.at <= start < c.end == sheet.seconds]
        if known[frame]:
            (copy,) = inside or touched
            there = (copy.source + start - copy.at) * source.sample_rate
            pasted = begin + F(number * source.sample_rate) / rate
            assert abs(pasted - there) <= F(1, 2)
        else:
            assert not inside
    return sum(known)


@pytest.mark.parametrize("rate", RATES, ids=float)
@pytest.mark.parametrize("sample_rate", SAMPLE_RATES)
def test_pasted_frames_are_of_the_right_moment(rate: Fraction, sample_rate: int) -> None:
    source = indexed(5 * sample_rate + 123, sample_rate)
    length = F(source.length, sample_rate)
    layout = edit.plan(
        length, [edit.Span(F(2), F(2_711, 1000))], [edit.NewWords(None, (17, 18))],
        frame_rate=F(50), context_seconds=1.0, max_seconds=30.0,
    )  # fmt: skip
    (sheet,) = layout.sheets
    canvas = known_codes(sheet, source, rate)
    count = check_known(canvas, sheet, source, rate)
    assert count >= sum((c.seconds for c in sheet.known), F(0)) * rate - 4


@given(
    length=st.integers(3_000, 90_000),
    sample_rate=st.sampled_from(SAMPLE_RATES),
    rate=st.sampled_from(RATES),
    edges=st.lists(st.fractions(0, 1, max_denominator=997), min_size=4, max_size=4).map(sorted),
    frames=st.integers(1, 30),
    context=st.sampled_from([0, 1, 3, None]),
)
@settings(deadline=None, max_examples=60)
def test_any_edit_pastes_the_right_frames(
    length: int,
    sample_rate: int,
    rate: Fraction,
    edges: list[Fraction],
    frames: int,
    context: int | None,
) -> None:
    source = indexed(length, sample_rate)
    total = F(length, sample_rate)
    spans = [edit.Span(edges[0] * total, edges[1] * total),
             edit.Span(edges[2] * total, edges[3] * total)]  # fmt: skip
    layout = edit.plan(
        total, spans, [edit.NewWords(None, (frames,))] * 2, frame_rate=F(50),
        context_seconds=0.7, max_seconds=30.0,
    )  # fmt: skip
    for sheet in layout.sheets:
        if sheet.known:
            codec = IndexCodec(rate, context)
            canvas = known_codes(sheet, source, rate, codec)
            check_known(canvas, sheet, source, rate)


def test_a_continuation_of_odd_length_knows_its_prompt_to_the_last_whole_frame() -> None:
    source = indexed(16_000 + 100, 16_000)
    length = F(16_100, 16_000)
    sheet = Sheet(0, length + 1, (Copy(F(0), F(0), length),))
    canvas = known_codes(sheet, source, F(50))
    assert canvas.known[0, 0].sum() == 50
    assert check_known(canvas, sheet, source, F(50)) == 50


def test_the_encoder_hears_its_context_and_no_more() -> None:
    source = indexed(160_000, 16_000)
    sheet = Sheet(0, F(4), (Copy(F(1), F(5), F(2)),))
    for context, heard in ((0, 32_000), (3, 32_000 + 6 * 320), (None, 64_000)):
        codec = IndexCodec(F(50), context)
        known_codes(sheet, source, F(50), codec)
        assert [one.length for one in codec.heard] == [heard]


def test_context_stops_at_both_ends_of_the_recording() -> None:
    source = indexed(16_000, 16_000)
    sheet = Sheet(0, F(2), (Copy(F(0), F(0), F(1)),))
    codec = IndexCodec(F(50), 10)
    known_codes(sheet, source, F(50), codec)
    assert [one.length for one in codec.heard] == [16_000]


def test_a_frame_that_the_encoder_did_not_give_is_not_known() -> None:
    source = indexed(16_000, 16_000)
    sheet = Sheet(0, F(2), (Copy(F(0), F(0), F(1)),))
    canvas = known_codes(sheet, source, F(50), IndexCodec(F(50), 0, missing=1))
    assert canvas.known[0, 0].tolist() == [True] * 49 + [False] * 51


class Loud(IndexCodec):
    """A codec that normalises loudness: frame i has scale i + 1, the last one only fills up."""

    def encode(self, audio: Sequence[Audio]) -> Codes:
        codes = super().encode(audio)
        scales = torch.arange(1.0, codes.ids.shape[-1] + 1).repeat(len(audio), 1)
        scales[:, -1] = 0
        return replace(codes, scales=scales)


def test_what_is_made_is_as_loud_as_what_is_known() -> None:
    source = indexed(1_600, 16_000)
    sheets = [Sheet(0, F(8, 50), (Copy(F(0), F(0), F(1, 10)),)), Sheet(1, F(6, 50))]
    listener = Listener(codebooks=2, codebook_size=INDEX_SIZE)
    filler = Filler("continue", listener, codec=Loud(F(50), 0))
    first, second = filler.fill([job(sheet, source) for sheet in sheets])
    assert listener.canvas.scales is not None
    assert listener.canvas.scales[-1].tolist() == [1, 2, 3, 4, 0, 0, 0, 0]
    assert first.scales is not None
    assert first.scales.tolist() == [1, 2, 3, 4, 2.5, 2.5, 2.5, 2.5]
    assert first.as_codes("mine", INDEX_SIZE, F(50)).scales is not None
    assert second.scales is None  # nothing is known of it: the codec decides


def test_scales_that_a_generator_gives_are_kept() -> None:
    class Own(Listener):
        def fill(self, canvas: Canvas) -> Codes:
            batch, _, frames = canvas.ids.shape
            return replace(super().fill(canvas), scales=torch.full((batch, frames), 0.5))

    (filled,) = Filler("synthesize", Own()).fill([job(Sheet(0, F(1)))])
    assert filled.scales is not None
    assert filled.scales.tolist() == [0.5] * 50


def test_a_stretch_shorter_than_a_frame_is_not_known() -> None:
    source = indexed(16_000, 16_000)
    sheet = Sheet(0, F(1), (Copy(F(1, 200), F(0), F(1, 50)),))
    assert not known_codes(sheet, source, F(50)).known.any()


def test_content_of_a_recording_that_ends_early_is_zero_not_padding() -> None:
    listener = Listener()
    source = Audio(np.zeros(8_000, np.float32), 16_000)
    sheet = Sheet(0, F(1), told=(Copy(F(0), F(0), F(1)),))
    Filler("convert", listener, tokenizer=FakeTokenizer()).fill([job(sheet, source)])
    assert listener.canvas.content is not None
    assert listener.canvas.content.tolist() == [[0] * 50]


def test_tokens_that_the_recording_tells_are_known_to_the_content_generator() -> None:
    seen: list[Canvas] = []

    class Watched(FakeTextGenerator):
        def fill(self, canvas: Canvas) -> Tokens:
            seen.append(canvas)
            return super().fill(canvas)

    source = Audio(np.random.default_rng(0).uniform(-1, 1, 32_000).astype(np.float32), 16_000)
    told = (Copy(F(0), F(1, 2), F(1, 2)), Copy(F(1), F(1), F(1, 2)))
    sheet = Sheet(0, F(3, 2), told=told, phones=(TimedPhone("a", F(1, 2), F(1)),))
    filler = Filler("edit", Listener(), Watched(), FakeTokenizer(), frontend=letters())
    (filled,) = filler.fill([job(sheet, source)])
    (canvas,) = seen
    assert canvas.known[0, 0].tolist() == [True] * 25 + [False] * 25 + [True] * 25
    expected = FakeTokenizer().encode([source]).ids[0]
    assert filled.tokens is not None
    assert torch.equal(filled.tokens[:25], expected[25:50])
    assert torch.equal(filled.tokens[50:], expected[50:75])


# Generators that break the rules ----------------------------------------------------------


class Careless(Listener):
    """Changes one known position."""

    def fill(self, canvas: Canvas) -> Codes:
        ids = canvas.ids.clone()
        ids[0, 0, 0] += 1
        return Codes(ids, "fake-codes", INDEX_SIZE, canvas.frame_rate)


class Short(Listener):
    """Leaves the last frame out."""

    def fill(self, canvas: Canvas) -> Codes:
        return Codes(canvas.ids[..., :-1], "fake-codes", INDEX_SIZE, canvas.frame_rate)


@pytest.mark.parametrize("kind", [Careless, Short])
def test_a_generator_that_breaks_the_protocol_is_named(kind: type[Listener]) -> None:
    generator = kind(codebooks=2, codebook_size=INDEX_SIZE)
    sheet = Sheet(0, F(2), (Copy(F(0), F(0), F(1)),))
    filler = Filler("continue", generator, codec=IndexCodec(F(50)))
    with pytest.raises(PluginError, match="fake-generator") as caught:
        filler.fill([job(sheet, indexed(16_000, 16_000))])
    assert caught.value.plugin == "generator/fake-generator"


# Batches ----------------------------------------------------------------------------------

LENGTHS = [F(7, 10), F(3), F(1, 50), F(1), F(29), F(3, 2)]


def test_what_a_job_gets_does_not_depend_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [
        job(spoken(("a", F(0), length / 2), ("b", length / 2, length), seconds=length), seed=i)
        for i, length in enumerate(LENGTHS)
    ]

    def fill(some: list[SheetJob]) -> list[Any]:
        filler = Filler("synthesize", FakeGenerator(), FakeTextGenerator(), frontend=letters())
        return filler.fill(some)

    together = fill(jobs)
    alone = [fill([one])[0] for one in jobs]
    monkeypatch.setattr(filling, "MAX_BATCH_FRAMES", 160)
    in_small_batches = fill(jobs)
    for a, b, c, length in zip(together, alone, in_small_batches, LENGTHS, strict=True):
        assert torch.equal(a.result, b.result)
        assert torch.equal(a.result, c.result)
        assert torch.equal(a.tokens, b.tokens)
        assert a.result.shape[-1] == max(1, -(-length * 50 // 1))


def test_batches_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MAX_BATCH_FRAMES", 100)
    listener = Listener()
    Filler("synthesize", listener).fill([job(Sheet(i, F(1, 2))) for i in range(9)])
    assert [canvas.batch for canvas in listener.canvases] == [4, 4, 1]
    assert [i for canvas in listener.canvases for i in canvas.items.tolist()] == list(range(9))


def test_different_temperatures_share_no_canvas() -> None:
    listener = Listener()
    jobs = [job(Sheet(i, F(1)), temperature=t) for i, t in enumerate((1.0, 0.5, 1.0))]
    Filler("synthesize", listener).fill(jobs)
    assert sorted((c.temperature, c.batch) for c in listener.canvases) == [
        (0.5, 1), (1.0, 1), (1.0, 1)
    ]  # fmt: skip


def test_a_voice_is_not_lost_beside_a_job_without_one() -> None:
    listener = Listener()
    voice = Voice(np.ones(4, np.float32), "fake-voice")
    jobs = [job(Sheet(0, F(1))), job(Sheet(1, F(1)), voice=voice), job(Sheet(2, F(1)))]
    Filler("synthesize", listener).fill(jobs)
    voices = {c.items.tolist()[0]: c.voices for c in listener.canvases}
    assert voices[1] is not None
    assert voices[1].tolist() == [[1.0] * 4]
    assert voices[0] is None


def test_a_voice_of_another_kind_is_not_handed_over() -> None:
    listener = Listener()
    voice = Voice(np.ones(4, np.float32), "xvector")
    Filler("synthesize", listener).fill([job(Sheet(0, F(1)), voice=voice)])
    assert listener.canvas.voices is None


def test_progress_counts_every_sheet_once() -> None:
    seen: list[int] = []
    filler = Filler("synthesize", Listener(), progress=seen.append)
    filler.fill([job(Sheet(i, F(20))) for i in range(10)])
    assert seen == sorted(set(seen))
    assert seen[-1] == 10


def test_no_jobs() -> None:
    assert Filler("synthesize", Listener()).fill([]) == []


def test_the_index_codec_is_what_it_claims_to_be() -> None:
    facts = IndexCodec(F(75)).spec.facts
    assert isinstance(facts, CodecFacts)
    codes = IndexCodec(F(75)).encode([indexed(100, 8_000).slice(40, 100)])
    assert codes.ids[0].tolist() == [[40], [0]]
    assert TOKENIZER.facts.kind == "tokenizer"
