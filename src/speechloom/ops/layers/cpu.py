"""The layers as compiled loops on a CPU, with everything between two products fused into them.

A row's result does not depend on the rows beside it, bit for bit: rows may be left out, and items
joined. See `README.md`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numba
import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.errors import UsageError
from speechloom.ops.layers import kernels
from speechloom.ops.layers.protocol import Rotary, check_end
from speechloom.ops.layers.torch_layers import TorchLayers
from speechloom.ops.native import Call, flush, together

__all__ = ["CompiledLayers", "available"]

HALF = torch.bfloat16
ENDS = {
    "none": kernels.PLAIN,
    "silu": kernels.SILU,
    "glu": kernels.GLU,
    "swiglu": kernels.SWIGLU,
}


def available(dtype: torch.dtype) -> str | None:
    """Why the loops cannot be used in a number format and what to do about it; None if they can."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined] # set when numba is imported
        return "NUMBA_DISABLE_JIT is set; unset it."
    has = kernels.features()
    if not ({"avx512f"} <= has or {"avx2", "fma"} <= has):
        return "they need a processor with AVX2; use layers='torch'."
    if dtype == torch.float32:
        return None
    if dtype == HALF and {"avx512bf16", "avx512f"} <= has:
        return None
    return f"they need a processor that multiplies {dtype}; use another precision."


