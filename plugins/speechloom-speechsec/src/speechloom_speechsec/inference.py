"""A SpeechSEC network laid out for decoding: the same numbers, less work around the products."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.decoding import Execution
from speechloom.decoding.attention import attend
from speechloom_speechsec.conformer import (
    Attention,
    ConformerBlock,
    Convolution,
    FeedForward,
    Rotary,
    rotary_table,
    rotate,
)
from speechloom_speechsec.model import SpeechSEC

Scratch = Tensor
"""Flat memory for the results of linear layers, used again by each of them; see `_place`."""


class InferenceSpeechSEC:
    """Hidden states of a SpeechSEC network, as fast as an `Execution` allows.

    In float32 without prepacked or compiled weights the states equal `SpeechSEC.hidden` bit for
    bit. Weights are laid out once, here: change the network, and make a new one.

    Args:
        model: the network; its parameters are used, not copied, where the layout allows.
        execution: number format and layout.
    """

    def __init__(self, model: SpeechSEC, execution: Execution) -> None:
        self.model = model
        self.execution = execution
        self._blocks = [_Block(block, execution) for block in _blocks_of(model)]
        self._run_blocks = execution.compiled(self._blocks_in_turn)
        self._rotary: dict[int, Rotary] = {}

    def hidden(
        self, codes: Tensor, level: int, cond: Tensor, lengths: Tensor | None = None
    ) -> Tensor:
        """Run the network over a padded batch.

        Args:
            codes: int64 [B, K, F], the mask id where a code is unknown.
            level: the level to predict.
            cond: float32 [B, F, D] of `SpeechSEC.embed_condition`.
            lengths: int64 [B], real frames per item; None when no frame is padding.

        Returns:
            float32 [B, F, D]; rows past an item's length mean nothing.
        """
        x = self.model.embed(codes, level, cond)
        frames = codes.shape[-1]
        real = None
        if lengths is not None:
            real = torch.arange(frames, device=codes.device) < lengths[:, None]
        return self._run_blocks(x, self._rotary_of(frames, codes.device), real)

    def hidden_each(self, codes: Tensor, level: int, cond: Tensor, lengths: Tensor) -> Tensor:
        """Run the items one by one; same arguments and result as `hidden`.

        An item then meets the same matrix shapes alone and in any batch, so that its numbers are
        equal bit for bit, and nothing is spent on padding. On a CPU the products of one item of
        some hundred frames run as fast as those of a whole batch; on a GPU use `hidden`. Rows
        past the length are zero.
        """
        result = cond.new_zeros(cond.shape)
        for item, length in enumerate(lengths.tolist()):
            one = slice(item, item + 1)
            result[one, :length] = self.hidden(codes[one, :, :length], level, cond[one, :length])
        return result

    def _blocks_in_turn(self, x: Tensor, rotary: Rotary, real: Tensor | None) -> Tensor:
        scratch = None if self.execution.compile else self._scratch(x)
        for block in self._blocks:
            block.run(x, rotary, real, scratch)
        return cast(Tensor, self.model.norm(x))

    def _scratch(self, x: Tensor) -> Scratch:
        """Fresh for each run, so that threads may share a network."""
        rows, width = x.shape[0] * x.shape[1], max(block.width for block in self._blocks)
        return torch.empty(rows * width, dtype=self.execution.dtype, device=x.device)

    def _rotary_of(self, frames: int, device: torch.device) -> Rotary:
        """A table of the next power of two, kept for good: captured graphs read from it."""
        size = 1 << max(frames - 1, 1).bit_length()
        if size not in self._rotary:
            config = self.model.config
            self._rotary[size] = rotary_table(size, config.dim // config.heads, device)
        cos, sin = self._rotary[size]
        return cos[:frames], sin[:frames]


def _blocks_of(model: SpeechSEC) -> list[ConformerBlock]:
    return [block for block in model.blocks if isinstance(block, ConformerBlock)]


def _place(scratch: Scratch | None, rows: int, width: int) -> Tensor | None:
    """The first `rows` x `width` numbers of the scratch memory, as a matrix."""
    return None if scratch is None else scratch[: rows * width].view(rows, width)


class _Block:
    """A `ConformerBlock` that changes its input in place."""

    def __init__(self, block: ConformerBlock, execution: Execution) -> None:
        self.before = _FeedForward(block.before, execution)
        self.attention = _Attention(block.attention, execution)
        self.convolution = _Convolution(block.convolution, execution)
        self.after = _FeedForward(block.after, execution)
        parts = (self.before, self.attention, self.convolution, self.after)
        self.width = max(part.width for part in parts)

    def run(self, x: Tensor, rotary: Rotary, real: Tensor | None, scratch: Scratch | None) -> None:
        """Change [B, F, D]; `real` bool [B, F] or None when no frame is padding."""
        x.add_(self.before(x, scratch), alpha=0.5)
        x.add_(self.attention(x, rotary, real, scratch))
        x.add_(self.convolution(x, real, scratch))
        x.add_(self.after(x, scratch), alpha=0.5)


class _FeedForward:
    def __init__(self, layer: FeedForward, execution: Execution) -> None:
        self.norm = layer.norm
        self.inner = execution.linear(layer.inner.weight, layer.inner.bias)
        self.out = execution.linear(layer.out.weight, layer.out.bias)
        self.width = layer.inner.out_features

    def __call__(self, x: Tensor, scratch: Scratch | None) -> Tensor:
        rows = self.norm(x).flatten(0, 1)
        wide = self.inner(rows, _place(scratch, len(rows), self.width))
        return self.out(F.silu(wide, inplace=True)).view(x.shape)


class _Attention:
    def __init__(self, layer: Attention, execution: Execution) -> None:
        self.norm = layer.norm
        self.heads = layer.heads
        self.qkv = execution.linear(layer.qkv.weight, layer.qkv.bias)
        self.out = execution.linear(layer.out.weight, layer.out.bias)
        self.width = layer.qkv.out_features

    def __call__(
        self, x: Tensor, rotary: Rotary, real: Tensor | None, scratch: Scratch | None
    ) -> Tensor:
        batch, frames, dim = x.shape
        rows = self.norm(x).flatten(0, 1)
        parts = self.qkv(rows, _place(scratch, len(rows), self.width))
        parts = parts.view(batch, frames, 3, self.heads, dim // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None, :]
        mixed = attend(rotate(q, rotary), rotate(k, rotary), v, mask)
        return self.out(mixed.transpose(1, 2).reshape(rows.shape)).view(x.shape)


class _Convolution:
    def __init__(self, layer: Convolution, execution: Execution) -> None:
        self.layer = layer
        self.gated = execution.linear(layer.gated.weight, layer.gated.bias)
        self.out = execution.linear(layer.out.weight, layer.out.bias)
        self.width = layer.gated.out_features

    def __call__(self, x: Tensor, real: Tensor | None, scratch: Scratch | None) -> Tensor:
        rows = self.layer.norm(x).flatten(0, 1)
        gated = self.gated(rows, _place(scratch, len(rows), self.width))
        inner = F.glu(gated).float().view(*x.shape[:2], -1)
        if real is not None:
            inner = inner.masked_fill(~real[..., None], 0.0)
        inner = self.layer.inner_norm(self.layer.mix(inner)).flatten(0, 1)
        return self.out(F.silu(inner, inplace=True)).view(x.shape)
