"""Learning rates by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechloom.training.schedule import Schedule, learning_rate

SCHEDULES: list[Schedule] = ["cosine", "linear", "inverse_sqrt", "exponential", "constant"]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("cosine", [1.0, 0.505, 0.01]),
        ("linear", [1.0, 0.505, 0.01]),
        ("exponential", [1.0, 0.1, 0.01]),
        ("constant", [1.0, 1.0, 1.0]),
    ],
)
def test_start_middle_and_end_after_the_warm_up(schedule: Schedule, rates: list[float]) -> None:
    found = [
        learning_rate(step, peak=1.0, steps=110, warmup=10, schedule=schedule)
        for step in (10, 60, 110)
    ]
    assert found == pytest.approx(rates)


def test_inverse_square_root_halves_at_four_times_the_warm_up() -> None:
    rates = [
        learning_rate(step, peak=0.5, steps=1000, warmup=100, schedule="inverse_sqrt")
        for step in (49, 99, 399)
    ]
    assert rates == pytest.approx([0.25, 0.5, 0.25])


@given(st.sampled_from(SCHEDULES), st.integers(0, 50), st.integers(1, 500), st.integers(0, 1000))
def test_a_rate_is_positive_and_never_above_the_peak(
    schedule: Schedule, warmup: int, steps: int, step: int
) -> None:
    rate = learning_rate(step, peak=2.0, steps=steps, warmup=warmup, schedule=schedule)
    assert 0 < rate <= 2.0
