"""Comparing tensors, and memory that shows when a kernel leaves some of it unwritten."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["assert_close", "poisoned_empty"]

POISON = 0x5A


def assert_close(
    actual: torch.Tensor,
    expected: torch.Tensor,
    *,
    low_precision: torch.Tensor | None = None,
    factor: float = 2.0,
    floor: float = 1e-6,
) -> None:
    """Assert that two tensors agree in shape, device, dtype and values.

    Integers and booleans must be equal. Floating-point values may differ by `factor` times the
    error that the reference itself makes in low precision, where that is given, and by the usual
    tolerance of their dtype otherwise.

    Args:
        actual: what is tested.
        expected: the reference, of the same dtype as `actual`.
        low_precision: the reference computed in the precision of the tested code.
        factor: how many times its error is allowed.
        floor: smallest absolute tolerance.

    Raises:
        AssertionError: they do not agree; the message says where.
    """
    if low_precision is None or not expected.dtype.is_floating_point:
        torch.testing.assert_close(actual, expected)
        return
    own_error = float((low_precision.double() - expected.double()).abs().max())
    allowed = max(factor * own_error, floor)
    torch.testing.assert_close(actual, expected, rtol=0, atol=allowed, equal_nan=True)


def poisoned_empty(
    shape: Sequence[int], *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Uninitialised memory that is never right by luck: NaN, True, or a large odd integer.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        device: of the tensor.
    """
    if dtype.is_floating_point or dtype.is_complex:
        return torch.full(tuple(shape), float("nan"), dtype=dtype, device=device)
    if dtype == torch.bool:
        return torch.ones(tuple(shape), dtype=dtype, device=device)
    empty = torch.empty(tuple(shape), dtype=dtype, device=device)
    empty.view(torch.uint8).fill_(POISON)
    return empty
