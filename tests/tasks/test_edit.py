"""edit: what is outside the spans is kept exactly, what is inside gives way."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from speechloom.errors import UsageError
from speechloom.layout import Copy, Keep, Layout, Make, TimedPhone
from speechloom.tasks.edit import (
    MARGIN,
    Change,
    NewWords,
    Span,
    changed_words,
    plan,
    tempo_around,
    where,
)
from speechloom.values import Phones

F = Fraction
AB = Phones(("a", "b"), "letters", ("ab",), ((0, 2),))
NONE = NewWords(None)


def planned(total: Fraction, spans: list[tuple[Fraction, Fraction]], *new: NewWords) -> Layout:
    return plan(
        total, [Span(a, b) for a, b in spans], new, frame_rate=F(50), context_seconds=3.0,
        max_seconds=30.0,
    )  # fmt: skip


def words(a: int, b: int) -> NewWords:
    return NewWords(AB, (a, b))


# Which words change -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("a b c", "a b c", []),
        ("a b c", "A, b... C!", []),
        ("a b c", "a x c", [(1, 2, 1, 2)]),
        ("a b c", "a c", [(1, 2, 1, 1)]),
        ("a c", "a b c", [(1, 1, 1, 2)]),
        ("a b", "x a b", [(0, 0, 0, 1)]),
        ("a b", "a b x", [(2, 2, 2, 3)]),
        ("a b c d e", "x b c d y z", [(0, 1, 0, 1), (4, 5, 4, 6)]),
        ("a b c", "x y", [(0, 3, 0, 2)]),
        ("a a a", "a a", [(2, 3, 2, 2)]),
        ("don't go", "dont go", [(0, 1, 0, 1)]),
        ("", "a", [(0, 0, 0, 1)]),
        ("- a", "! a", [(0, 1, 0, 1)]),
    ],
)
def test_changed_words(old: str, new: str, changes: list[tuple[int, int, int, int]]) -> None:
    assert changed_words(old.split(), new.split()) == tuple(Change(*c) for c in changes)


def test_a_long_text_is_compared_whole() -> None:
    old = ["the"] * 150 + ["end"] + ["the"] * 150
    new = ["the"] * 150 + ["start"] + ["the"] * 150
    assert changed_words(old, new) == (Change(150, 151, 150, 151),)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_changes_turn_the_old_words_into_the_new(old: list[str], new: list[str]) -> None:
    changes = changed_words(old, new)
    made: list[str] = []
    at = 0
    for change in changes:
        made += old[at : change.old_start] + new[change.new_start : change.new_stop]
        at = change.old_stop
        assert (change.old_start, change.new_start) != (change.old_stop, change.new_stop)
    assert made + old[at:] == new


# Where they lie ---------------------------------------------------------------------------

TIMES = [(F(1), F(2)), (F(3), F(4)), (F(5), F(6))]


@pytest.mark.parametrize(
    ("change", "span"),
    [
        ((1, 2, 1, 2), (3, 4)),
        ((0, 2, 0, 1), (1, 4)),
        ((0, 3, 0, 1), (1, 6)),
        ((0, 1, 0, 0), (1, 3)),
        ((1, 2, 1, 1), (3, 5)),
        ((2, 3, 2, 2), (4, 6)),
        ((0, 3, 0, 0), (1, 6)),
        ((0, 0, 0, 1), (1, 1)),
        ((1, 1, 1, 2), (F(5, 2), F(5, 2))),
        ((3, 3, 3, 4), (6, 6)),
    ],
)
def test_where(change: tuple[int, int, int, int], span: tuple[Fraction, Fraction]) -> None:
    assert where(Change(*change), TIMES, F(10)) == Span(F(span[0]), F(span[1]))


def test_words_into_a_recording_that_has_none_go_to_its_end() -> None:
    assert where(Change(0, 0, 0, 1), [], F(7)) == Span(F(7), F(7))


# Layouts by hand --------------------------------------------------------------------------


def test_a_replacement_by_hand() -> None:
    layout = planned(F(10), [(F(4), F(5))], words(10, 15))
    assert layout.pieces == (
        Keep(F(0), F(4) - MARGIN),
        Make(0, F(3), F(3) + F(1, 2) + 2 * MARGIN),
        Keep(F(5) + MARGIN, None),
    )
    (sheet,) = layout.sheets
    begin = F(1) - MARGIN  # of the sheet, in the recording: 3 s before what is made
    assert sheet.seconds == 3 + MARGIN + F(1, 2) + MARGIN + 3
    assert sheet.known == (
        Copy(F(0), begin, F(3)),
        Copy(F(3) + F(1, 2) + 2 * MARGIN, F(5) + MARGIN, F(3)),
    )
    assert sheet.told == (
        Copy(F(0), begin, F(3) + MARGIN),
        Copy(F(3) + MARGIN + F(1, 2), F(5), F(3) + MARGIN),
    )
    start = F(3) + MARGIN
    assert sheet.phones == (
        TimedPhone("a", start, start + F(10, 50)),
        TimedPhone("b", start + F(10, 50), start + F(25, 50)),
    )
    assert sheet.words == (("ab", start, start + F(1, 2)),)


def test_a_removal_makes_the_margins_only() -> None:
    layout = planned(F(10), [(F(4), F(5))], NONE)
    (make,) = (p for p in layout.pieces if isinstance(p, Make))
    assert make.seconds == 2 * MARGIN
    assert layout.sheets[0].phones == ()


def test_an_insertion() -> None:
    layout = planned(F(10), [(F(4), F(4))], words(5, 5))
    assert layout.pieces[0] == Keep(F(0), F(4) - MARGIN)
    assert layout.pieces[2] == Keep(F(4) + MARGIN, None)
    assert layout.pieces[1].seconds == F(1, 5) + 2 * MARGIN  # type: ignore[union-attr]


def test_at_the_very_beginning_and_the_very_end() -> None:
    layout = planned(F(10), [(F(0), F(1)), (F(9), F(10))], words(5, 5), words(5, 5))
    first, kept, last = layout.pieces
    assert isinstance(first, Make)
    assert isinstance(last, Make)
    assert kept == Keep(F(1) + MARGIN, F(9) - MARGIN)
    assert first.start == 0
    assert layout.sheets[0].known[0].at == first.end
    assert len(layout.sheets[0].known) == len(layout.sheets[1].known) == 1
    assert last.end == layout.sheets[1].seconds


def test_everything_replaced_keeps_nothing() -> None:
    layout = planned(F(2), [(F(0), F(2))], words(5, 5))
    assert layout.pieces == (Make(0, F(0), F(1, 5)),)
    assert layout.sheets[0].known == layout.sheets[0].told == ()


def test_everything_removed_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing would be left"):
        planned(F(2), [(F(0), F(2))], NONE)


def test_adjacent_spans_have_no_margin_between_them() -> None:
    layout = planned(F(10), [(F(4), F(5)), (F(5), F(6))], words(5, 5), words(5, 5))
    keep, one, two, rest = layout.pieces
    assert isinstance(one, Make)
    assert isinstance(two, Make)
    assert (keep, rest) == (Keep(F(0), F(4) - MARGIN), Keep(F(6) + MARGIN, None))
    assert one.seconds == two.seconds == F(1, 5) + MARGIN


def test_close_spans_share_what_is_between_them() -> None:
    gap = F(2, 100)
    layout = planned(F(10), [(F(4), F(5)), (F(5) + gap, F(6))], words(5, 5), words(5, 5))
    assert sum(isinstance(piece, Keep) for piece in layout.pieces) == 2
    made = [piece.seconds for piece in layout.pieces if isinstance(piece, Make)]
    assert made == [F(1, 5) + MARGIN + gap / 2] * 2


def test_the_phones_of_the_recording_lie_in_the_margins_and_around() -> None:
    phones = [("x", F(3), F(39, 10)), ("y", F(39, 10), F(41, 10)), ("z", F(49, 10), F(6))]
    layout = plan(
        F(10), [Span(F(4), F(5))], [words(5, 5)], frame_rate=F(50), context_seconds=1.0,
        max_seconds=30.0, source_phones=phones,
    )  # fmt: skip
    (sheet,) = layout.sheets
    begin, shift = F(3) - MARGIN, F(1, 5) - 1
    assert sheet.phones == (
        TimedPhone("x", F(3) - begin, F(39, 10) - begin),
        TimedPhone("y", F(39, 10) - begin, F(4) - begin),
        TimedPhone("a", F(4) - begin, F(4) - begin + F(1, 10)),
        TimedPhone("b", F(4) - begin + F(1, 10), F(4) - begin + F(1, 5)),
        TimedPhone("z", F(5) + shift - begin, F(6) + shift - begin),
    )


def test_context_gives_way_to_long_new_words() -> None:
    layout = plan(
        F(60), [Span(F(30), F(30))], [NewWords(AB, (200, 200))], frame_rate=F(50),
        context_seconds=3.0, max_seconds=10.0,
    )  # fmt: skip
    assert layout.sheets[0].seconds <= 10
    assert layout.sheets[0].known[0].seconds < 1


def test_new_words_that_fit_no_sheet() -> None:
    with pytest.raises(UsageError, match="several edits"):
        planned(F(60), [(F(30), F(30))], NewWords(AB, (1000, 1000)))


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([], "nothing to edit"),
        ([(F(-1), F(1))], "inside the recording"),
        ([(F(1), F(11))], "inside the recording"),
        ([(F(2), F(1))], "in order"),
        ([(F(5), F(6)), (F(1), F(2))], "in order"),
        ([(F(1), F(3)), (F(2), F(4))], "in order"),
    ],
)
def test_spans_that_cannot_be(spans: list[tuple[Fraction, Fraction]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planned(F(10), spans, *[words(5, 5)] * len(spans))


def test_an_empty_span_with_no_words_changes_nothing() -> None:
    with pytest.raises(UsageError, match="would change nothing"):
        planned(F(10), [(F(4), F(4))], NONE)


# Any spans --------------------------------------------------------------------------------

TOTALS = st.fractions(F(1, 10), 12, max_denominator=44_100)


@st.composite
def edits(draw: st.DrawFn) -> tuple[Fraction, list[Span], list[NewWords]]:
    total = draw(TOTALS)
    marks = st.fractions(0, 1, max_denominator=997)
    count = draw(st.integers(1, 4))
    edges = sorted(draw(st.lists(marks, min_size=2 * count, max_size=2 * count)))
    spans = [Span(edges[2 * i] * total, edges[2 * i + 1] * total) for i in range(count)]
    frames = draw(
        st.lists(
            st.one_of(st.just(()), st.tuples(st.integers(1, 40), st.integers(1, 40))),
            min_size=count, max_size=count,
        )
    )  # fmt: skip
    new = [NewWords(AB, f) if f else NONE for f in frames]
    return total, spans, new


@given(edits(), st.sampled_from([0.0, 0.3, 3.0]))
def test_any_edit_keeps_the_rest_exactly(
    case: tuple[Fraction, list[Span], list[NewWords]], context: float
) -> None:
    total, spans, new = case
    assume(all(s.start < s.end or w.frames for s, w in zip(spans, new, strict=True)))
    removed = sum((span.end - span.start for span in spans), F(0))
    assume(removed < total or any(words.frames for words in new))  # else nothing would be left
    layout = plan(
        total, spans, new, frame_rate=F(50), context_seconds=context, max_seconds=30.0
    )  # fmt: skip
    kept = [piece for piece in layout.pieces if isinstance(piece, Keep)]
    at = F(0)
    for piece in kept:
        end = total if piece.end is None else piece.end
        assert at <= piece.start < end <= total
        assert all(end <= span.start or piece.start >= span.end for span in spans)
        at = end
    made = [piece for piece in layout.pieces if isinstance(piece, Make)]
    assert [piece.sheet for piece in made] == list(range(len(layout.sheets)))
    old = sum((span.end - span.start for span in spans), F(0))
    fresh = sum((F(sum(words.frames), 50) for words in new), F(0))
    outside = total - sum(((piece.end or total) - piece.start for piece in kept), F(0)) - old
    assert sum((piece.seconds for piece in made), F(0)) == fresh + outside
    assert 0 <= outside <= 2 * MARGIN * len(spans)
    for sheet, piece in zip(layout.sheets, made, strict=True):
        check_sheet(layout, total, sheet.item, piece)


def check_sheet(layout: Layout, total: Fraction, item: int, piece: Make) -> None:
    sheet = layout.sheets[item]
    assert 0 <= piece.start <= piece.end <= sheet.seconds
    for copies in (sheet.known, sheet.told):
        at = F(0)
        for copy in copies:
            assert at <= copy.at < copy.end <= sheet.seconds
            assert 0 <= copy.source < copy.source + copy.seconds <= total
            at = copy.end
    # What is made and what is known meet, and are the whole sheet.
    known = sum((copy.seconds for copy in sheet.known), F(0))
    assert known + piece.seconds == sheet.seconds
    assert all(copy.end <= piece.start or copy.at >= piece.end for copy in sheet.known)
    assert all(0 <= phone.start <= phone.end <= sheet.seconds for phone in sheet.phones)


# Tempo ------------------------------------------------------------------------------------

# Twenty words of 0.2 s each, up to 4 s, and then ten of 0.8 s.
QUICK = [(F(i, 5), F(i + 1, 5)) for i in range(20)]
SLOW = [(4 + F(4 * i, 5), 4 + F(4 * (i + 1), 5)) for i in range(10)]
USUAL = [F(2, 5)] * 30


@pytest.mark.parametrize(
    ("at", "tempo"), [((1, F(6, 5)), 2.0), ((10, F(54, 5)), 0.5), ((0, 0), 2.0), ((12, 12), 0.5)]
)
def test_new_words_are_as_fast_as_those_around_them(at: tuple[F, F], tempo: float) -> None:
    assert tempo_around(Span(*map(F, at)), QUICK + SLOW, USUAL) == tempo


def test_between_two_tempos_the_nearest_two_seconds_count() -> None:
    here = Span(F(4), F(4))
    nearest = sorted(QUICK + SLOW, key=lambda word: max(4 - word[1], word[0] - 4))
    spoken, count = F(0), 0
    while spoken < 2:
        spoken += nearest[count][1] - nearest[count][0]
        count += 1
    expected = float(count * F(2, 5) / spoken)
    assert tempo_around(here, QUICK + SLOW, USUAL) == pytest.approx(expected)
    assert 0.5 < expected < 2.0


@given(
    lengths=st.lists(st.fractions(0, 3, max_denominator=50), max_size=12),
    usual=st.fractions(F(1, 50), 3, max_denominator=50),
    at=st.fractions(0, 30, max_denominator=50),
)
def test_a_tempo_stays_in_its_bounds(lengths: list[F], usual: F, at: F) -> None:
    ends = [sum(lengths[: i + 1], F(0)) for i in range(len(lengths))]
    spoken = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    tempo = tempo_around(Span(at, at), spoken, [usual] * len(lengths))
    assert 0.5 <= tempo <= 2.0
    if not any(lengths):
        assert tempo == 1.0
