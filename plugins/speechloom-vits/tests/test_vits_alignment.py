"""Monotonic alignment search against every possible alignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.errors import UsageError
from speechloom_vits.alignment import durations_of, search, search_reference


def paths(symbols: int, frames: int) -> list[list[int]]:
    """Every monotonic path that gives each symbol at least one frame."""
    found = []
    for cuts in itertools.combinations(range(1, frames), symbols - 1):
        ends = (*cuts, frames)
        starts = (0, *cuts)
        spans = zip(starts, ends, strict=True)
        found.append([n for n, (a, b) in enumerate(spans) for _ in range(b - a)])
    return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_finds_the_best_of_all_paths(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 8))
    symbols = data.draw(st.integers(1, frames))
    seed = data.draw(st.integers(0, 10_000))
    scores = np.random.default_rng(seed).normal(size=(symbols, frames)).astype(np.float32)
    found = search_reference(scores)
    totals = [sum(scores[n, f] for f, n in enumerate(p)) for p in paths(symbols, frames)]
    reached = sum(scores[n, f] for f, n in enumerate(found))
    assert found.tolist() in paths(symbols, frames)
    assert reached == pytest.approx(max(totals), abs=1e-4)


def test_the_compiled_search_is_the_definition_ties_included() -> None:
    pytest.importorskip("numba")
    draw = np.random.default_rng(0)
    for symbols, frames in ((1, 1), (1, 9), (7, 7), (5, 23), (40, 90)):
        # Few values, so that many paths score the same.
        scores = torch.from_numpy(draw.integers(0, 3, (2, symbols, frames)).astype(np.float32))
        counts = torch.tensor([symbols, max(1, symbols - 1)]), torch.tensor([frames, frames])
        ours = search(scores, *counts, implementation="reference")
        fast = search(scores, *counts, implementation="numba")
        assert torch.equal(ours, fast)
        assert durations_of(fast, symbols).sum(1).tolist() == [frames, frames]


def test_known_answer_and_padding() -> None:
    scores = torch.tensor([[[9.0, 9, 0, 0], [0, 0, 9, 9]], [[1.0, 0, 0, 0], [0, 5, 9, 9]]])
    path = search(scores, torch.tensor([2, 2]), torch.tensor([4, 2]))
    assert path.tolist() == [[0, 0, 1, 1], [0, 1, -1, -1]]
    assert durations_of(path, 2).tolist() == [[2, 2], [1, 1]]


def test_more_symbols_than_frames_are_refused() -> None:
    with pytest.raises(UsageError, match="item 0 has 3 symbols and 2 frames"):
        search(torch.zeros(1, 3, 2), torch.tensor([3]), torch.tensor([2]))
