"""Batches by frames: every example once an epoch, the budget kept, the same again from anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speechloom.training.batches import BatchPlan, Position, plan_epoch

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=300)


@given(LENGTHS, st.integers(100, 1000), st.integers(1, 20), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_has_every_example_once_and_keeps_the_budget(
    lengths: list[int], frames: int, max_items: int, seed: int, epoch: int
) -> None:
    limits = {"frames": frames, "max_items": max_items, "seed": seed}
    batches = plan_epoch(lengths, epoch=epoch, **limits)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_items
        assert max(lengths[index] for index in batch) * len(batch) <= frames
    assert batches == plan_epoch(lengths, epoch=epoch, **limits)


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(1, 101))
    drawn = [
        plan_epoch(lengths, frames=400, max_items=8, seed=seed, epoch=epoch)
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def test_examples_of_like_length_meet_so_little_is_padding() -> None:
    lengths = [10 + (37 * index) % 991 for index in range(5000)]
    batches = plan_epoch(lengths, frames=8000, max_items=64, seed=0, epoch=0)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert sum(lengths) / padded > 0.95


@given(LENGTHS, st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_the_row_is_the_same_in_whatever_pieces_it_is_taken(
    lengths: list[int], counts: list[int]
) -> None:
    plan = BatchPlan(lengths, frames=100, max_items=4, seed=3)
    whole, behind = plan.take(Position(), sum(counts))
    position, pieces = Position(), []
    for count in counts:
        piece, position = BatchPlan(lengths, frames=100, max_items=4, seed=3).take(position, count)
        pieces += piece
    assert pieces == whole
    assert position == behind
