"""The one training loop: every stage runs in it, and goes on behind its last checkpoint."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechloom.decoding import keep_freed_memory
from speechloom.errors import WeightsError
from speechloom.training.checkpoints import save_atomically
from speechloom.training.schedule import learning_rate
from speechloom_starter.recipe.config import TrainConfig


class Stage(ABC):
    """What a stage gives the loop.

    Attributes:
        name: of the stage and of its checkpoint.
        train: steps and step sizes.
        network: everything that learns by gradient.
    """

    name: str
    train: TrainConfig
    network: nn.Module

    @abstractmethod
    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one step, and numbers for the log; draws come from ``rng`` alone."""

    def extra_state(self) -> dict[str, Any]:
        """What the checkpoint must hold beside the network: nothing, unless a stage says so."""
        return {}

    def load_extra(self, state: dict[str, Any]) -> None:
        """Take over what ``extra_state`` gave."""
        if state:
            raise WeightsError(
                f"the checkpoint of stage {self.name!r} holds {sorted(state)}, which this version "
                "does not know; start the stage anew by deleting its checkpoint"
            )


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator started from the next draw of ``rng``."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def _optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    matrices = [p for p in network.parameters() if p.requires_grad and p.dim() >= 2]
    vectors = [p for p in network.parameters() if p.requires_grad and p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def run_stage(stage: Stage, folder: Path, checkpoint_seconds: float = 120.0) -> None:
    """Train ``stage`` to its last step.

    The draws of a step depend on the seed and the step only, so a resumed run sees the batches that
    an unbroken run would have seen.

    Args:
        stage: what to train; its network is changed in place.
        folder: holds ``<stage>.pt`` (checkpoint) and ``<stage>.jsonl`` (losses).
        checkpoint_seconds: time between checkpoints.
    """
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stage.name}.pt"
    config = stage.train
    optimiser = _optimiser(stage.network, config)
    step = 0
    if path.exists():
        state = torch.load(path, weights_only=True)
        stage.network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        stage.load_extra(state["extra"])
        step = state["step"]
    saved = started = time.monotonic()
    with (folder / f"{stage.name}.jsonl").open("a") as log:
        while step < config.steps:
            numbers = _step(stage, optimiser, step)
            step += 1
            now = time.monotonic()
            if step % 20 == 0 or step == config.steps:
                numbers |= {"step": step, "seconds": round(now - started, 1)}
                log.write(json.dumps(numbers) + "\n")
                log.flush()
            if now - saved > checkpoint_seconds or step == config.steps:
                _checkpoint(stage, optimiser, step, path)
                saved = now


def _step(stage: Stage, optimiser: torch.optim.AdamW, step: int) -> dict[str, Any]:
    config = stage.train
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(
            step, peak=config.learning_rate, steps=config.steps, warmup=config.warmup
        )
    optimiser.zero_grad(set_to_none=True)
    loss, numbers = stage.loss(step, np.random.default_rng([config.seed, step]))
    torch.autograd.backward(loss)
    norm = nn.utils.clip_grad_norm_(stage.network.parameters(), config.clip)
    if math.isfinite(float(norm)):
        optimiser.step()
    rounded = {key: round(value, 4) for key, value in numbers.items()}
    return {"loss": round(float(loss.detach()), 4), "norm": round(float(norm), 3), **rounded}


def _checkpoint(stage: Stage, optimiser: torch.optim.AdamW, step: int, path: Path) -> None:
    state = {
        "network": stage.network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "extra": stage.extra_state(),
        "step": step,
    }
    save_atomically(state, path)
