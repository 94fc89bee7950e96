"""The definition of a decoding step, in plain torch. Every other implementation equals it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.ops.masked_decode.inputs import HeadScores, SampleConfig, Scores, StepResult
from speechloom.ops.masked_decode.noise import NoiseKeys, uniforms

NEVER = float("-inf")


def available(device: torch.device) -> str | None:
    """Why it cannot be used on a device: nothing stands in its way."""
    return None


def decode_step(
    scores: Scores,
    keys: NoiseKeys,
    *,
    counts: Sequence[int],
    keep_open: Sequence[int],
    config: SampleConfig,
    choice_temperature: float,
) -> StepResult:
    """Draw, rate and close the open rows of a batch; see `api.decode_step`."""
    logits = guided_logits(scores, counts, config)
    for_token, for_choice = uniforms(keys)
    tokens = draw_tokens(logits, for_token, config)
    confidence = logits.log_softmax(-1).gather(-1, tokens.clamp(min=0)[:, None])[:, 0]
    confidence = confidence - choice_temperature * torch.log(-torch.log(for_choice))
    return StepResult(
        tokens=tokens,
        confidence=confidence,
        closes=choose_closing(confidence, counts, keep_open),
    )


def sample_rows(
    logits: Tensor,
    keys: NoiseKeys,
    *,
    config: SampleConfig,
    history: Tensor | None,
    repetition_penalty: float,
) -> Tensor:
    """Draw one token per row; see `api.sample_rows`."""
    logits = logits.float()
    if history is not None:
        logits = penalise(logits, history, repetition_penalty)
    return draw_tokens(forbid(logits, config.forbidden), uniforms(keys)[0], config)


def guided_logits(scores: Scores, counts: Sequence[int], config: SampleConfig) -> Tensor:
    """Float32 logits [N, V] after guidance, minus infinity at forbidden ids."""
    logits = _logits(scores, scores_of_twin=False, counts=counts)
    if config.guidance != 1.0:
        free = _logits(scores, scores_of_twin=True, counts=counts)
        logits = free + config.guidance * (logits - free)
    return forbid(logits, config.forbidden)


def forbid(logits: Tensor, forbidden: Sequence[int]) -> Tensor:
    """Minus infinity at some ids."""
    if not forbidden:
        return logits
    ids = torch.tensor(forbidden, dtype=torch.int64, device=logits.device)
    return logits.index_fill(-1, ids, NEVER)


def penalise(logits: Tensor, history: Tensor, penalty: float) -> Tensor:
    """Make ids that a row has used less likely.

    Source: Keskar et al. 2019, CTRL, arXiv:1909.05858, section 4.1; negative scores are
    multiplied instead of divided, so that a penalty never favours an id.
    """
    rows, size = logits.shape
    ids = torch.where(history < 0, size, history)
    used = torch.zeros(rows, size + 1, dtype=torch.bool, device=logits.device)
    used = used.scatter(-1, ids, True)[:, :size]
    return torch.where(used, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def draw_tokens(logits: Tensor, uniform: Tensor, config: SampleConfig) -> Tensor:
    """One id per row, int64 [N]: inverse of the cumulative weights, ids ascending.

    -1 where a row has no distribution: a score is NaN or +inf, or none is finite.
    """
    if config.temperature == 0.0:
        tokens = logits.argmax(-1)
    else:
        cumulative = filtered_weights(logits, config).cumsum(-1)
        target = uniform[:, None] * cumulative[:, -1:]
        tokens = (cumulative <= target).sum(-1)
    return torch.where(logits.amax(-1).isfinite(), tokens, -1)


def filtered_weights(logits: Tensor, config: SampleConfig) -> Tensor:
    """Unnormalised probabilities float32 [N, V] after temperature, top-k and top-p."""
    best = logits.amax(-1, keepdim=True)
    if 0 < config.top_k < logits.shape[-1]:
        kth = logits.topk(config.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, NEVER)
    if config.top_p < 1.0:
        ordered = logits.sort(dim=-1, descending=True).values
        share = ((ordered - best) / config.temperature).exp().cumsum(-1)
        last = (share < config.top_p * share[:, -1:]).sum(-1, keepdim=True)
        logits = logits.masked_fill(logits < ordered.gather(-1, last), NEVER)
    return ((logits - best) / config.temperature).exp()


def choose_closing(confidence: Tensor, counts: Sequence[int], keep_open: Sequence[int]) -> Tensor:
    """Close the most confident rows of each item, bool [N]; of equals, the first; NaN last."""
    device = confidence.device
    confidence = confidence.masked_fill(confidence.isnan(), NEVER)
    sizes = torch.tensor(counts, device=device)
    item = torch.arange(len(counts), device=device).repeat_interleave(
        sizes, output_size=confidence.shape[0]
    )
    best_first = confidence.argsort(descending=True, stable=True)
    by_item = best_first[item[best_first].argsort(stable=True)]
    rank = torch.empty_like(by_item)
    rank[by_item] = torch.arange(len(by_item), device=device) - (sizes.cumsum(0) - sizes)[item]
    return rank < (sizes - torch.tensor(keep_open, device=device))[item]


def _logits(scores: Scores, *, scores_of_twin: bool, counts: Sequence[int]) -> Tensor:
    if not isinstance(scores, HeadScores):
        chosen = scores.unconditional if scores_of_twin else scores.logits
        assert chosen is not None
        return chosen.float()
    hidden = scores.unconditional if scores_of_twin else scores.hidden
    assert hidden is not None
    weight = scores.weight.float()
    bias = None if scores.bias is None else scores.bias.float()
    # One product per item: its shape, and with it the rounding, is the same alone and in a batch.
    pieces = torch.split(hidden.float(), list(counts))
    return torch.cat([F.linear(rows, weight, bias) for rows in pieces])
