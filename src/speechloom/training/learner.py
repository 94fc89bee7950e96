"""What a plugin writes to make something trainable: a network, its data and its loss.

The loop does the rest: it reads the recipe and the examples, keeps what `Learner.prepare` gives in
a cache, puts items into batches, steps the optimisers, saves, resumes, measures and exports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from speechloom.checkpoints import load_exactly
from speechloom.errors import WeightsError
from speechloom.spec import ComponentSpec
from speechloom.training.example import Example

__all__ = ["Batch", "ExportTarget", "Item", "Learner", "Phase"]

Item = dict[str, Tensor]
"""One prepared example: tensors on the CPU, by name, as they lie in the cache."""

Batch = dict[str, Any]
"""What `Learner.collate` gives. Tensors in it (not those in nested containers) are moved to the
device; the same dict goes to every phase of a step, so that a later phase can find in it what an
earlier one made."""


@dataclass(frozen=True)
class Phase:
    """A part of a step: one loss, and the weights that it moves.

    Plain training has one phase for the whole network. A GAN has two, which run in order in every
    step, each on its own loss with an optimiser of its own.

    Attributes:
        name: given to `Learner.loss`, and the prefix of what it logs where there are several.
        modules: names of the submodules of the network whose weights it moves (``"generator"``
            stands for all below it, too); empty for the whole network. No weight is in two phases.
        optimizer: what it changes of the recipe's ``optimizer``, by key (``learning_rate``,
            ``betas``, ``weight_decay``, ``clip``, ``warmup``, ``schedule``); let settings decide.
        start: the first step (from 0) in which it runs.
    """

    name: str
    modules: tuple[str, ...] = ()
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    start: int = 0


@dataclass(frozen=True)
class ExportTarget:
    """Where and as what an export goes.

    Attributes:
        folder: an empty folder inside the new package; weights are written here.
        checkpoint: names that folder once the package is installed
            (``package:speechloom_mine/weights/run``): for ``ComponentSpec.options``, and to be
            given to `speechloom.checkpoints.find_checkpoint` when the component is loaded.
        id: the ids of all components begin with it (``mine``, or ``mine-codec``).
        weights_license: for the specs.
        install: for the specs: the command that installs the package.
    """

    folder: Path
    checkpoint: str
    id: str
    weights_license: str
    install: str


class Learner(ABC):
    """Everything that training needs to know of one kind of model.

    It is built under the recipe's seed, so ``__init__`` may draw initial weights as usual. All
    methods but `loss` are pure, and `collate` is called from another thread.

    Attributes:
        settings_type: checks the ``settings`` of the recipe. Paths in it are of type
            `speechloom.training.recipe.RecipePath`: the user gives them relative to the recipe.
        network: everything that has weights, discriminators included. What a loss changes by
            itself (moving averages, codebooks) is best a buffer of it: then it is saved, and kept
            equal among processes (the first one's is taken after every step).
        phases: in the order in which they run within a step.
        watch: a logged number and what is normal for it, such as ``{"loss": "6.9 at first, 3 to 4
            in the end"}``; shown beside the progress bar.
        device: where the network is; set by the loop before anything is prepared.
    """

    settings_type: ClassVar[type[BaseModel]]
    network: nn.Module
    phases: tuple[Phase, ...] = (Phase("train"),)
    watch: Mapping[str, str] = {}
    device: torch.device = torch.device("cpu")

    @abstractmethod
    def __init__(self, settings: Any, *, seed: int) -> None:
        """Build it.

        Args:
            settings: an instance of `settings_type`.
            seed: of the recipe, for draws that need a generator of their own.
        """

    # Data -----------------------------------------------------------------------------------

    @abstractmethod
    def cache_key(self) -> str:
        """Name all that `prepare` depends on beside the example: versions, rates, weight hashes.

        Items in the cache are remade when it changes.
        """

    @abstractmethod
    def prepare(self, example: Example) -> Item:
        """Do the costly part once: tokens, mels, features. It runs on `device`.

        Args:
            example: `Example.load` gives its audio.

        Returns:
            Tensors by name, at least one; they go to the cache.

        Raises:
            SpeechloomError: the example cannot be used, and why; all such are reported together,
                with their place in the data, and nothing is trained.
        """

    @abstractmethod
    def length(self, item: Item) -> int:
        """Frames that an item takes in a batch, at least 1; random crops count as what they take.

        Args:
            item: what `prepare` gave.
        """

    @abstractmethod
    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Make a batch of items: crop, augment, pad.

        Args:
            items: B items, on the CPU; not to be changed in place.
            rng: the only source of randomness; depends on (seed, step, rank).

        Returns:
            By name: tensors on the CPU, whatever else the loss needs.
        """

    # Learning -------------------------------------------------------------------------------

    @abstractmethod
    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss of one phase, under autocast where the recipe has bfloat16.

        A phase moves its own weights only; others may be in the graph. While it runs, torch's
        global generator is seeded by (seed, step, rank) too, for `nn.Dropout` and its like. When
        ``network.training`` is False it is a validation: then it must change nothing.

        Args:
            phase: name of the phase.
            batch: what `collate` gave, on `device`.
            rng: a generator on the CPU; depends on (seed, step, rank, phase).
            step: steps done before this one.

        Returns:
            The scalar loss with its graph, and numbers to log, by name, detached.
        """

    def measure(self, batch: Batch, rng: torch.Generator, step: int) -> dict[str, Tensor | float]:
        """The numbers of one batch of the validation data; by default those of every phase.

        The network is in evaluation mode with the averaged weights, and no gradients are kept.

        Args:
            batch: what `collate` gave, on `device`.
            rng: depends on (seed, batch) only, so that validations compare.
            step: steps done.
        """
        numbers: dict[str, Tensor | float] = {}
        for phase in self.phases:
            loss, more = self.loss(phase.name, batch, rng, step)
            prefix = f"{phase.name}/" if len(self.phases) > 1 else ""
            numbers |= {f"{prefix}loss": loss, **{f"{prefix}{k}": v for k, v in more.items()}}
        return numbers

    # Keeping --------------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the network: tensors, numbers, strings, nested."""
        return {}

    def load_extra(self, state: dict[str, Any]) -> None:
        """Take over what `extra_state` gave.

        Raises:
            WeightsError: the state is not of this version.
        """
        if state:
            raise WeightsError(
                f"the checkpoint holds {', '.join(sorted(state))}, which {type(self).__name__} "
                "does not know; go on with the version that wrote it, or train anew"
            )

    def start_from(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Take the weights that the recipe's ``start_from`` names, before the first step.

        By default all of the network's, one for one; a learner that can take a part overrides it.

        Args:
            tensors: by name, on the CPU.
            source: where they come from, for messages.

        Raises:
            WeightsError: they do not fit.
        """
        load_exactly(self.network, tensors, source)

    @abstractmethod
    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """Write what inference needs as safetensors, and say what components it makes.

        The network is on the CPU and has the weights to export (the averaged ones, where the recipe
        has ``ema``). The files are read again by the components' ``from_pretrained``, which gets
        ``target.checkpoint`` through the options of its spec.

        Args:
            target: where to, and under what ids.

        Returns:
            At least one spec; ids begin with ``target.id``.
        """
