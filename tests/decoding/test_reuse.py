"""What is kept of frames equals what is computed anew, and only what changed is computed."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from speechloom.decoding.reuse import FrameMemory


class Network:
    """Two results of each frame by its own codes and a factor; the frames of a pass are noted."""

    def __init__(self) -> None:
        self.memory = FrameMemory()
        self.computed: list[int] = []

    def results(self, codes: Tensor, factor: int = 1) -> tuple[Tensor, Tensor]:
        weights = torch.arange(1, len(codes) + 1)[:, None]
        return (codes * weights).sum(0) * factor, codes.T.float() / 3 * factor

    def __call__(
        self, codes: Tensor, factor: int = 1, key: Hashable = None
    ) -> tuple[Tensor, Tensor]:
        self.computed = []

        def compute(frames: Tensor) -> tuple[Tensor, ...]:
            assert frames.dtype == torch.int64
            self.computed = frames.tolist()
            return self.results(codes[:, frames], factor)

        first, second = self.memory(codes, compute, key=key)
        return first, second

    def check(self, codes: Tensor, factor: int = 1, key: Hashable = None) -> list[int]:
        """A pass that must give what a fresh one does; the frames that it computed."""
        got = self(codes, factor, key)
        for one, other in zip(got, self.results(codes, factor), strict=True):
            assert torch.equal(one, other)
        return self.computed


CODES = torch.arange(12).view(2, 6)


def with_code(level: int, frame: int, code: int = 77) -> Tensor:
    codes = CODES.clone()
    codes[level, frame] = code
    return codes


def test_only_changed_frames_are_computed() -> None:
    network = Network()
    assert network.check(CODES) == [0, 1, 2, 3, 4, 5]
    assert network.check(with_code(1, 4)) == [4]
    assert network.check(with_code(0, 2)) == [2, 4]  # the other one is as it was again


def test_equal_codes_compute_nothing() -> None:
    network = Network()
    network.check(CODES)
    assert network.check(CODES.clone()) == []
    assert network.check(CODES) == []


def test_codes_that_are_changed_in_place_have_changed() -> None:
    network, codes = Network(), CODES.clone()
    network.check(codes)
    codes[0, 3] = 99
    assert network.check(codes) == [3]


def test_another_key_computes_all_frames() -> None:
    network = Network()
    network.check(CODES, factor=1, key=("level", 0))
    assert network.check(CODES, factor=2, key=("level", 1)) == [0, 1, 2, 3, 4, 5]
    assert network.check(with_code(0, 1), factor=2, key=("level", 1)) == [1]
    assert len(network.check(CODES, factor=1, key=("level", 0))) == 6
    assert len(network.check(CODES, factor=3, key=None)) == 6


@pytest.mark.parametrize("other", [CODES[:, :5], CODES[:1], torch.zeros(2, 0, dtype=torch.int64)])
def test_codes_of_another_shape_compute_all_frames(other: Tensor) -> None:
    network = Network()
    network.check(CODES)
    assert network.check(other) == list(range(other.shape[1]))
    assert len(network.check(CODES)) == 6


def test_a_computation_that_failed_is_made_again() -> None:
    def fail(frames: Tensor) -> tuple[Tensor, ...]:
        raise MemoryError

    for before in ([], [CODES]):
        network = Network()
        for codes in before:
            network.check(codes)
        with pytest.raises(MemoryError):
            network.memory(with_code(1, 4), fail)
        assert 4 in network.check(with_code(1, 4))


@given(
    passes=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 3))),
            st.sampled_from([8, 8, 8, 5]),
            st.sampled_from([1, 1, 1, 2]),
        ),
        max_size=12,
    )
)
def test_any_passes_equal_fresh_ones(
    passes: list[tuple[list[tuple[int, int, int]], int, int]],
) -> None:
    network, codes = Network(), torch.zeros(3, 8, dtype=torch.int64)
    before: tuple[Tensor, int] | None = None
    for changes, frames, factor in passes:
        for level, frame, code in changes:
            codes[level, frame] = code
        own = codes[:, :frames]
        want = list(range(frames))
        if before is not None and before[0].shape == own.shape and before[1] == factor:
            want = [n for n in want if not torch.equal(own[:, n], before[0][:, n])]
        assert network.check(own, factor, key=factor) == want
        before = own.clone(), factor
