"""Fill the unknown codes of a batch, level by level, most confident first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from speechloom.decoding.config import DecodeConfig
from speechloom.decoding.network import MaskedNetwork
from speechloom.decoding.schedule import open_after
from speechloom.errors import UsageError
from speechloom.ops.masked_decode import HeadScores, NoiseKeys, decode_step

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Canvas:
    """The batch while it is filled; `codes` changes in place, nothing else does.

    Attributes:
        codes: int64 [B, K, F], the mask id where nothing is known yet and at padding.
        unknown: bool [B, K, F], what the caller asked for.
        counts: how many of these each item has at each level, [B][K] on the host.
        lengths: frames of each item, on the host.
        mask_id: the id of an unknown code.
        seeds: int64 [B].
        items: int64 [B].
    """

    codes: Tensor
    unknown: Tensor
    counts: list[list[int]]
    lengths: list[int]
    mask_id: int
    seeds: Tensor
    items: Tensor


@dataclass(frozen=True)
class _Pass:
    """One run of the network over the items that still have something open at a level.

    All of it follows from how many codes are unknown, so it is known before the first pass.

    Attributes:
        level: the level that is decoded.
        step: number of the pass within its level.
        items: the A items of the batch that take part.
        counts: open positions of each, N in all.
        keep_open: how many of these stay open.
    """

    level: int
    step: int
    items: list[int]
    counts: list[int]
    keep_open: list[int]

    def rows(self) -> list[int]:
        """Which of the A items each of the N open positions belongs to."""
        return [row for row, count in enumerate(self.counts) for _ in range(count)]


@dataclass(frozen=True)
class _Indices:
    """The numbers of a pass on the device: int64 `items` [A], `lengths` [A] and `rows` [N]."""

    items: Tensor
    lengths: Tensor
    rows: Tensor


def masked_decode(
    network: MaskedNetwork,
    codes: Tensor,
    known: Tensor,
    lengths: Tensor,
    *,
    seeds: Tensor,
    items: Tensor,
    stage: int = 0,
    config: DecodeConfig | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Fill every unknown code, coarse levels first.

    Known codes and padding come back as they were, at all levels. Only unknown positions of the
    current level count for the schedule and compete for closing, per item. Finer unknown levels
    are the mask id; finer known ones are visible. An item with fewer unknown positions than
    steps joins at a later step, so that everything is decided from the item alone: its result is
    the same in any batch. The device is asked for numbers once, at the start, and
    given them once.

    Args:
        network: conditioned network.
        codes: int64 [B, K, F]; values at unknown positions are ignored.
        known: bool [B, K, F].
        lengths: int64 [B], real frames per item.
        seeds: int64 [B], one per item's request.
        items: int64 [B], number of each item in its request.
        stage: number of the generator in its pipeline.
        config: passes, schedule, sampling.
        progress: called as `progress(passes_done, passes_in_all)` after each pass.

    Returns:
        int64 [B, K, F].

    Raises:
        UsageError: shapes disagree, a known code is not in the codebook, or guidance is asked
            of a network without an unconditional twin.

    Source: SoundStorm, section 3.3. We differ: exact counts per item, late joining.
    """
    config = config or DecodeConfig()
    if config.is_guided and network.unconditional is None:
        raise UsageError("`guidance` must be 1: this network has no unconditional twin.")
    canvas = _prepare(network, codes, known, lengths, seeds, items)
    _fill(network, canvas, stage, config, progress or _silent)
    return torch.where(canvas.unknown, canvas.codes, codes)


def _silent(done: int, total: int) -> None:
    """Report nothing."""


@torch.inference_mode()
def _fill(
    network: MaskedNetwork, canvas: _Canvas, stage: int, config: DecodeConfig, progress: Progress
) -> None:
    """Run all passes of all levels."""
    plan = [_plan_level(canvas, level, config) for level in range(canvas.codes.shape[1])]
    indices = iter(_on_device(list(chain(*plan)), canvas))
    decide = _Decision(network=network, canvas=canvas, stage=stage, config=config)
    total, done = sum(map(len, plan)), 0
    for level, passes in enumerate(plan):
        frames = _unknown_frames(canvas, level)
        for one in passes:
            still_open = decide(one, next(indices), [frames[item] for item in one.items])
            frames.update(zip(one.items, still_open, strict=True))
            done += 1
            progress(done, total)


