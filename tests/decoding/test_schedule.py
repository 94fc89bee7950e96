from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.decoding import anneal, open_after
from speechloom.decoding.schedule import SCHEDULES
from speechloom.errors import UsageError


@pytest.mark.parametrize(
    ("unknown", "steps", "schedule", "counts"),
    [
        (10, 1, "cosine", (0,)),
        (10, 4, "cosine", (9, 7, 3, 0)),
        (10, 5, "linear", (8, 6, 4, 2, 0)),
        (4, 4, "cosine", (3, 2, 1, 0)),
        (2, 16, "linear", (1, 0)),
        (0, 16, "cosine", ()),
    ],
)
def test_known_counts(unknown: int, steps: int, schedule: str, counts: tuple[int, ...]) -> None:
    assert open_after(unknown, steps, schedule=schedule) == counts


@settings(deadline=None)
@given(
    unknown=st.integers(0, 3000),
    steps=st.integers(1, 64),
    schedule=st.sampled_from(sorted(SCHEDULES)),
)
def test_counts_fall_to_zero_in_exactly_the_passes(unknown: int, steps: int, schedule: str) -> None:
    counts = open_after(unknown, steps, schedule=schedule)
    assert len(counts) == min(unknown, steps)
    assert all(later < earlier for earlier, later in zip((unknown, *counts), counts, strict=False))
    assert not counts or counts[-1] == 0


def test_cosine_keeps_more_open_than_linear() -> None:
    cosine, linear = (open_after(400, 16, schedule=name) for name in ("cosine", "linear"))
    assert all(c > line for c, line in zip(cosine[:-1], linear[:-1], strict=True))
    assert cosine[7] == math.floor(400 * math.cos(math.pi / 4))


@pytest.mark.parametrize(("unknown", "steps"), [(-1, 4), (4, 0)])
def test_numbers_out_of_range_are_refused(unknown: int, steps: int) -> None:
    with pytest.raises(UsageError, match="steps"):
        open_after(unknown, steps)


def test_unknown_schedule_lists_the_names() -> None:
    with pytest.raises(UsageError, match="cosine, linear"):
        open_after(4, 2, schedule="sine")


@settings(deadline=None)
@given(start=st.floats(0.1, 10), steps=st.integers(1, 64))
def test_temperature_falls_and_stays_above_zero(start: float, steps: int) -> None:
    course = [anneal(start, step, steps) for step in range(steps)]
    assert course[0] == start
    assert all(later < earlier for earlier, later in zip(course, course[1:], strict=False))
    assert course[-1] > 0
