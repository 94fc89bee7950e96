"""continue: the recording stays whole, and every sheet begins with its end."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechloom.errors import UsageError
from speechloom.layout import Copy, Keep, Make
from speechloom.tasks.continuation import plan_seconds, plan_text
from speechloom.values import Phones

F = Fraction


def test_by_seconds_by_hand() -> None:
    layout = plan_seconds(F(10), F(2), context_seconds=3.0, max_seconds=30.0)
    assert layout.pieces == (Keep(F(0), None), Make(0, F(3), F(5)))
    (sheet,) = layout.sheets
    assert sheet.seconds == 5
    assert sheet.known == sheet.told == (Copy(F(0), F(7), F(3)),)
    assert sheet.phones == ()


def test_a_short_recording_is_all_context() -> None:
    layout = plan_seconds(F(1, 3), F(2), context_seconds=3.0, max_seconds=30.0)
    assert layout.sheets[0].known == (Copy(F(0), F(0), F(1, 3)),)
    assert layout.pieces[1] == Make(0, F(1, 3), F(7, 3))


def test_the_longest_continuation_and_one_more_millisecond() -> None:
    layout = plan_seconds(F(60), F(27), context_seconds=3.0, max_seconds=30.0)
    assert layout.sheets[0].seconds == 30
    with pytest.raises(UsageError, match="at most 27 seconds"):
        plan_seconds(F(60), F(27_001, 1000), context_seconds=3.0, max_seconds=30.0)


@pytest.mark.parametrize("seconds", [F(0), F(-1), F(-1, 10**9)])
def test_nothing_to_add(seconds: Fraction) -> None:
    with pytest.raises(UsageError, match="more than 0"):
        plan_seconds(F(10), seconds, context_seconds=3.0, max_seconds=30.0)


def test_by_text_every_sentence_sees_the_end_of_the_recording() -> None:
    phones = Phones(("a", "b"), "letters", ("ab",), ((0, 2),))
    layout = plan_text(
        F(10), [phones, phones], [[10, 15], [5, 5]], frame_rate=F(50), context_seconds=3.0,
        max_seconds=30.0,
    )  # fmt: skip
    assert layout.pieces == (
        Keep(F(0), None), Make(0, F(3), F(7, 2)), Make(1, F(3), F(16, 5))
    )  # fmt: skip
    for sheet in layout.sheets:
        assert sheet.known == sheet.told == (Copy(F(0), F(7), F(3)),)
    assert layout.sheets[0].words == (("ab", F(3), F(7, 2)),)
    assert [s.item for s in layout.sheets] == [0, 1]


@given(
    source=st.fractions(F(1, 100), 20, max_denominator=1000),
    frames=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    max_seconds=st.sampled_from([2.0, 4.0, 30.0]),
)
def test_sheets_hold_context_and_words_and_no_more(
    source: Fraction, frames: list[int], max_seconds: float
) -> None:
    phones = Phones(("a",) * len(frames), "letters")
    layout = plan_text(
        source, [phones], [frames], frame_rate=F(50), context_seconds=3.0, max_seconds=max_seconds
    )
    assert layout.pieces[0] == Keep(F(0), None)
    made = [piece for piece in layout.pieces if isinstance(piece, Make)]
    assert sum((piece.seconds for piece in made), F(0)) == F(sum(frames), 50)
    for sheet, piece in zip(layout.sheets, made, strict=True):
        assert sheet.seconds <= max_seconds
        (copy,) = sheet.known
        assert copy.source >= 0
        assert copy.source + copy.seconds == source
        assert copy.end == piece.start == sheet.phones[0].start
        assert sheet.phones[-1].end == piece.end == sheet.seconds