def _prepare(
    network: MaskedNetwork,
    codes: Tensor,
    known: Tensor,
    lengths: Tensor,
    seeds: Tensor,
    items: Tensor,
) -> _Canvas:
    """Check the arguments and hide what is not known."""
    check_tensor("codes", codes, "[B, K, F]", codes.shape if codes.dim() == 3 else None)
    check_tensor("known", known, "[B, K, F]", codes.shape, torch.bool)
    for name, value in (("lengths", lengths), ("seeds", seeds), ("items", items)):
        check_tensor(name, value, "[B]", codes.shape[:1])
    real = (torch.arange(codes.shape[-1], device=codes.device) < lengths[:, None])[:, None]
    size = network.codebook_size
    stray = (known & real & ((codes < 0) | (codes >= size))).any()
    facts = torch.cat((lengths, stray[None].long())).tolist()
    if facts.pop():
        raise UsageError(f"Known `codes` must lie in 0 .. {size - 1}; some do not.")
    if not all(0 <= length <= codes.shape[-1] for length in facts):
        raise UsageError(f"`lengths` must lie in 0 .. {codes.shape[-1]}, but are {facts}.")
    unknown = ~known & real
    return _Canvas(
        codes=torch.where(known & real, codes, size),
        unknown=unknown,
        counts=unknown.sum(-1).tolist(),
        lengths=facts,
        mask_id=size,
        seeds=seeds,
        items=items,
    )


def check_tensor(
    name: str,
    x: Tensor,
    letters: str,
    shape: Sequence[int] | None,
    dtype: torch.dtype = torch.int64,
) -> None:
    """Raise a `UsageError` unless a tensor has this shape and type."""
    if shape is None or x.shape != torch.Size(shape) or x.dtype != dtype:
        wanted = letters if shape is None else f"{letters} = {list(shape)}"
        raise UsageError(f"`{name}` must be {dtype} {wanted}, but is {x.dtype} {list(x.shape)}.")


def _plan_level(canvas: _Canvas, level: int, config: DecodeConfig) -> list[_Pass]:
    """Passes of a level; items with few unknown positions take part in the last ones only."""
    steps = config.steps_of(level)
    open_counts = [
        (counts[level], *open_after(counts[level], steps, schedule=config.schedule))
        for counts in canvas.counts
    ]
    longest = max(map(len, open_counts), default=1)
    passes = []
    for left in range(1 - longest, 0):
        items = [item for item, own in enumerate(open_counts) if len(own) > -left]
        counts = [open_counts[item][left - 1] for item in items]
        keep_open = [open_counts[item][left] for item in items]
        passes.append(_Pass(level, steps + left, items, counts, keep_open))
    return passes


def _on_device(passes: Sequence[_Pass], canvas: _Canvas) -> list[_Indices]:
    """The numbers of all passes in one copy to the device."""
    pieces = [
        piece
        for one in passes
        for piece in (one.items, [canvas.lengths[item] for item in one.items], one.rows())
    ]
    flat = torch.tensor(list(chain(*pieces)), dtype=torch.int64).to(canvas.codes.device)
    moved = torch.split(flat, [len(piece) for piece in pieces])
    return [_Indices(*three) for three in zip(*[iter(moved)] * 3, strict=True)]


def _unknown_frames(canvas: _Canvas, level: int) -> dict[int, Tensor]:
    """Unknown frames of each item at a level, ascending, without asking the device."""
    counts = [item[level] for item in canvas.counts]
    flat = canvas.unknown[:, level].reshape(-1)
    rows = (~flat).to(torch.int8).argsort(stable=True)[: sum(counts)]
    return dict(enumerate(torch.split(rows % max(1, canvas.codes.shape[-1]), counts)))


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """What is the same for all passes; called, it makes one of them."""

    network: MaskedNetwork
    canvas: _Canvas
    stage: int
    config: DecodeConfig

    def __call__(self, one: _Pass, at: _Indices, frames: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Close positions on the canvas; return the frames that stay open, per item."""
        canvas, frame = self.canvas, torch.cat(list(frames))
        item = at.items[at.rows]
        result = decode_step(
            self._scores(one, at, frame),
            self._keys(one, item, frame),
            counts=one.counts,
            keep_open=one.keep_open,
            config=self.config.sample_at(one.level, one.step),
            choice_temperature=self.config.choice_at(one.level, one.step),
        )
        decided = torch.where(result.closes, result.tokens, canvas.mask_id)
        canvas.codes[item, one.level, frame] = decided
        stay = result.closes.to(torch.int8).argsort(stable=True)[: sum(one.keep_open)]
        return torch.split(frame[stay], one.keep_open)

    def _scores(self, one: _Pass, at: _Indices, frame: Tensor) -> HeadScores:
        longest = max(self.canvas.lengths[item] for item in one.items)
        codes = self.canvas.codes[at.items, :, :longest]
        hidden, free = (
            None
            if network is None
            else network.hidden(codes, one.level, at.lengths, at.items, at.rows, frame)
            for network in (self.network, self._twin(one.level))
        )
        assert hidden is not None
        weight, bias = self.network.head(one.level)
        return HeadScores(hidden=hidden, weight=weight, bias=bias, unconditional=free)

    def _twin(self, level: int) -> MaskedNetwork | None:
        """The network without its condition, where guidance needs it."""
        return self.network.unconditional if self.config.is_guided_at(level) else None

    def _keys(self, one: _Pass, item: Tensor, frame: Tensor) -> NoiseKeys:
        return NoiseKeys(
            seed=self.canvas.seeds[item],
            item=self.canvas.items[item],
            position=frame,
            stage=self.stage,
            level=one.level,
            step=one.step,
        )
