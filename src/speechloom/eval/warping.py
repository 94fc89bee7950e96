"""Dynamic time warping: which frame of one recording goes with which of another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["distances", "warping_path"]


def distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of frames [N, D] and [M, D]: [N, M]."""
    squares = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    lengths: NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
    return lengths


def warping_path(cost: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The cheapest path from the first pair of frames to the last.

    Args:
        cost: not negative, [N, M]; a path goes one frame on in one recording or in both.

    Returns:
        The frames of the one and of the other along the path, int64 [P] each.

    Source: Sakoe and Chiba 1978, without slope limits and with equal weights.
    """
    total = _accumulate(cost)
    row, column = cost.shape[0] - 1, cost.shape[1] - 1
    path = [(row, column)]
    while row or column:
        steps = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
        inside = [(r, c) for r, c in steps if r >= 0 and c >= 0]
        row, column = min(inside, key=total.__getitem__)
        path.append((row, column))
    rows, columns = np.array(path[::-1]).T
    return rows, columns


def _accumulate(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cost of the cheapest path to each pair, [N, M].

    Along a row, total[j] = cost[j] + min(above[j], total[j - 1]) is a running minimum once the
    running sum of the row's costs is taken off, which needs no loop over columns.
    """
    total = np.empty_like(cost)
    total[0] = np.cumsum(cost[0])
    for row in range(1, len(cost)):
        above = total[row - 1].copy()
        np.minimum(above[1:], total[row - 1, :-1], out=above[1:])
        walked = np.cumsum(cost[row])
        total[row] = walked + np.minimum.accumulate(above - (walked - cost[row]))
    return total
