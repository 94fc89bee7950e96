"""A SpeechSEC network laid out for decoding: the same numbers, less work around the products."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from speechloom.decoding import Execution, FrameMemory
from speechloom.ops.layers import Layers, Norm, Rotary
from speechloom_speechsec.conformer import (
    Attention,
    ConformerBlock,
    Convolution,
    FeedForward,
    rotary_table,
)
from speechloom_speechsec.model import SpeechSEC


class InferenceSpeechSEC:
    """Hidden states of a SpeechSEC network, as fast as an `Execution` allows.

    In float32 with torch's own layers, not compiled, the states equal `SpeechSEC.hidden` bit for
    bit. Weights are laid out once, here: change the network, and make a new one.

    Args:
        model: the network; its parameters are used, not copied, where the layout allows.
        execution: number format and layers.
    """

    def __init__(self, model: SpeechSEC, execution: Execution) -> None:
        self.model = model
        self.execution = execution
        self._layers = make = execution.layers
        self._blocks = [_Block(block, make) for block in _blocks_of(model)]
        self._norm = _norm(model.norm, make, result=torch.float32)
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

    def hidden_at(
        self,
        codes: Tensor,
        level: int,
        cond: Tensor,
        frames: Tensor,
        *,
        memory: FrameMemory | None = None,
    ) -> Tensor:
        """Run the network over one item, for some of its frames.

        An item then meets the same matrix shapes alone and in any batch, so that its numbers are
        equal bit for bit, and nothing is spent on padding. On a CPU the products of one item of
        some hundred frames run as fast as those of a whole batch; on a GPU use `hidden`. Layers
        whose rows stand alone compute at the end only what is asked for, and at the start only
        what the memory does not hold; the numbers are those of `hidden`.

        Args:
            codes: int64 [K, F], the mask id where a code is unknown.
            level: the level to predict.
            cond: float32 [F, D] of `SpeechSEC.embed_condition`.
            frames: int64 [N], the frames that are asked for.
            memory: of this item under this condition, at each level its own; None for no memory.

        Returns:
            float32 [N, D].
        """
        if not self._layers.rows_alone:
            return self.hidden(codes[None], level, cond[None])[0, frames]
        first = self._blocks[0]

        def begin(changed: Tensor) -> tuple[Tensor, Tensor]:
            x = self.model.embed(codes[None, :, changed], level, cond[None, changed])
            with self._layers.together():
                parts = first.begin(x)
            return x[0], parts[0]

        x, parts = (memory or FrameMemory())(codes, begin, key=level)
        x = x.clone()[None]  # the blocks change it, and the memory must not
        rotary = self._rotary_of(codes.shape[-1], codes.device)
        return self._after_begin(x, parts[None], rotary, wanted=frames)[0]

    def _blocks_in_turn(self, x: Tensor, rotary: Rotary, real: Tensor | None) -> Tensor:
        return self._after_begin(x, self._blocks[0].begin(x), rotary, real)

    def _after_begin(
        self,
        x: Tensor,
        parts: Tensor,
        rotary: Rotary,
        real: Tensor | None = None,
        wanted: Tensor | None = None,
    ) -> Tensor:
        """All that follows the first block's `begin`; the last block gives the wanted frames."""
        *others, last = self._blocks
        for block, following in zip(others, self._blocks[1:], strict=True):
            with self._together(real):
                block.finish(x, block.mix(x, parts, rotary, real))
                parts = following.begin(x)
        with self._together(real):
            mixed = last.mix(x, parts, rotary, real)
        if wanted is not None:
            x, mixed = x[:, wanted], mixed[:, wanted]
        with self._layers.together():
            last.finish(x, mixed)
            return self._norm(x)

    def _together(self, real: Tensor | None) -> AbstractContextManager[None]:
        """Between the layers of a block there is nothing but what hides padding."""
        return self._layers.together() if real is None else nullcontext()

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


def _norm(norm: nn.LayerNorm, make: Layers, result: torch.dtype | None = None) -> Norm:
    return make.norm(norm.weight, norm.bias, epsilon=norm.eps, result=result)


class _Block:
    """A `ConformerBlock` in three parts that change their input [B, F, D] in place."""

    def __init__(self, block: ConformerBlock, make: Layers) -> None:
        self.before = _FeedForward(block.before, make)
        self.attention = _Attention(block.attention, make)
        self.convolution = _Convolution(block.convolution, make)
        self.after = _FeedForward(block.after, make)

    def begin(self, x: Tensor) -> Tensor:
        """What each frame does by itself; returns queries, keys and values [B, F, 3 D]."""
        self.before.add_to(x)
        return self.attention.project(x)

    def mix(self, x: Tensor, parts: Tensor, rotary: Rotary, real: Tensor | None) -> Tensor:
        """What a frame hears of the others.

        Args:
            x: float32 [B, F, D], changed.
            parts: of `begin`.
            rotary: positions of the frames.
            real: bool [B, F], or None when no frame is padding.

        Returns:
            [B, F, C], which `finish` takes.
        """
        self.attention.add_to(x, parts, rotary, real)
        return self.convolution.mix(x, real)

    def finish(self, x: Tensor, mixed: Tensor) -> None:
        """The rest of the block, again each frame by itself; changes [B, F, D]."""
        self.convolution.out.add_to(x, mixed)
        self.after.add_to(x)


class _FeedForward:
    def __init__(self, layer: FeedForward, make: Layers) -> None:
        self.norm = _norm(layer.norm, make)
        self.inner = make.linear(layer.inner.weight, layer.inner.bias, end="silu")
        self.out = make.linear(layer.out.weight, layer.out.bias)

    def add_to(self, x: Tensor) -> None:
        self.out.add_to(x, self.inner(self.norm(x)), scale=0.5)


class _Attention:
    def __init__(self, layer: Attention, make: Layers) -> None:
        self.norm, self.heads = _norm(layer.norm, make), layer.heads
        self.qkv = make.linear(layer.qkv.weight, layer.qkv.bias)
        self.out = make.linear(layer.out.weight, layer.out.bias)
        self.attend = make.attend

    def project(self, x: Tensor) -> Tensor:
        return self.qkv(self.norm(x))

    def add_to(self, x: Tensor, parts: Tensor, rotary: Rotary, real: Tensor | None) -> None:
        batch, frames, dim = x.shape
        heads = parts.view(batch, frames, 3, self.heads, dim // self.heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None, :]
        self.out.add_to(x, self.attend(q, k, v, mask=mask, rotary=rotary))


class _Convolution:
    def __init__(self, layer: Convolution, make: Layers) -> None:
        self.norm = _norm(layer.norm, make)
        self.gated = make.linear(
            layer.gated.weight, layer.gated.bias, end="glu", result=torch.float32
        )
        self.inner = make.convolution(layer.depthwise, None, _norm(layer.inner_norm, make))
        self.out = make.linear(layer.out.weight, layer.out.bias)

    def mix(self, x: Tensor, real: Tensor | None) -> Tensor:
        """What `out` takes; `real` bool [B, F] or None when no frame is padding."""
        gated = self.gated(self.norm(x))
        if real is not None:
            gated = gated.masked_fill(~real[..., None], 0.0)
        return self.inner(gated)
