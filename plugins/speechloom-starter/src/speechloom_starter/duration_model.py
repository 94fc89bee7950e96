"""How long each phone lasts."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from speechloom_starter.blocks import ConvNeXtStack, length_mask
from speechloom_starter.phones import PHONES

MEAN_LOG_FRAMES = 1.4
"""Of all phones at 50 Hz; the network learns the deviation from it."""


class DurationConfig(BaseModel):
    """Sizes of the duration network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 192
    depth: int = 5
    kernel: int = 7
    expansion: int = 3
    phones: int = len(PHONES)

    @classmethod
    def tiny(cls) -> DurationConfig:
        """A network small enough for a unit test."""
        return cls(width=16, depth=1)


class DurationModel(nn.Module):
    """Phones to the natural logarithm of their frames, by convolutions over the phones."""

    def __init__(self, config: DurationConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.phones, config.width)
        self.stack = ConvNeXtStack(config.width, config.depth, config.kernel, config.expansion)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, 1)

    def forward(self, phones: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-frames float32 [B, N] of ``phones`` int64 [B, N]; ``lengths`` int64 [B] of phones."""
        mask = length_mask(lengths, phones.shape[1])
        hidden = self.stack(self.embed(phones), mask)
        deviation: Tensor = self.out(self.norm(hidden))[..., 0].float()
        return deviation + MEAN_LOG_FRAMES

    @torch.no_grad()
    def frames(self, phones: Tensor, rate: float = 1.0, lengths: Tensor | None = None) -> Tensor:
        """Whole frames int64 [B, N], at least 1 each, for speech ``rate`` times as fast.

        The rounding error is carried from phone to phone, so that the sum stays true.
        """
        exact = self(phones, lengths).double().exp() / rate
        if lengths is not None:
            exact = exact * (torch.arange(phones.shape[1], device=phones.device) < lengths[:, None])
        ends = exact.cumsum(1).round().long()
        frames = torch.diff(ends, dim=1, prepend=torch.zeros_like(ends[:, :1]))
        short = (frames < 1) if lengths is None else (frames < 1) & (exact > 0)
        return torch.where(short, torch.ones_like(frames), frames)
