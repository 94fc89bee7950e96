"""convert: all is made, as long as the recording, cut where it is quiet."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from speechloom.layout import Copy, Make
from speechloom.tasks.convert import plan

F = Fraction


def test_a_short_recording_is_one_sheet() -> None:
    layout = plan(F(5, 2), max_seconds=30)
    assert layout.pieces == (Make(0, F(0), F(5, 2)),)
    (sheet,) = layout.sheets
    assert sheet.told == (Copy(F(0), F(0), F(5, 2)),)
    assert sheet.known == ()


def test_exactly_one_sheet_long() -> None:
    assert len(plan(F(30), max_seconds=30).sheets) == 1
    assert len(plan(F(30) + F(1, 44_100), max_seconds=30).sheets) == 2


def test_cut_at_the_last_quiet_moment_that_fits() -> None:
    layout = plan(F(25), max_seconds=10, quiet=[F(3), F(7), F(9), F(11), F(16)])
    assert [sheet.told[0].source for sheet in layout.sheets] == [F(0), F(9), F(16)]


def test_a_quiet_moment_in_the_first_half_is_too_early() -> None:
    layout = plan(F(15), max_seconds=10, quiet=[F(5)])
    assert [sheet.seconds for sheet in layout.sheets] == [F(10), F(5)]


@given(
    total=st.fractions(F(1, 1000), 200, max_denominator=44_100),
    quiet=st.lists(st.fractions(0, 200, max_denominator=100), max_size=60).map(sorted),
    limit=st.sampled_from([1.0, 7.3, 30.0]),
)
def test_sheets_cover_the_recording_once(
    total: Fraction, quiet: list[Fraction], limit: float
) -> None:
    layout = plan(total, max_seconds=limit, quiet=quiet)
    at = F(0)
    for number, (piece, sheet) in enumerate(zip(layout.pieces, layout.sheets, strict=True)):
        assert piece == Make(number, F(0), sheet.seconds)
        assert sheet.item == number
        assert sheet.told == (Copy(F(0), at, sheet.seconds),)
        assert 0 < sheet.seconds <= F(limit).limit_denominator(1000)
        at += sheet.seconds
    assert at == total
