"""Random draws of a training: each stream is named by a purpose and by numbers, never continued.

The draws of a step depend on (seed, step, rank) alone, so a run that was killed and resumed sees
what an unbroken one would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

__all__ = ["Purpose", "numpy_generator", "seeded", "torch_generator"]


class Purpose(IntEnum):
    """What a stream is for; no two purposes share one."""

    weights = 0
    epoch = 1
    collate = 2
    loss = 3
    layers = 4
    validation = 5


def numpy_generator(purpose: Purpose, *numbers: int) -> np.random.Generator:
    """The stream of a purpose and numbers, for numpy."""
    return np.random.default_rng([int(purpose), *numbers])


def torch_generator(purpose: Purpose, *numbers: int) -> torch.Generator:
    """The stream of a purpose and numbers, for torch, on the CPU."""
    return torch.Generator().manual_seed(_seed(purpose, *numbers))


@contextmanager
def seeded(device: torch.device, purpose: Purpose, *numbers: int) -> Iterator[None]:
    """Seed torch's global generators, which dropout and initial weights draw from, for a while."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(_seed(purpose, *numbers))
        yield


def _seed(purpose: Purpose, *numbers: int) -> int:
    word = np.random.SeedSequence([int(purpose), *numbers]).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))