@dataclass(frozen=True)
class CompiledLayers:
    """Compiled layers. See `speechloom.ops.layers.Layers`.

    Attributes:
        dtype: float32 or bfloat16; sums are float32 in both.
    """

    dtype: torch.dtype
    rows_alone = True

    def together(self) -> AbstractContextManager[None]:
        """See `Layers.together`."""
        return together()

    def linear(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        end: str = "none",
        result: torch.dtype | None = None,
    ) -> CompiledLinear:
        """Lay out a weight [O, I] and a bias [O]; see `Layers.linear`.

        Raises:
            UsageError: there is no such end, or they do not fit or are not on the CPU.
        """
        _check("weight", weight, None, None)
        check_end(end, len(weight))
        if not weight.shape[1]:
            raise UsageError(f"`weight` [O, I] must have an input, but is {[*weight.shape]}.")
        return CompiledLinear(weight, bias, end, self.dtype, _check_result(result or self.dtype))

    def norm(
        self,
        gain: Tensor,
        bias: Tensor | None = None,
        *,
        epsilon: float = 1e-5,
        centred: bool = True,
        result: torch.dtype | None = None,
    ) -> CompiledNorm:
        """Lay out a norm over [..., D]; see `Layers.norm`.

        Raises:
            UsageError: gain and bias do not fit or are not on the CPU.
        """
        _check("gain", gain, None)
        return CompiledNorm(gain, bias, epsilon, centred, _check_result(result or self.dtype))

    def convolution(
        self,
        taps: Tensor,
        tap_bias: Tensor | None,
        norm: CompiledNorm,
        *,
        silu_first: bool = False,
    ) -> CompiledConvolution:
        """Lay out taps [T, C] with a norm; see `Layers.convolution`.

        Raises:
            UsageError: there is no tap, or they do not fit or are not on the CPU.
        """
        _check("taps", taps, None, norm.columns)
        if not len(taps):
            raise UsageError(f"`taps` [T, C] must have a tap, but is {[*taps.shape]}.")
        return CompiledConvolution(taps, tap_bias, norm, silu_first)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Heads [B, H, F, D] to [B, F, H D], with a mask by torch; see `Layers.attend`.

        Raises:
            UsageError: the tables of positions do not fit.
        """
        batch, heads, frames, dim = q.shape
        # Heads of an odd number of values, or queries of other frames than the keys, are nobody's.
        is_usual = dim % 2 == 0 and q.shape == k.shape == v.shape and q.numel() > 0
        is_here = all(x.device.type == "cpu" for x in (q, k, v))
        if mask is not None or not is_usual or not is_here:
            flush()
            return TorchLayers(self.dtype).attend(q, k, v, mask=mask, rotary=rotary)
        for table in rotary or ():
            _check("rotary", table[:frames], frames, dim // 2)
        result = torch.empty(batch, frames, heads * dim, dtype=self.dtype)
        for item in range(batch):
            _attend_item(q[item], k[item], v[item], rotary, result[item])
        return result


class CompiledLinear:
    """A linear layer in panels; see `Layers.linear`."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        end: str,
        dtype: torch.dtype,
        result: torch.dtype,
    ) -> None:
        self.dtype, self.result = dtype, result
        self.inputs = weight.shape[1]
        self.is_odd = dtype == HALF and self.inputs % 2 == 1
        gated = end in ("glu", "swiglu")
        self.outputs = len(weight) // 2 if gated else len(weight)
        bias = torch.zeros(len(weight)) if bias is None else bias
        _check("bias", bias, len(weight))
        rows = torch.cat((weight, bias[:, None]), 1).detach().float()
        panels = _interleave(rows) if gated else _whole_panels(rows)
        self.weight = _lay_out(panels[:, : self.inputs], dtype)
        self.bias = panels[:, self.inputs].contiguous()
        self.steps = -(-self.inputs // 2) if dtype == HALF else self.inputs
        fixed = {
            "half": dtype == HALF,
            "columns": self.outputs,
            "panels": len(panels) // kernels.PANEL,
            "steps": self.steps,
        }
        self._make = kernels.LINEAR.bound(**fixed, end=ENDS[end], half_out=result == HALF)
        self._add = kernels.LINEAR.bound(**fixed, end=kernels.ADD)
        self._can_add = end == "none"

    def __call__(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        _check_last(x, self.inputs)
        result = torch.empty(*x.shape[:-1], self.outputs, dtype=self.result)
        self._run(self._make, x, result)
        return result

    def add_to(self, target: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add the scaled result for [..., I] to float32 [..., O], in place."""
        if self._can_add and self._is_place(target, x):
            _check_last(x, self.inputs)
            self._run(self._add, x, target, scale=scale)
        else:
            result = self(x)
            flush()
            target.add_(result, alpha=scale)

    def _is_place(self, target: Tensor, x: Tensor) -> bool:
        """Whether the loops can add to it while they read the rows."""
        fits = target.shape == (*x.shape[:-1], self.outputs) and target.dtype == torch.float32
        apart = target.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
        return fits and apart and target.is_contiguous() and target.device.type == "cpu"

    def _run(self, call: Call, x: Tensor, out: Tensor, **fields: float) -> None:
        if x.dim() != 2 or x.dtype != self.dtype or x.stride(1) != 1 or self.is_odd:
            x = self._in_rows(x)
        rows, row_stride = len(x), x.stride(0)
        call(
            kernels.scratch_bytes(0),
            x,
            out,
            self.weight,
            self.bias,
            weight=self.weight.data_ptr(),
            bias=self.bias.data_ptr(),
            x=x.data_ptr(),
            x_stride=row_stride * x.element_size(),
            out=out.data_ptr(),
            out_stride=self.outputs * out.element_size(),
            rows=rows,
            **fields,
        )

    def _in_rows(self, x: Tensor) -> Tensor:
        """Rows as the loops read them, of pairs in bfloat16."""
        if x.dtype != self.dtype or not x.is_contiguous() or self.is_odd:
            flush()
        x = x.to(self.dtype).reshape(-1, self.inputs)
        if self.is_odd:
            x = F.pad(x, (0, 1))
        return x if x.stride(1) == 1 else x.contiguous()


def _whole_panels(rows: Tensor) -> Tensor:
    """Rows [O, I], one for an output, and zeros up to whole panels."""
    return F.pad(rows, (0, 0, 0, -len(rows) % kernels.PANEL))


def _interleave(rows: Tensor) -> Tensor:
    """The same for gates: each panel has some values and, behind them, their gates."""
    width = kernels.PANEL // 2
    both = rows.view(2, -1, rows.shape[1])  # values, gates
    both = F.pad(both, (0, 0, 0, -both.shape[1] % width))
    return both.view(2, -1, width, rows.shape[1]).transpose(0, 1).reshape(-1, rows.shape[1])


def _lay_out(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights in the order in which the loops read them: panel, inputs (or pairs), outputs."""
    unit = 2 if dtype == HALF else 1
    rows = F.pad(rows.to(dtype), (0, -rows.shape[1] % unit))
    panels = rows.reshape(-1, kernels.PANEL, rows.shape[1] // unit, unit)
    return panels.transpose(1, 2).contiguous()


class CompiledNorm:
    """A norm over the last axis; see `Layers.norm`."""

    def __init__(
        self,
        gain: Tensor,
        bias: Tensor | None,
        epsilon: float,
        centred: bool,
        result: torch.dtype,
    ) -> None:
        bias = torch.zeros(len(gain)) if bias is None else bias
        _check("bias", bias, len(gain))
        self.gain, self.bias = _plain(gain), _plain(bias)
        self.result, self.columns = result, len(gain)
        self.fixed = {
            "epsilon": epsilon,
            "columns": len(gain),
            "half_out": result == HALF,
            "centred": centred,
        }
        self._scratch = kernels.scratch_bytes(len(gain), 1)
        self._call = kernels.NORM.bound(**self.fixed)

    def addresses(self) -> dict[str, int]:
        """Where its numbers are."""
        return {"gain": self.gain.data_ptr(), "bias": self.bias.data_ptr()}

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 [..., D] to [..., D]."""
        _check_last(x, self.columns)
        x = _whole_rows(x)
        result = torch.empty(x.shape, dtype=self.result)
        self._call(
            self._scratch,
            *(x, result, self.gain, self.bias),
            **self.addresses(),
            x=x.data_ptr(),
            out=result.data_ptr(),
            rows=x.shape[:-1].numel(),
        )
        return result


class CompiledConvolution:
    """A depthwise convolution with its norm and SiLU; see `Layers.convolution`."""

    def __init__(
        self, taps: Tensor, tap_bias: Tensor | None, norm: CompiledNorm, silu_first: bool
    ) -> None:
        tap_bias = torch.zeros(norm.columns) if tap_bias is None else tap_bias
        _check("tap_bias", tap_bias, norm.columns)
        self.taps, self.tap_bias, self.norm = _plain(taps), _plain(tap_bias), norm
        self._scratch = kernels.scratch_bytes(norm.columns, 2)
        self._call = kernels.CONVOLVE.bound(**norm.fixed, kernel=len(taps), silu_first=silu_first)

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 [B, F, C] to [B, F, C]."""
        _check("x", x, None, None, self.norm.columns)
        x = _whole_rows(x)
        result = torch.empty(x.shape, dtype=self.norm.result)
        kept = (x, result, self.taps, self.tap_bias, self.norm.gain, self.norm.bias)
        for item, out in zip(x, result, strict=True):
            self._call(
                self._scratch,
                *kept,
                **self.norm.addresses(),
                taps=self.taps.data_ptr(),
                tap_bias=self.tap_bias.data_ptr(),
                x=item.data_ptr(),
                out=out.data_ptr(),
                rows=len(item),
            )
        return result


_ZEROS = torch.zeros(kernels.PANEL)
_PACK = kernels.PACK_HEADS.bound()
_ATTEND = kernels.ATTEND.bound(zeros=_ZEROS.data_ptr())


def _attend_item(q: Tensor, k: Tensor, v: Tensor, rotary: Rotary | None, out: Tensor) -> None:
    """Attention of one item: queries, keys and values [H, F, D] to [F, H D]."""
    heads, frames, dim = q.shape
    if q.stride() != k.stride() or any(x.dtype != out.dtype or x.stride(2) != 1 for x in (q, k, v)):
        flush()
        q, k, v = (x.to(out.dtype).contiguous() for x in (q, k, v))
    tables = () if rotary is None else tuple(_plain(x[:frames]) for x in rotary)
    panel = kernels.PANEL
    sizes = (frames * dim, _whole(frames, panel) * dim, _whole(frames, 2) * _whole(dim, panel))
    room = out.new_empty(heads * sum(sizes))
    queries, size = room.data_ptr(), heads * out.element_size()
    fields = {
        "half": out.dtype == HALF,
        "queries": queries,
        "keys": queries + size * sizes[0],
        "values": queries + size * (sizes[0] + sizes[1]),
        "frames": frames,
        "heads": heads,
        "dim": dim,
    }
    size = out.element_size()
    _PACK(
        kernels.scratch_bytes(dim, 2),
        *(q, k, v, room, *tables),
        **fields,
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        head_stride=q.stride(0) * size,
        row_stride=q.stride(1) * size,
        v_head_stride=v.stride(0) * size,
        v_row_stride=v.stride(1) * size,
        cos=tables[0].data_ptr() if tables else 0,
        sin=tables[1].data_ptr() if tables else 0,
        scale=1.0 / math.sqrt(dim),
    )
    memory = kernels.scratch_bytes(frames, 2 * kernels.ROWS)
    _ATTEND(memory, room, out, **fields, out=out.data_ptr())


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _whole_rows(x: Tensor) -> Tensor:
    """Float32 rows without gaps."""
    if x.dtype != torch.float32 or not x.is_contiguous():
        flush()
    return x.float().contiguous()


def _plain(x: Tensor) -> Tensor:
    """The numbers as the loops read them."""
    return x.detach().float().contiguous()


def _check(name: str, x: Tensor, *shape: int | None) -> None:
    """The loops would read past the end of a tensor that does not fit."""
    fits = x.dim() == len(shape) and all(
        size in (None, own) for size, own in zip(shape, x.shape, strict=True)
    )
    if not fits or x.device.type != "cpu":
        wanted = ["any" if size is None else size for size in shape]
        raise UsageError(
            f"`{name}` must be {wanted} on the CPU, but is {[*x.shape]} on {x.device}."
        )


def _check_last(x: Tensor, size: int) -> None:
    if not x.dim() or x.shape[-1] != size or x.device.type != "cpu":
        raise UsageError(
            f"`x` must be [..., {size}] on the CPU, but is {[*x.shape]} on {x.device}."
        )


def _check_result(result: torch.dtype) -> torch.dtype:
    if result not in (torch.float32, HALF):
        raise UsageError(f"`result` must be torch.float32 or torch.bfloat16, but is {result}.")
    return result
