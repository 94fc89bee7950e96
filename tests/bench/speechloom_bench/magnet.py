"""The loop that ships with MAGNeT, re-expressed, over any network with all levels' heads.

Re-expressed from reading `audiocraft/models/lm_magnet.py` (`_generate_magnet`, `_generate_stage`)
and `audiocraft/utils/utils.py` (`sample_top_p`) of facebookresearch/audiocraft at commit 896ec7c
(MIT): spans of three frames, annealed guidance in one batch of two, all heads, softmax, top-p by a
full sort, multinomial. The narrow attention of the finer levels is left out on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

SPAN, TOP_P, HEAT, MOST, LEAST = 3, 0.9, 3.0, 10.0, 1.0
FIXED = -1e4

AllLogits = Callable[[Tensor], Tensor]
"""Codes int64 [2, K, F], the second item without condition, to logits [2, K, F, V]."""


def decode(logits_of: AllLogits, levels: int, frames: int, size: int, steps: list[int]) -> Tensor:
    """Fill an empty canvas, int64 [1, K, F]; F is cut to a multiple of the span."""
    frames -= frames % SPAN
    codes = torch.full((1, levels, frames), size)
    for level, passes in zip(range(levels), steps, strict=True):
        scores = torch.zeros(1, frames // SPAN)
        own = torch.full((1, frames), size)
        for number, time in enumerate(torch.linspace(0, 1, passes)):
            share = torch.cos(time * math.pi * 0.5)
            opened = max(int((share * scores.shape[1]).item()), 1)
            worst = scores.topk(opened, dim=-1).indices
            spans = torch.zeros_like(scores, dtype=torch.bool).scatter(1, worst, True)
            own[spans.repeat_interleave(SPAN, dim=-1)] = size
            codes[:, level] = own
            both = logits_of(torch.cat((codes, codes)))
            heat = HEAT * ((passes - 1 - number) / passes)
            own, sure = close(both[:, level], own, size, float(share), heat)
            codes[:, level] = own
            scores = 1 - sure.view(1, -1, SPAN).amax(dim=-1)
            scores = scores.masked_fill(~spans, FIXED)
    return codes


def close(
    logits: Tensor, codes: Tensor, size: int, share: float, heat: float
) -> tuple[Tensor, Tensor]:
    """One sampling step over [2, F, V]: guide, filter, draw; codes and how sure each draw is."""
    with_condition, without = logits.split(1)
    weight = share * MOST + (1 - share) * LEAST
    guided = without + (with_condition - without) * weight
    chances = torch.softmax(guided / max(heat, 1e-2), dim=-1)
    ordered, ids = torch.sort(chances, dim=-1, descending=True)
    ordered = ordered * (~(ordered.cumsum(dim=-1) - ordered > TOP_P)).float()
    ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    place = torch.multinomial(ordered[0], num_samples=1)[None]
    drawn = ids.gather(-1, place)
    sure = chances.gather(-1, drawn)[..., 0]
    return torch.where(codes == size, drawn[..., 0], codes), sure
