"""Measuring on examples that are not learnt from, with the same draws every time."""

from __future__ import annotations

import torch

from speechloom.training.batches import plan_epoch
from speechloom.training.dataset import Dataset
from speechloom.training.device import moved
from speechloom.training.draws import Purpose, numpy_generator, seeded, torch_generator
from speechloom.training.learner import Learner
from speechloom.training.precision import mixed_precision
from speechloom.training.processes import Processes
from speechloom.training.recipe import Recipe

__all__ = ["measure"]


@torch.no_grad()
def measure(
    learner: Learner, dataset: Dataset, recipe: Recipe, processes: Processes, step: int
) -> dict[str, float]:
    """The mean of a learner's numbers over the examples of a data set.

    Args:
        learner: its network has the weights to measure, and is in evaluation mode.
        dataset: the validation data.
        recipe: sizes, seed and precision.
        processes: that share the batches.
        step: steps done.
    """
    batches = plan_epoch(
        dataset.lengths,
        frames=recipe.batch.frames,
        max_items=recipe.batch.max_items,
        seed=recipe.seed,
        epoch=0,
    )
    sums: list[tuple[str, float, int]] = []
    for number in range(processes.rank, len(batches), processes.count):
        draws = (Purpose.validation, recipe.seed, number)
        items = [dataset.item(index) for index in batches[number]]
        batch = moved(learner.collate(items, numpy_generator(*draws)), processes.device)
        with seeded(processes.device, *draws), mixed_precision(processes.device, recipe.precision):
            numbers = learner.measure(batch, torch_generator(*draws), step)
        sums += [(name, float(value), len(items)) for name, value in numbers.items()]
    return _weighted_means(processes.gathered(sums))


def _weighted_means(sums: list[tuple[str, float, int]]) -> dict[str, float]:
    totals: dict[str, tuple[float, int]] = {}
    for name, value, weight in sums:
        total, weights = totals.get(name, (0.0, 0))
        totals[name] = (total + value * weight, weights + weight)
    return {name: total / weights for name, (total, weights) in totals.items()}
