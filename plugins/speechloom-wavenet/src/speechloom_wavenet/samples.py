"""Between recordings and what the network sees of them: gain and pre-emphasis."""

from __future__ import annotations

import torch
from torch import Tensor

from speechloom_wavenet.config import WaveNetConfig

__all__ = ["deemphasized", "from_network", "to_network"]

BLOCK = 256
"""Samples whose filtering is one matrix product."""


def to_network(config: WaveNetConfig, samples: Tensor) -> Tensor:
    """Filter, amplify and clip samples [T] to [-1, 1]."""
    before = torch.nn.functional.pad(samples[:-1], (1, 0))
    return ((samples - config.preemphasis * before) * config.gain).clamp(-1, 1)


def from_network(config: WaveNetConfig, samples: Tensor) -> Tensor:
    """Undo `to_network` for samples [T], but for the clipping."""
    return deemphasized(samples / config.gain, config.preemphasis)


def deemphasized(samples: Tensor, factor: float) -> Tensor:
    """The y of y[t] = x[t] + k y[t-1], float32 [T].

    By blocks: within one, a product with the matrix of the powers of k.

    Args:
        samples: x, float [T].
        factor: k, below 1.
    """
    if factor == 0:
        return samples.float()
    steps = torch.arange(BLOCK, dtype=torch.float64)
    behind = steps[:, None] - steps
    response = torch.where(behind >= 0, factor ** behind.clamp(min=0), 0.0)
    decay = factor ** (steps + 1)
    whole = torch.nn.functional.pad(samples.double(), (0, -len(samples) % BLOCK))
    blocks, last = whole.reshape(-1, BLOCK) @ response.T, torch.zeros((), dtype=torch.float64)
    for block in blocks:
        block += decay * last
        last = block[-1]
    return blocks.reshape(-1)[: len(samples)].float()
