"""Convolution blocks over frames or phones, and the seeded start of networks made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["ConvNeXtBlock", "ConvNeXtStack", "build_seeded", "initialise_", "length_mask"]

Network = TypeVar("Network", bound=nn.Module)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over time, then a two-layer perceptron on each frame.

    After Liu et al. 2022 (arXiv:2201.03545), in one dimension, on [B, F, D].
    """

    def __init__(self, width: int, kernel: int = 7, expansion: int = 3, scale: float = 0.2) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, width * expansion)
        self.narrow = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map [B, F, D] to [B, F, D]; frames where ``mask`` [B, F, 1] is 0 count as silence."""
        if mask is not None:
            x = x * mask
        # The depthwise convolution is bound by memory: it is faster in float32 than under autocast.
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.mix(x.float().transpose(1, 2)).transpose(1, 2)
        hidden = torch.nn.functional.gelu(self.widen(self.norm(mixed)))
        return torch.addcmul(x, self.scale, self.narrow(hidden).to(x.dtype))


class ConvNeXtStack(nn.Module):
    """A row of blocks. Each output frame sees ``reach_frames`` frames to either side."""

    def __init__(self, width: int, depth: int, kernel: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.reach_frames = depth * (kernel // 2)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, kernel, expansion) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map [B, F, D] to [B, F, D]."""
        for block in self.blocks:
            x = block(x, mask)
        return x


def length_mask(lengths: Tensor | None, frames: int) -> Tensor | None:
    """Mask float [B, F, 1] of the frames that exist, from ``lengths`` int64 [B]."""
    if lengths is None:
        return None
    positions = torch.arange(frames, device=lengths.device)
    return (positions < lengths[:, None])[..., None].float()


@torch.no_grad()
def initialise_(module: nn.Module, seed: int) -> None:
    """Draw all weight matrices from ``seed``; vectors keep the value of their constructor."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            fan_in = parameter[0].numel()
            parameter.normal_(0.0, math.sqrt(1.0 / fan_in), generator=generator)
        elif name.endswith("bias"):
            parameter.zero_()


def build_seeded(make: Callable[[], Network], seed: int) -> Network:
    """Construct a network with weights from ``seed``; torch's global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        network = make()
    initialise_(network, seed)
    return network
