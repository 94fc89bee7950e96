"""How a network runs at inference: number format, weight layout, compilation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.errors import UsageError

PRECISIONS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
)
"""Number formats by name; "auto" is bfloat16 where the processor computes in it."""

LARGEST_LIMIT = 31 << 20
"""Bytes; the largest block by which glibc sets its limits is a little above."""


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """How a network runs. The default gives the same numbers as training's own layers.

    Attributes:
        precision: of matrix products and attention; sums, norms and the residual stream stay
            float32. "auto" takes bfloat16 on processors that compute in it: a draw there may
            differ from a float32 one, so that it is a choice and not the default.
        prepack: hold weights in oneDNN's own layout, which costs their memory once more. None
            does so on CPUs with AVX-512 for float32, and on those with bfloat16 units for
            bfloat16: float32 was then 2.4 times as fast as torch's own product (AMD Zen 5), but
            0.9 times as fast with AVX2 alone (AMD Zen 3).
        compile: run the network through `torch.compile`. On a CPU this needs a C++ compiler,
            and the first passes take a minute: see `warm_up` of the generator.
        graphs: on CUDA, record a whole decoding as a CUDA graph and play it back; see
            `speechloom.decoding.graphs.GraphedDecoder`. Each new bucket of lengths, batch size and
            setting is recorded at its first call, which takes seconds; more frames than the largest
            bucket has are decoded without.

    Raises:
        UsageError: the precision is unknown, or both layouts are asked for at once: a compiled
            network brings its own.
    """

    precision: str = "float32"
    prepack: bool | None = None
    compile: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise UsageError(f"`precision` must be one of {names}, but is {self.precision!r}.")
        if self.prepack and self.compile:
            raise UsageError("`prepack` and `compile` cannot go together; leave one of them out.")

    def on(self, device: torch.device | str) -> Execution:
        """Decide what is left open, for one device.

        Raises:
            UsageError: `prepack` is asked for where oneDNN has no such layout, or `graphs`
                elsewhere than on CUDA.
        """
        device = torch.device(device)
        if self.graphs and device.type != "cuda":
            raise UsageError(
                f"`graphs` needs a CUDA device, but the device is {device}; leave it False."
            )
        dtype = PRECISIONS[self.precision]
        if dtype is None:
            dtype = torch.bfloat16 if has_bfloat16_units(device) else torch.float32
        possible = device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        if self.prepack and not possible:
            raise UsageError(
                f"`prepack` needs a CPU and a torch with oneDNN, but the device is {device}; "
                "leave it None."
            )
        wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
        pays = has_bfloat16_units(device) if dtype == torch.bfloat16 else wide
        prepack = self.prepack
        if prepack is None:
            prepack = possible and pays and not self.compile
        return Execution(dtype=dtype, prepack=prepack, compile=self.compile)


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 numbers in hardware.

    A CPU without such units emulates them, several times slower than float32; that torch can
    run bfloat16 there says nothing.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name
    return any(check() for check in (getattr(torch.cpu, name, None) for name in names) if check)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """An `ExecutionConfig` with nothing left open.

    Attributes:
        dtype: of matrix products and attention.
        prepack: weights are in oneDNN's layout.
        compile: the network is compiled.
    """

    dtype: torch.dtype
    prepack: bool
    compile: bool

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Linear:
        """Lay out a linear layer; `weight` float32 [O, I], `bias` float32 [O]."""
        bias = None if bias is None else bias.to(self.dtype)
        if not self.prepack:
            return PlainLinear(weight.to(self.dtype), bias)
        keep_freed_memory()
        pack = torch.ops.mkldnn._reorder_linear_weight
        return PackedLinear(pack(weight.to(self.dtype).contiguous()), bias, weight.shape[0])

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function itself, or compiled for results of any shape: frames may vary."""
        return torch.compile(function, dynamic=True) if self.compile else function


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next layer instead of giving it back.

    For networks that run or are trained on a CPU; once is enough. oneDNN allocates each result.
    glibc returns blocks of megabytes to the system as soon as they are freed, and the next layer's
    first touch of every page enters the kernel again: a quarter of a pass of a 512 x 6 Conformer
    in float32. Freeing one large block, as here, raises the limits from which it does so to the
    block's size and twice that (mallopt(3), M_MMAP_THRESHOLD). Other allocators do not mind.
    """
    torch.empty(LARGEST_LIMIT, dtype=torch.uint8)


@dataclass(frozen=True)
class PlainLinear:
    """A linear layer by torch's own product.

    Attributes:
        weight: [O, I], not copied when it has the execution's type already.
        bias: [O] or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """[R, I] to [R, O]; see `Linear`."""
        x = x.to(self.weight.dtype)
        if out is None or out.dtype != x.dtype:
            return F.linear(x, self.weight, self.bias)
        if self.bias is None:
            return torch.mm(x, self.weight.t(), out=out)
        return torch.addmm(self.bias, x, self.weight.t(), out=out)


@dataclass(frozen=True)
class PackedLinear:
    """A linear layer by oneDNN, its weight in oneDNN's layout.

    Attributes:
        weight: [O, I], opaque.
        bias: [O] or None.
        size: O.
    """

    weight: Tensor
    bias: Tensor | None
    size: int

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """[R, I] to [R, O]; oneDNN writes where it likes, so that `out` is not used."""
        product = torch.ops.mkldnn._linear_pointwise
        result: Tensor = product(x.to(self.weight.dtype), self.weight, self.bias, "none", [], "")
        return result


Linear = PlainLinear | PackedLinear
"""A linear layer laid out for inference.

Called with rows [R, I] and, to spare fresh memory, a place [R, O] that may be used for the result.
The result has the execution's type.
"""
