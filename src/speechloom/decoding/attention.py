"""Attention of all frames to all frames, by whatever is fastest where it runs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["attend"]

QUERIES = 512
"""Rows of scores that are held at once, if these are few enough."""

SCORES = 1 << 23
"""Numbers that are held at once, in all heads: 16 MiB, what a cache of some cores holds."""


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, faster in bfloat16 on a CPU.

    There torch multiplies by another library than in its linear layers. By those products, one
    block of scores after the other, 500 frames take half of the time and 1500 three quarters (8
    heads of 64, two threads of an AMD Zen 4). The scores are rounded to bfloat16 once more, which
    is what this number format costs everywhere else too.

    Args:
        q: [B, H, F, D].
        k: [B, H, S, D].
        v: [B, H, S, D].
        mask: bool, broadcast to [B, H, F, S], False where nothing is to be heard; or None. Each
            row hears something.

    Returns:
        [B, H, F, D].
    """
    # A compiled network brings its own products, and blocks would tie it to one length.
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    keys = (k / math.sqrt(q.shape[-1])).transpose(-1, -2)
    allowed = None if mask is None else mask.expand(*q.shape[:-1], k.shape[-2])

    def mix(rows: slice) -> Tensor:
        scores = torch.matmul(q[..., rows, :], keys)
        if allowed is not None:
            scores = scores.masked_fill(~allowed[..., rows, :], -math.inf)
        return torch.matmul(scores.softmax(-1), v)

    blocks = _blocks(q.shape[-2], q.shape[:2].numel() * k.shape[-2])
    if len(blocks) == 1:
        return mix(blocks[0])
    mixed = q.new_empty(q.shape)
    for rows in blocks:
        mixed[..., rows, :] = mix(rows)
    return mixed


def _blocks(frames: int, scores: int) -> list[slice]:
    """Rows by blocks; each has `scores` numbers."""
    size = max(1, min(QUERIES, SCORES // max(1, scores)))
    return [slice(start, start + size) for start in range(0, frames, size)]
