"""Monotonic rational-quadratic splines: the elements of the duration flows."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["rational_quadratic"]

SMALLEST = 1e-3
"""Least width and height of a bin as a share, and least slope of a knot."""


def rational_quadratic(
    values: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, *, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """A monotonic spline of each value (arXiv:1906.04032); the identity outside of the bounds.

    Args:
        values: float32 [...].
        widths: float32 [..., K], logits of the widths of the bins.
        heights: float32 [..., K], logits of their heights.
        slopes: float32 [..., K - 1], slopes at the inner knots before the softplus; outer slopes
            are 1.
        bound: the spline lives in [-bound, bound].
        inverse: compute the inverse function.

    Returns:
        The new values and the logarithms of the slopes of what was applied, both [...].
    """
    inside = (values >= -bound) & (values <= bound)
    # Values outside are computed at 0, where everything is finite, and then replaced.
    x = torch.where(inside, values, torch.zeros_like(values))
    knots_x, knots_y = _knots(widths, bound), _knots(heights, bound)
    edge = math.log(math.exp(1 - SMALLEST) - 1)
    slope = SMALLEST + functional.softplus(functional.pad(slopes, (1, 1), value=edge))

    # The last knot counts as inside the last bin.
    found = knots_y if inverse else knots_x
    index = (x[..., None] >= found[..., 1:-1]).sum(-1, keepdim=True)
    x0, y0 = _at(knots_x, index), _at(knots_y, index)
    width, height = _at(knots_x, index + 1) - x0, _at(knots_y, index + 1) - y0
    d0, d1 = _at(slope, index), _at(slope, index + 1)
    chord = height / width
    bend = d0 + d1 - 2 * chord

    if inverse:
        rise = x - y0
        a = height * (chord - d0) + rise * bend
        b = height * d0 - rise * bend
        c = -chord * rise
        root = 2 * c / (-b - torch.sqrt((b.square() - 4 * a * c).clamp_min(0)))
        result = root * width + x0
    else:
        root = (x - x0) / width
        mixed = root * (1 - root)
        result = y0 + height * (chord * root.square() + d0 * mixed) / (chord + bend * mixed)
    mixed = root * (1 - root)
    slope_here = chord.square() * (
        d1 * root.square() + 2 * chord * mixed + d0 * (1 - root).square()
    )
    log_slope = torch.log(slope_here) - 2 * torch.log(chord + bend * mixed)
    log_slope = -log_slope if inverse else log_slope
    return torch.where(inside, result, values), torch.where(inside, log_slope, 0.0)


def _knots(logits: Tensor, bound: float) -> Tensor:
    """Ascending knots [..., K + 1] from -bound to bound."""
    shares = SMALLEST + (1 - SMALLEST * logits.shape[-1]) * logits.softmax(-1)
    inner = 2 * bound * shares.cumsum(-1)[..., :-1] - bound
    return functional.pad(functional.pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _at(knots: Tensor, index: Tensor) -> Tensor:
    return knots.gather(-1, index)[..., 0]
