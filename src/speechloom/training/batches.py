"""Batches by frames: examples of like length together, as many as a budget of frames allows.

Which examples meet is drawn anew in every epoch, from (seed, epoch) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechloom.training.draws import Purpose, numpy_generator

__all__ = ["BatchPlan", "Position", "plan_epoch"]

POOL_BATCHES = 50
"""Examples of that many full batches are sorted by length together: enough that little is padding,
few enough that an example meets others in the next epoch."""


@dataclass(frozen=True)
class Position:
    """A place in the endless row of batches.

    Attributes:
        epoch: passes over the data before it.
        batch: batches of the epoch before it.
    """

    epoch: int = 0
    batch: int = 0


def plan_epoch(
    lengths: Sequence[int], *, frames: int, max_items: int, seed: int, epoch: int
) -> list[list[int]]:
    """Put every example into one batch of an epoch.

    Args:
        lengths: frames of each example, none above `frames`.
        frames: the most that a batch may have, padding included (longest times count).
        max_items: the most examples of a batch.
        seed: of the recipe.
        epoch: its number.

    Returns:
        Indices into `lengths`, batch by batch, in random order.
    """
    rng = numpy_generator(Purpose.epoch, seed, epoch)
    order = rng.permutation(len(lengths))
    batches: list[list[int]] = []
    pool = POOL_BATCHES * max_items
    for first in range(0, len(order), pool):
        members = sorted(order[first : first + pool].tolist(), key=lambda i: lengths[i])
        batches += _cut(members, lengths, frames, max_items)
    return [batches[index] for index in rng.permutation(len(batches))]


def _cut(
    members: Sequence[int], lengths: Sequence[int], frames: int, max_items: int
) -> list[list[int]]:
    """Cut a row that is sorted by length into batches that are as full as may be."""
    batches: list[list[int]] = []
    current: list[int] = []
    for index in members:
        full = len(current) == max_items or (len(current) + 1) * lengths[index] > frames
        if current and full:
            batches.append(current)
            current = []
        current.append(index)
    return [*batches, current]


class BatchPlan:
    """The endless row of batches, epoch after epoch; asking for a part of it changes nothing.

    Args:
        lengths: as `plan_epoch` takes it; at least one.
        frames: as `plan_epoch` takes it.
        max_items: as `plan_epoch` takes it.
        seed: as `plan_epoch` takes it.
    """

    def __init__(self, lengths: Sequence[int], *, frames: int, max_items: int, seed: int) -> None:
        self._lengths = np.asarray(lengths).tolist()
        self._limits = {"frames": frames, "max_items": max_items, "seed": seed}
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def take(self, position: Position, count: int) -> tuple[list[list[int]], Position]:
        """The next batches from a position on, and the position behind them."""
        taken: list[list[int]] = []
        epoch, batch = position.epoch, position.batch
        while len(taken) < count:
            planned = self._planned(epoch)
            more = planned[batch : batch + count - len(taken)]
            taken += more
            batch += len(more)
            if batch >= len(planned):
                epoch, batch = epoch + 1, 0
        return taken, Position(epoch, batch)

    def _planned(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            self._epoch = (epoch, plan_epoch(self._lengths, epoch=epoch, **self._limits))
        return self._epoch[1]
