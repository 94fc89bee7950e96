"""The weights and the optimiser of each phase."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from speechloom.errors import PluginError, UsageError
from speechloom.training.learner import Learner, Phase
from speechloom.training.recipe import OptimizerSettings
from speechloom.training.schedule import learning_rate

__all__ = ["PhaseOptimizer", "freeze", "phase_optimizers"]


def freeze(network: nn.Module, patterns: Sequence[str]) -> tuple[nn.Module, ...]:
    """Stop the weights of some modules from learning.

    Args:
        network: whose modules and parameters the patterns name.
        patterns: names, or patterns of the shell; what lies below a named module is meant, too.

    Returns:
        The modules named: keep them in evaluation mode, so that their dropout and their running
        means rest as well.

    Raises:
        UsageError: a pattern names nothing.
    """
    modules: list[nn.Module] = []
    for pattern in patterns:
        found = [m for name, m in network.named_modules() if fnmatch.fnmatchcase(name, pattern)]
        single = [p for name, p in network.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not found and not single:
            names = ", ".join(name for name, _ in network.named_children()) or "none"
            raise UsageError(
                f"freeze: {pattern!r} names no module of the network; its modules are {names}"
            )
        for parameter in [*single, *(p for module in found for p in module.parameters())]:
            parameter.requires_grad_(False)
        modules += found
    return tuple(modules)


class PhaseOptimizer:
    """AdamW over the weights of one phase.

    Args:
        phase: whose.
        parameters: that it moves, by name.
        settings: how.
        steps: of the whole training, for the schedule.
    """

    def __init__(
        self, phase: Phase, parameters: Sequence[Tensor], settings: OptimizerSettings, steps: int
    ) -> None:
        self.phase = phase
        self.parameters = parameters
        self._settings = settings
        self._steps = steps
        matrices = [p for p in parameters if p.dim() >= 2]
        vectors = [p for p in parameters if p.dim() < 2]
        self._adam = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            fused=True,
        )

    def clear(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def clip(self) -> float:
        """Scale the gradients down where they are too long; returns their norm before that."""
        limit = math.inf if self._settings.clip is None else self._settings.clip
        return float(nn.utils.clip_grad_norm_(self.parameters, limit))

    def step(self, step: int) -> float:
        """Move the weights, `step` counted from 0; returns the learning rate."""
        rate = learning_rate(
            step - self.phase.start,
            peak=self._settings.learning_rate,
            steps=self._steps - self.phase.start,
            warmup=self._settings.warmup,
            schedule=self._settings.schedule,
            final=self._settings.final,
        )
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        return rate

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return self._adam.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self._adam.load_state_dict(state)


def phase_optimizers(
    learner: Learner, recipe_optimizer: OptimizerSettings, steps: int
) -> tuple[PhaseOptimizer, ...]:
    """One optimiser for each phase of a learner.

    Args:
        learner: its frozen weights must be frozen already.
        recipe_optimizer: what phases do not change.
        steps: of the whole training.

    Raises:
        PluginError: the phases of the learner share weights, or leave some out, or change what is
            no key of the optimiser.
        UsageError: nothing is left to learn.
    """
    plugin = f"learner/{type(learner).__name__}"
    owner: dict[str, str] = {}
    made = []
    for phase in learner.phases:
        named = {
            name: parameter
            for name, parameter in learner.network.named_parameters()
            if parameter.requires_grad and _belongs(name, phase)
        }
        for name in named:
            if name in owner:
                raise PluginError(
                    f"{name} learns in the phases {owner[name]!r} and {phase.name!r}; "
                    "every weight belongs to one",
                    plugin=plugin,
                )
            owner[name] = phase.name
        if named:
            settings = _settings(phase, recipe_optimizer, plugin)
            made.append(PhaseOptimizer(phase, list(named.values()), settings, steps))
    learning = [name for name, p in learner.network.named_parameters() if p.requires_grad]
    idle = [name for name in learning if name not in owner]
    if idle:
        raise PluginError(f"{idle[0]} learns in no phase of {plugin}", plugin=plugin)
    if not made:
        raise UsageError("freeze: nothing is left to learn; name fewer modules")
    return tuple(made)


def _belongs(name: str, phase: Phase) -> bool:
    return not phase.modules or any(name.startswith(f"{m.rstrip('.')}.") for m in phase.modules)


def _settings(phase: Phase, recipe: OptimizerSettings, plugin: str) -> OptimizerSettings:
    try:
        return OptimizerSettings.model_validate(recipe.model_dump() | dict(phase.optimizer))
    except ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise PluginError(
            f"phase {phase.name!r} of {plugin} changes optimizer.{key}: {detail['msg']}",
            plugin=plugin,
        ) from None
