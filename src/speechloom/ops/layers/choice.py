"""Which layers there are, what they need, and which are the fastest where."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import cast

import torch

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.layers.protocol import Layers
from speechloom.ops.layers.torch_layers import TorchLayers

__all__ = ["IMPLEMENTATIONS", "fastest", "has_amx", "has_bfloat16_units", "make", "unavailable"]

IMPLEMENTATIONS = ("torch", "onednn", "compiled")
"""By name: torch's own operations on any device; the same with weights in oneDNN's layout, on a
CPU; compiled loops with all between two products fused into them, on a CPU with numba."""


def make(name: str, dtype: torch.dtype, device: torch.device | str) -> Layers:
    """The layers of a name.

    Raises:
        UsageError: there are none of that name.
        BackendUnavailable: they cannot be used here.
    """
    if name not in IMPLEMENTATIONS:
        names = ", ".join(IMPLEMENTATIONS)
        raise UsageError(f"`layers` must be one of {names}, but is {name!r}.")
    reason = unavailable(name, dtype, device)
    if reason is not None:
        raise BackendUnavailable(
            f"The layers {name!r} cannot be used on {torch.device(device).type!r}: {reason}",
            plugin=f"speechloom:layers/{name}",
        )
    if name != "compiled":
        return TorchLayers(dtype, packed=name == "onednn")
    return cast(Layers, _compiled().CompiledLayers(dtype))


def unavailable(name: str, dtype: torch.dtype, device: torch.device | str) -> str | None:
    """Why some layers cannot be used and what to do about it; None where they can."""
    if name == "torch":
        return None
    if torch.device(device).type != "cpu":
        return "they are for a CPU; use layers='torch'."
    if name == "onednn":
        has = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return None if has else "this torch has no oneDNN; use layers='torch'."
    if importlib.util.find_spec("numba") is None:
        return "they need the package numba: pip install speechloom[fast]."
    try:
        reason: str | None = _compiled().available(dtype)
    except (ImportError, OSError) as error:  # OSError: llvmlite cannot load its library
        return f"their import fails ({error}); repair numba: pip install speechloom[fast]."
    return reason


def fastest(dtype: torch.dtype, device: torch.device | str) -> str:
    """The name of the fastest layers that can be used, as far as was measured.

    Two threads of an AMD Zen 4, a 512 x 6 Conformer, 500 frames: compiled loops are faster than
    oneDNN's weights, and those than torch's own product; limited to AVX2, compiled loops are the
    fastest too, but oneDNN is not always faster than torch (on an AMD Zen 3 it was slower).
    bfloat16 is left to oneDNN where the processor has tiles for it (AMX), which oneDNN uses, and
    to torch where it has no units for it.
    """
    if torch.device(device).type != "cpu":
        return "torch"
    half = dtype == torch.bfloat16
    if half and not has_bfloat16_units(device):
        return "torch"
    wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
    names = [] if half and has_amx() else ["compiled"]
    names += ["onednn"] if half or wide else []
    usable = (name for name in names if unavailable(name, dtype, device) is None)
    return next(usable, "torch")


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether a device multiplies bfloat16 numbers in hardware.

    A CPU without such units emulates them, several times slower than float32; that torch can
    run bfloat16 there says nothing.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (_torch_says("_is_avx512_bf16_supported") or has_amx())


def has_amx() -> bool:
    """Whether the processor multiplies tiles of bfloat16 numbers."""
    return _torch_says("_is_amx_tile_supported")


def _torch_says(name: str) -> bool:
    check = getattr(torch.cpu, name, None)  # torch has no public name for it
    return check is not None and bool(check())


@cache
def _compiled():  # type: ignore[no-untyped-def]
    return importlib.import_module("speechloom.ops.layers.cpu")
