"""Layouts as data: phones put in time, and the lengths of pieces."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechloom.layout import Copy, Keep, Layout, Make, Sheet, TimedPhone, timed
from speechloom.values import Phones

F = Fraction


def test_phones_follow_each_other_at_the_frame_rate() -> None:
    phones = Phones(("_", "h", "i", "_"), "letters", ("hi",), ((1, 3),))
    in_time, words = timed(phones, [1, 2, 3, 4], F(50), F(1))
    assert in_time == (
        TimedPhone("_", F(1), F(51, 50)),
        TimedPhone("h", F(51, 50), F(53, 50)),
        TimedPhone("i", F(53, 50), F(56, 50)),
        TimedPhone("_", F(56, 50), F(60, 50)),
    )
    assert words == (("hi", F(51, 50), F(56, 50)),)


def test_a_rate_that_is_no_whole_number_stays_exact() -> None:
    rate = F(44_100, 512)
    phones = Phones(("a",) * 1000, "letters")
    in_time, _ = timed(phones, [1] * 1000, rate)
    assert in_time[-1].end == 1000 / rate


def test_durations_must_be_one_per_phone() -> None:
    with pytest.raises(IndexError):
        timed(Phones(("a", "b"), "letters"), [1], F(50))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.fractions(0, 9))
def test_phones_in_time_leave_no_gap(durations: list[int], start: Fraction) -> None:
    phones = Phones(("a",) * len(durations), "letters")
    in_time, _ = timed(phones, durations, F(75), start)
    assert in_time[0].start == start
    assert in_time[-1].end == start + F(sum(durations), 75)
    for one, other in zip(in_time, in_time[1:], strict=False):
        assert one.end == other.start
        assert one.end > one.start


def test_lengths_of_pieces() -> None:
    assert Copy(F(1), F(5), F(2)).end == 3
    assert Make(0, F(1), F(3, 2)).seconds == F(1, 2)


def test_layouts_are_values() -> None:
    layout = Layout((Keep(F(0), None), Make(0, F(0), F(1))), (Sheet(0, F(1)),))
    same = Layout((Keep(F(0), None), Make(0, F(0), F(1))), (Sheet(0, F(1)),))
    assert layout == same
    assert hash(layout) == hash(same)
    with pytest.raises(AttributeError):
        layout.pieces = ()  # type: ignore[misc]
