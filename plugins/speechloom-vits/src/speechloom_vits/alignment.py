"""Monotonic alignment search: which symbol each frame belongs to, at the highest likelihood.

A symbol lasts at least one frame, symbols keep their order, and each frame belongs to one
(Glow-TTS, arXiv:2005.11129, algorithm 1). `search_reference` is the definition; the compiled path
gives the same, ties included.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechloom.errors import BackendUnavailable, UsageError

__all__ = ["durations_of", "search", "search_reference"]

Implementation = Literal["auto", "numba", "reference"]
_Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def search(
    scores: Tensor,
    symbols: Tensor,
    frames: Tensor,
    *,
    implementation: Implementation = "auto",
) -> Tensor:
    """The best monotonic alignment of each item.

    Args:
        scores: float [B, N, F], log likelihood of each frame as each symbol; on any device.
        symbols: int64 [B], symbols of each item.
        frames: int64 [B], frames of each item, no fewer than its symbols.
        implementation: ``numba``, ``reference``, or ``auto``: numba where it is installed.

    Returns:
        int64 [B, F] on the CPU: the symbol of each frame, -1 in the padding.

    Raises:
        UsageError: an item has more symbols than frames, or none.
        BackendUnavailable: numba was asked for and is not installed.
    """
    counts = list(zip(symbols.tolist(), frames.tolist(), strict=True))
    for row, (many, long) in enumerate(counts):
        if not 1 <= many <= long:
            raise UsageError(
                f"item {row} has {many} symbols and {long} frames; each symbol needs a frame: "
                "leave it out, or give fewer symbols"
            )
    run = _implementation(implementation)
    values = scores.detach().to("cpu", torch.float32).numpy()
    found = np.full((values.shape[0], values.shape[2]), -1, np.int64)
    for row, (many, long) in enumerate(counts):
        found[row, :long] = run(np.ascontiguousarray(values[row, :many, :long]))
    return torch.from_numpy(found)


def durations_of(path: Tensor, symbols: int) -> Tensor:
    """Frames of each symbol, int64 [B, N], of a path [B, F] that `search` gave."""
    counted = torch.nn.functional.one_hot(path + 1, symbols + 1).sum(1)
    return counted[:, 1:]


def search_reference(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """The definition: dynamic programming over frames, in plain loops.

    Args:
        scores: float32 [N, F] with 1 <= N <= F.

    Returns:
        int64 [F], the symbol of each frame, from 0 up to N - 1 without a gap. Where two paths
        score the same, the one that enters a symbol later is taken.
    """
    symbols, frames = scores.shape
    best = np.full((symbols, frames), -np.inf, np.float32)
    for frame in range(frames):
        # A symbol cannot come before those in front of it, nor so late that the rest do not fit.
        first = max(0, symbols + frame - frames)
        for symbol in range(first, min(frame + 1, symbols)):
            if frame == 0:
                before = np.float32(0)
            else:
                stay = best[symbol, frame - 1]
                enter = best[symbol - 1, frame - 1] if symbol > 0 else np.float32(-np.inf)
                before = max(stay, enter)
            best[symbol, frame] = before + scores[symbol, frame]
    path = np.zeros(frames, np.int64)
    symbol = symbols - 1
    for frame in range(frames - 1, -1, -1):
        path[frame] = symbol
        entered = symbol == frame or (
            symbol > 0 and best[symbol, frame - 1] < best[symbol - 1, frame - 1]
        )
        if frame > 0 and entered:
            symbol -= 1
    return path


def _implementation(name: Implementation) -> _Search:
    if name == "reference":
        return search_reference
    if importlib.util.find_spec("numba") is not None:
        return _compiled()
    if name == "numba":
        raise BackendUnavailable(
            "the compiled alignment search needs numba; run `pip install speechloom-vits[train]`",
            plugin="speechloom-vits",
        )
    return search_reference


@cache
def _compiled() -> _Search:
    """The definition itself, compiled: its loops are what numba is good at."""
    import numba

    compiled: _Search = numba.njit(cache=False, nogil=True)(search_reference)
    return compiled
