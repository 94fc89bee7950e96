"""Moving batches to where the network is."""

from __future__ import annotations

import torch
from torch import Tensor

from speechloom.training.learner import Batch

__all__ = ["moved"]


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same batch with its tensors on a device; what is no tensor stays."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
