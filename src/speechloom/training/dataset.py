"""From examples to prepared items: each is made once, kept in the cache, and read from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from speechloom.errors import OutputError, SpeechloomError, UsageError
from speechloom.training.cache import AudioHashes, ItemCache, item_key
from speechloom.training.example import Example
from speechloom.training.learner import Item, Learner
from speechloom.training.manifest import all_problems
from speechloom.training.processes import Processes
from speechloom.training.recipe import Recipe

__all__ = ["Dataset", "prepare_all"]

Progress = Callable[[int, int], None]
"""Told how many examples are prepared, and of how many."""


@dataclass(frozen=True)
class Dataset:
    """Prepared examples.

    Attributes:
        examples: those that are learnt from.
        keys: of their items in the cache.
        lengths: frames of each.
        cache: holds the items.
        learner: makes an item again that was damaged.
        left_out: examples that were too long.
    """

    examples: Sequence[Example]
    keys: Sequence[str]
    lengths: Sequence[int]
    cache: ItemCache
    learner: Learner
    left_out: int

    def item(self, index: int) -> Item:
        """One item, from the cache, or made again when its file is gone or damaged.

        Raises:
            UsageError: it cannot be read even after it was made again.
        """
        item = self.cache.read(self.keys[index])
        if item is None:
            _prepare(self.learner, self.examples[index], self.keys[index], self.cache)
            item = self.cache.read(self.keys[index])
        if item is None:
            raise UsageError(
                f"{self.cache.path(self.keys[index])} is damaged again after it was remade; move "
                "the cache to a sound disk"
            )
        return item

    @property
    def fingerprint(self) -> str:
        """Names the data as they were prepared, in their order."""
        return hashlib.sha256("".join(self.keys).encode()).hexdigest()


def prepare_all(
    examples: Sequence[Example],
    learner: Learner,
    recipe: Recipe,
    processes: Processes,
    progress: Progress,
) -> Dataset:
    """Prepare what is not in the cache; the processes share the work.

    Args:
        examples: of the data.
        learner: its network must be on its device.
        recipe: for the cache and the limits of lengths.
        processes: that train together.
        progress: called for every example of this process.

    Raises:
        UsageError: examples cannot be used; all of them are listed, and nothing else happens.
        OutputError: the cache cannot be written; what is in it stays.
    """
    cache = ItemCache(recipe.data.cache)
    hashes = AudioHashes(cache.folder)
    key = learner.cache_key()
    own = range(processes.rank, len(examples), processes.count)
    made: list[tuple[int, str, int]] = []
    problems: list[tuple[int, str]] = []
    with torch.no_grad():
        for done, index in enumerate(own, start=1):
            example = examples[index]
            try:
                name = item_key(example, hashes.of(example.audio), key)
                length = cache.length(name) or _prepare(learner, example, name, cache)
                made.append((index, name, length))
            except OutputError:  # the cache is at fault, not the example
                raise
            except SpeechloomError as error:
                problems.append((index, f"{example.place}: {error}"))
            progress(done, len(own))
    problems = sorted(processes.gathered(problems))
    if problems:
        raise UsageError(all_problems([text for _, text in problems], "examples cannot be used"))
    return _dataset(examples, sorted(processes.gathered(made)), cache, learner, recipe)


def _prepare(learner: Learner, example: Example, key: str, cache: ItemCache) -> int:
    """Prepare one example and keep it; returns its length."""
    item = learner.prepare(example)
    length = learner.length(item)
    if not item or length < 1:
        raise UsageError(f"nothing is left of it: {length} frames in {sorted(item)}")
    cache.write(key, item, length)
    return length


def _dataset(
    examples: Sequence[Example],
    made: Sequence[tuple[int, str, int]],
    cache: ItemCache,
    learner: Learner,
    recipe: Recipe,
) -> Dataset:
    limit = recipe.data.max_frames
    kept = [one for one in made if limit is None or one[2] <= limit]
    if not kept:
        raise UsageError(f"all {len(made)} examples are longer than data.max_frames: {limit}")
    longest = max(kept, key=lambda one: one[2])
    if longest[2] > recipe.batch.frames:
        over = sum(length > recipe.batch.frames for _, _, length in kept)
        raise UsageError(
            f"{over} examples do not fit into a batch of batch.frames: {recipe.batch.frames}; the "
            f"longest, {examples[longest[0]].place}, has {longest[2]} frames: raise batch.frames, "
            "or leave long examples out with data.max_frames"
        )
    return Dataset(
        examples=[examples[index] for index, _, _ in kept],
        keys=[key for _, key, _ in kept],
        lengths=[length for _, _, length in kept],
        cache=cache,
        learner=learner,
        left_out=len(made) - len(kept),
    )
