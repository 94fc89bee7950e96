"""The layers by torch's own operations, on any device: the definition of the others."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.ops.layers.protocol import Rotary, check_end

__all__ = ["TorchLayers", "rotate"]

QUERIES = 512
"""Rows of scores that are held at once, if these are few enough."""

SCORES = 1 << 23
"""Numbers that are held at once, in all heads: 16 MiB, what a cache of some cores holds."""


@dataclass(frozen=True)
class TorchLayers:
    """Layers whose every operation is torch's. See `speechloom.ops.layers.Layers`.

    Attributes:
        dtype: of matrix products and attention.
        packed: weights are in oneDNN's layout.
    """

    dtype: torch.dtype
    packed: bool = False
    rows_alone = False

    def together(self) -> AbstractContextManager[None]:
        """See `Layers.together`."""
        return nullcontext()

    def linear(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        end: str = "none",
        result: torch.dtype | None = None,
    ) -> TorchLinear:
        """Lay out a weight [O, I] and a bias [O]; see `Layers.linear`."""
        check_end(end, len(weight))
        weight, bias = weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
        if self.packed:
            weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        return TorchLinear(weight, bias, self.packed, end, result or self.dtype)

    def norm(
        self,
        gain: Tensor,
        bias: Tensor | None = None,
        *,
        epsilon: float = 1e-5,
        centred: bool = True,
        result: torch.dtype | None = None,
    ) -> TorchNorm:
        """Lay out a norm over [..., D]; see `Layers.norm`."""
        return TorchNorm(gain, bias, epsilon, centred, result or self.dtype)

    def convolution(
        self,
        taps: Tensor,
        tap_bias: Tensor | None,
        norm: TorchNorm,
        *,
        silu_first: bool = False,
    ) -> TorchConvolution:
        """Lay out taps [T, C] with a norm; see `Layers.convolution`."""
        return TorchConvolution(taps, tap_bias, norm, silu_first)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Heads [B, H, F, D] to [B, F, H D]; see `Layers.attend`."""
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        return _attend(q, k, v, mask).transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class TorchLinear:
    """A linear layer and what comes after it; see `Layers.linear`.

    Attributes:
        weight: [O, I], or oneDNN's own layout of it.
        bias: [O] or None.
        packed: the weight is in oneDNN's layout.
        end: what is done to the product.
        result: type of what is returned.
    """

    weight: Tensor
    bias: Tensor | None
    packed: bool
    end: str
    result: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        product = self._product(x.to(self.weight.dtype))
        if self.end == "silu":
            product = F.silu(product, inplace=True)
        elif self.end == "glu":
            product = F.glu(product)
        elif self.end == "swiglu":
            value, gate = product.chunk(2, dim=-1)
            product = F.silu(gate).mul_(value)
        return product.to(self.result)

    def add_to(self, target: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add the scaled result for [..., I] to float32 [..., O]."""
        target.add_(self(x), alpha=scale)

    def _product(self, x: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x, self.weight, self.bias)
        product = torch.ops.mkldnn._linear_pointwise
        result: Tensor = product(x, self.weight, self.bias, "none", [], "")
        return result


@dataclass(frozen=True)
class TorchNorm:
    """A norm over the last axis; see `Layers.norm`."""

    gain: Tensor
    bias: Tensor | None
    epsilon: float
    centred: bool
    result: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return self.of(x).to(self.result)

    def of(self, x: Tensor) -> Tensor:
        """The same in the input's own type."""
        shape = self.gain.shape
        if self.centred:
            return F.layer_norm(x, shape, self.gain, self.bias, self.epsilon)
        scaled = F.rms_norm(x, shape, self.gain, self.epsilon)
        return scaled if self.bias is None else scaled + self.bias


@dataclass(frozen=True)
class TorchConvolution:
    """A depthwise convolution with its norm and SiLU; see `Layers.convolution`."""

    taps: Tensor
    tap_bias: Tensor | None
    norm: TorchNorm
    silu_first: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 [B, F, C] to [B, F, C]."""
        mixed = self._mix(x)
        if self.silu_first:
            mixed = self.norm.of(F.silu(mixed, inplace=True))
        else:
            mixed = F.silu(self.norm.of(mixed), inplace=True)
        return mixed.to(self.norm.result)

    def _mix(self, x: Tensor) -> Tensor:
        """The convolution as shifted sums: the same numbers in every batch."""
        kernel, frames = len(self.taps), x.shape[1]
        padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
        parts = [padded[:, shift : shift + frames] for shift in range(kernel)]
        if self.tap_bias is None:
            total = parts[0] * self.taps[0]
        else:
            total = torch.addcmul(self.tap_bias, parts[0], self.taps[0])
        for part, tap in zip(parts[1:], self.taps[1:], strict=True):
            total.addcmul_(part, tap)
        return total


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turn the two halves of the last axis of [..., F, D] by their positions."""
    cos, sin = (table.to(x.dtype) for table in rotary)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`scaled_dot_product_attention`, faster in bfloat16 on a CPU.

    There torch multiplies by another library than in its linear layers. By those products, one
    block of scores after the other, 500 frames take half of the time and 1500 three quarters (8
    heads of 64, two threads of an AMD Zen 4). The scores are rounded to bfloat16 once more, which
    is what this number format costs everywhere else too.
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
