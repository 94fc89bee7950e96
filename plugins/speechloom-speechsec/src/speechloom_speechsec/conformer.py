"""Conformer block with rotary positions that knows which frames are padding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom_speechsec.config import SpeechSECConfig

Rotary = tuple[Tensor, Tensor]


def rotary_table(frames: int, head_dim: int, device: torch.device) -> Rotary:
    """Cosine and sine, float32 [F, head_dim / 2] each, of rotary positions.

    Source: Su et al. 2021, RoFormer, arXiv:2104.09864; base 10000, halves instead of pairs.
    """
    half = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
    rates = 10000.0 ** (-half / head_dim)
    angles = torch.arange(frames, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn the two halves of the last axis of [..., F, head_dim] by their positions."""
    cos, sin = (table.to(x.dtype) for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class FeedForward(nn.Module):
    """Norm, widen, SiLU, narrow."""

    def __init__(self, dim: int, mult: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim * mult)
        self.out = nn.Linear(dim * mult, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F, D] to [B, F, D]."""
        return cast(Tensor, self.out(F.silu(self.inner(self.norm(x)))))


class Attention(nn.Module):
    """Attention of every frame to every real frame of its item."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotary: Rotary, real: Tensor | None) -> Tensor:
        """[B, F, D] to [B, F, D]; `real` bool [B, F] or None."""
        batch, frames, dim = x.shape
        parts = self.qkv(self.norm(x)).view(batch, frames, 3, self.heads, dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            rotate(q, rotary), rotate(k, rotary), v, attn_mask=mask
        )
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(batch, frames, dim)))


class Convolution(nn.Module):
    """Gated pointwise, depthwise over a few frames, norm, SiLU, pointwise."""

    def __init__(self, dim: int, kernel: int, expansion: int) -> None:
        super().__init__()
        inner = dim * expansion
        self.norm = nn.LayerNorm(dim)
        self.gated = nn.Linear(dim, 2 * inner)
        self.depthwise = nn.Parameter(torch.empty(kernel, inner))
        self.inner_norm = nn.LayerNorm(inner)
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor, real: Tensor | None) -> Tensor:
        """[B, F, D] to [B, F, D]; `real` bool [B, F] or None."""
        x = F.glu(self.gated(self.norm(x)))
        if real is not None:  # a frame past the end reads as the zeros outside an item do
            x = x.masked_fill(~real[..., None], 0.0)
        x = self.mix(x)
        return cast(Tensor, self.out(F.silu(self.inner_norm(x))))

    def mix(self, x: Tensor) -> Tensor:
        """Depthwise convolution [B, F, C] as shifted sums: the same numbers in every batch."""
        kernel, frames = self.depthwise.shape[0], x.shape[1]
        padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
        weight = self.depthwise.to(x.dtype)
        total = padded[:, :frames] * weight[0]
        for shift in range(1, kernel):
            total.addcmul_(padded[:, shift : shift + frames], weight[shift])
        return total


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward.

    Source: Gulati et al. 2020, Conformer, arXiv:2005.08100, section 2. We differ: rotary
    positions and LayerNorm inside the convolution (batch norm would couple items).
    """

    def __init__(self, config: SpeechSECConfig) -> None:
        super().__init__()
        self.before = FeedForward(config.dim, config.ff_mult)
        self.attention = Attention(config.dim, config.heads)
        self.convolution = Convolution(config.dim, config.conv_kernel, config.conv_expansion)
        self.after = FeedForward(config.dim, config.ff_mult)

    def forward(self, x: Tensor, rotary: Rotary, real: Tensor | None) -> Tensor:
        """[B, F, D] to [B, F, D]; `real` bool [B, F] or None when no frame is padding."""
        x = torch.add(x, self.before(x), alpha=0.5)
        x = x + self.attention(x, rotary, real)
        x = x + self.convolution(x, real)
        return torch.add(x, self.after(x), alpha=0.5)
