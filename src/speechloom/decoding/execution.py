"""How a network runs at inference: number format, layers, compilation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom.ops.layers import IMPLEMENTATIONS, Layers, fastest, make
from speechloom.ops.layers.choice import has_bfloat16_units

PRECISIONS: Mapping[str, torch.dtype | None] = MappingProxyType(
    {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
)
"""Number formats by name; "auto" is bfloat16 where the processor computes in it."""

LARGEST_LIMIT = 31 << 20
"""Bytes; the largest block by which glibc sets its limits is a little above."""


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """How a network runs. With `layers="torch"` it gives the same numbers as training's own layers.

    Attributes:
        precision: of matrix products and attention; sums, norms and the residual stream stay
            float32. "auto" takes bfloat16 on processors that compute in it: a draw there may
            differ from a float32 one, so that it is a choice and not the default.
        layers: what computes them, one of `speechloom.ops.layers.IMPLEMENTATIONS`: "torch",
            "onednn" (weights in oneDNN's layout), "compiled" (loops of this library, by numba).
            The last two hold the weights once more. "auto" takes the fastest that can be used;
            a name never falls back.
        compile: run the network through `torch.compile`, over torch's own layers. On a CPU this
            needs a C++ compiler, and the first passes take a minute: see `warm_up` of the
            generator.
        graphs: on CUDA, record a whole decoding as a CUDA graph and play it back; see
            `speechloom.decoding.graphs.GraphedDecoder`. Each new bucket of lengths, batch size and
            setting is recorded at its first call, which takes seconds; more frames than the largest
            bucket has are decoded without.

    Raises:
        UsageError: the precision or the layers are unknown, or other layers than torch's are to be
            compiled by it.
    """

    precision: str = "float32"
    layers: str = "auto"
    compile: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            names = ", ".join(PRECISIONS)
            raise UsageError(f"`precision` must be one of {names}, but is {self.precision!r}.")
        if self.layers not in ("auto", *IMPLEMENTATIONS):
            names = ", ".join(("auto", *IMPLEMENTATIONS))
            raise UsageError(f"`layers` must be one of {names}, but is {self.layers!r}.")
        if self.compile and self.layers not in ("auto", "torch"):
            raise UsageError(
                f"`compile` is for torch's own layers, but `layers` is {self.layers!r}; leave one "
                "of them out."
            )

    def on(self, device: torch.device | str) -> Execution:
        """Decide what is left open, for one device.

        Raises:
            UsageError: `graphs` is asked for elsewhere than on CUDA.
            BackendUnavailable: the layers that are asked for cannot be used there.
        """
        device = torch.device(device)
        if self.graphs and device.type != "cuda":
            raise UsageError(
                f"`graphs` needs a CUDA device, but the device is {device}; leave it False."
            )
        dtype = PRECISIONS[self.precision]
        if dtype is None:
            dtype = torch.bfloat16 if has_bfloat16_units(device) else torch.float32
        name = self.layers
        if name == "auto":
            name = "torch" if self.compile else fastest(dtype, device)
        if device.type == "cpu":
            keep_freed_memory()
        layers = make(name, dtype, device)
        return Execution(name=name, layers=layers, dtype=dtype, compile=self.compile)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """An `ExecutionConfig` with nothing left open.

    Attributes:
        name: of the layers.
        layers: makes the layers of a network.
        dtype: of matrix products and attention.
        compile: the network is compiled.
    """

    name: str
    layers: Layers
    dtype: torch.dtype
    compile: bool

    def compiled(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The function itself, or compiled for results of any shape: frames may vary."""
        return torch.compile(function, dynamic=True) if self.compile else function


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next layer instead of giving it back.

    For networks that run or are trained on a CPU; once is enough. Each layer allocates its result.
    glibc returns blocks of megabytes to the system as soon as they are freed, and the next layer's
    first touch of every page enters the kernel again: a quarter of a pass of a 512 x 6 Conformer
    in float32. Freeing one large block, as here, raises the limits from which it does so to the
    block's size and twice that (mallopt(3), M_MMAP_THRESHOLD). Other allocators do not mind.
    """
    torch.empty(LARGEST_LIMIT, dtype=torch.uint8)
