"""A decoding step on a CPU: compiled loops over rows, shared out among threads. See `README.md`.

Scores come in blocks of rows, float32. Where they are made here, by a head, by guidance or from
other types, a block is small enough for a core's cache and is used again: no [N, V] is written.
Gradients do not flow through the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numba
import numpy as np
import torch
from torch import Tensor

from speechloom.ops.masked_decode.cpu_kernels import DRAW, close_rows, draw_row, row_size
from speechloom.ops.masked_decode.cpu_kernels import uniforms as row_uniforms
from speechloom.ops.masked_decode.inputs import (
    HeadScores,
    LogitScores,
    SampleConfig,
    Scores,
    StepResult,
)
from speechloom.ops.masked_decode.noise import NoiseKeys
from speechloom.ops.native import flush

__all__ = ["available", "decode_step", "draw_row", "row_size", "row_uniforms", "sample_rows"]

BLOCK_SCORES = 1 << 17
"""Scores of a block that is made here: half a megabyte, what the caches of most cores hold."""
MIN_BLOCK_ROWS = 64
"""Rows below which a product with the head reads its weights too often."""
PIECE_SCORES = 1 << 16
"""Scores that a thread takes at a time: about a fifth of a millisecond, so that none waits long."""

NO_HISTORY = torch.empty((0, 0), dtype=torch.int64)


def available(device: torch.device) -> str | None:
    """Why it cannot be used on a device and what to do about it; None where it can."""
    if device.type != "cpu":
        return "it is for CPU tensors; move them with `.cpu()`."
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined] # set when numba is imported
        return "NUMBA_DISABLE_JIT is set; unset it."
    return None


@torch.no_grad()
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
    rows = keys.seed.shape[0]
    tokens = torch.empty(rows, dtype=torch.int64)
    confidence = torch.empty(rows)
    draw = _Draw(
        keys=_in_rows(keys),
        config=config,
        tokens=tokens,
        confidence=confidence,
        history=NO_HISTORY,
        penalty=1.0,
        choice_temperature=choice_temperature,
    )
    flush()  # what made the scores
    for offset, block in _blocks(scores, counts, config.guidance):
        draw(offset, block)
    closes = torch.empty(rows, dtype=torch.bool)
    sizes = np.array(counts, np.int64)
    closing = sizes - np.array(keep_open, np.int64)
    ranks = torch.empty(rows, dtype=torch.int32)
    close_rows(confidence.numpy(), sizes, closing, ranks.numpy(), closes.numpy())
    return StepResult(tokens=tokens, confidence=confidence, closes=closes)


@torch.no_grad()
def sample_rows(
    logits: Tensor,
    keys: NoiseKeys,
    *,
    config: SampleConfig,
    history: Tensor | None,
    repetition_penalty: float,
) -> Tensor:
    """Draw one token per row of logits [N, V], int64 [N]; see `api.sample_rows`."""
    tokens = torch.empty(logits.shape[0], dtype=torch.int64)
    draw = _Draw(
        keys=_in_rows(keys),
        config=config,
        tokens=tokens,
        confidence=None,
        history=NO_HISTORY if history is None else history.contiguous(),
        penalty=repetition_penalty,
        choice_temperature=0.0,
    )
    flush()  # what made the logits
    for offset, block in _blocks(LogitScores(logits=logits), (len(tokens),), 1.0):
        draw(offset, block)
    return tokens


def _in_rows(keys: NoiseKeys) -> NoiseKeys:
    """The keys as the kernel reads them."""
    seed, item, position = (x.contiguous() for x in (keys.seed, keys.item, keys.position))
    return replace(keys, seed=seed, item=item, position=position)


@dataclass(frozen=True, kw_only=True)
class _Draw:
    """What is the same for all blocks; called, it draws the rows of one."""

    keys: NoiseKeys
    config: SampleConfig
    tokens: Tensor
    confidence: Tensor | None
    history: Tensor
    penalty: float
    choice_temperature: float

    def __call__(self, offset: int, block: Tensor) -> None:
        """Draw the rows of a block float32 [R, V], whose first is row `offset` of all."""
        rows, size = block.shape
        if not rows:
            return
        config, keys = self.config, self.keys
        forbidden = torch.tensor(config.forbidden, dtype=torch.int64)
        _DRAW(
            16 * row_size(size),
            block,
            logits=block.data_ptr(),
            stride=block.stride(0),
            size=size,
            rows=rows,
            piece=max(1, PIECE_SCORES // size),
            offset=offset,
            seed=keys.seed.data_ptr(),
            item=keys.item.data_ptr(),
            position=keys.position.data_ptr(),
            packed=keys.packed,
            top_k=config.top_k,
            forbidden=forbidden.data_ptr(),
            forbids=len(forbidden),
            history=self.history.data_ptr(),
            used=self.history.shape[1],
            tokens=self.tokens.data_ptr(),
            confidence=0 if self.confidence is None else self.confidence.data_ptr(),
            temperature=float(config.temperature),
            top_p=float(config.top_p),
            choice_temperature=float(self.choice_temperature),
            penalty=float(self.penalty),
        )
        flush()  # a draw is read at once, also inside of a `together`


_DRAW = DRAW.bound()


def _blocks(scores: Scores, counts: Sequence[int], guidance: float) -> Iterator[tuple[int, Tensor]]:
    """The float32 scores of all rows after guidance, block by block, with their first row.

    A block is valid until the next one is asked for.
    """
    if isinstance(scores, HeadScores):
        return _head_blocks(scores, counts, guidance)
    return _logit_blocks(scores, guidance)


def _logit_blocks(scores: LogitScores, guidance: float) -> Iterator[tuple[int, Tensor]]:
    logits, free = scores.logits.detach(), scores.unconditional
    rows, size = logits.shape
    if guidance == 1.0 and logits.dtype == torch.float32 and logits.stride(1) == 1:
        yield 0, logits
        return
    height = _block_rows(size)
    scratch = torch.empty(min(height, rows), size)
    for start in range(0, rows, height):
        block = scratch[: min(height, rows - start)]
        own = slice(start, start + len(block))
        if guidance == 1.0 or free is None:
            block.copy_(logits[own])
        else:
            _guide(logits[own], free[own], guidance, out=block)
        yield start, block


def _head_blocks(
    scores: HeadScores, counts: Sequence[int], guidance: float
) -> Iterator[tuple[int, Tensor]]:
    """Products of the hidden states with the head.

    The blocks of an item begin with it: their shapes, and with them the rounding of the product,
    are the same alone and in a batch. Guidance is on the hidden states, as the head is linear.
    """
    head = scores.weight.detach().float().T
    bias = None if scores.bias is None else scores.bias.detach().float()
    height = _block_rows(head.shape[1])
    scratch = torch.empty(min(height, max(counts, default=0)), head.shape[1])
    start = 0
    for count in counts:
        for end in (*range(start + height, start + count, height), start + count):
            hidden = scores.hidden[start:end].float()
            if guidance != 1.0 and scores.unconditional is not None:
                hidden = _guide(hidden, scores.unconditional[start:end].float(), guidance)
            block = scratch[: end - start]
            if bias is None:
                torch.mm(hidden, head, out=block)
            else:
                torch.addmm(bias, hidden, head, out=block)
            yield start, block
            start = end


def _guide(scores: Tensor, free: Tensor, guidance: float, *, out: Tensor | None = None) -> Tensor:
    """Float32 scores that point away from the unconditional ones."""
    free = free.float()
    return torch.add(free, scores.float() - free, alpha=guidance, out=out)


def _block_rows(size: int) -> int:
    return max(MIN_BLOCK_ROWS, BLOCK_SCORES // size)
