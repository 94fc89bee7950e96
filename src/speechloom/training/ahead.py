"""Batches made ahead of the step that needs them, by threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from speechloom.training.batches import BatchPlan, Position
from speechloom.training.dataset import Dataset
from speechloom.training.draws import Purpose, numpy_generator
from speechloom.training.learner import Batch
from speechloom.training.processes import Processes
from speechloom.training.recipe import Recipe

__all__ = ["BatchesAhead"]


class BatchesAhead:
    """The batches of each step, for one process, in the order of the plan.

    Args:
        dataset: what is learnt from.
        recipe: sizes and seed.
        processes: each takes every `count`-th batch.
        step: the first step that is wanted.
        position: of its first batch in the plan.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        processes: Processes,
        *,
        step: int,
        position: Position,
    ) -> None:
        self.position = position
        self._dataset, self._recipe, self._processes = dataset, recipe, processes
        self._plan = BatchPlan(
            dataset.lengths,
            frames=recipe.batch.frames,
            max_items=recipe.batch.max_items,
            seed=recipe.seed,
        )
        self._pool = ThreadPoolExecutor(recipe.batch.workers, "batches")
        self._waiting: deque[tuple[list[Future[Batch]], Position]] = deque()
        self._ahead = (step, position)
        for _ in range(recipe.batch.workers):
            self._ask()

    def next(self) -> list[Batch]:
        """The batches of the next step, one for each gradient that is accumulated."""
        self._ask()
        futures, self.position = self._waiting.popleft()
        return [future.result() for future in futures]

    def close(self) -> None:
        """Drop what is not made yet."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self) -> None:
        step, position = self._ahead
        rank, count = self._processes.rank, self._processes.count
        planned, behind = self._plan.take(position, self._recipe.accumulate * count)
        mine = planned[rank::count]
        futures = [self._pool.submit(self._made, own, step, turn) for turn, own in enumerate(mine)]
        self._waiting.append((futures, behind))
        self._ahead = (step + 1, behind)

    def _made(self, indices: Sequence[int], step: int, turn: int) -> Batch:
        rng = numpy_generator(Purpose.collate, self._recipe.seed, step, turn, self._processes.rank)
        items = [self._dataset.item(index) for index in indices]
        return self._dataset.learner.collate(items, rng)
