"""Where bfloat16 pays: on processors with units for it."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["has_bfloat16_units", "mixed_precision"]


def has_bfloat16_units(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 faster than in float32.

    Args:
        device: of torch.

    A CPU without such units (AVX-512 BF16 or AMX) takes several times as long as in float32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind == "cpu":
        # What torch asks before it takes such a path itself; it has no public name.
        units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return bool(units)
    return False


def mixed_precision(
    device: torch.device | str = "cpu", precision: Literal["auto", "bf16", "fp32"] = "auto"
) -> torch.autocast:
    """Autocast to bfloat16 where it is wanted, nothing where it is not.

    Args:
        device: where the network runs.
        precision: ``auto`` takes bfloat16 where `has_bfloat16_units`.
    """
    wanted = precision == "bf16" or (precision == "auto" and has_bfloat16_units(device))
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=wanted)
