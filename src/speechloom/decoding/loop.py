"""Fill the unknown codes of a batch, level by level, most confident first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


Pass = dict[int, int]
"""The items that take part in a pass, and how many positions of each stay open after it."""


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
    the same in any batch. The device is asked for numbers once, at the start.

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
    if config.sample.guidance != 1.0 and network.unconditional is None:
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
    total, done = sum(map(len, plan)), 0
    for level, passes in enumerate(plan):
        frames = _unknown_frames(canvas, level)
        for step, keep in enumerate(passes, start=config.steps_of(level) - len(passes)):
            decide = _Decision(stage=stage, level=level, step=step, config=config)
            still_open = decide(network, canvas, [frames[item] for item in keep], keep)
            frames.update(zip(keep, still_open, strict=True))
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


def _plan_level(canvas: _Canvas, level: int, config: DecodeConfig) -> list[Pass]:
    """Passes of a level; items with few unknown positions take part in the last ones only."""
    steps = config.steps_of(level)
    keeps = {
        item: open_after(counts[level], steps, schedule=config.schedule)
        for item, counts in enumerate(canvas.counts)
    }
    longest = max(map(len, keeps.values()), default=0)
    return [
        {item: keep[left] for item, keep in keeps.items() if len(keep) >= -left}
        for left in range(-longest, 0)
    ]


def _unknown_frames(canvas: _Canvas, level: int) -> dict[int, Tensor]:
    """Unknown frames of each item at a level, ascending, without asking the device."""
    counts = [item[level] for item in canvas.counts]
    flat = canvas.unknown[:, level].reshape(-1)
    rows = (~flat).to(torch.int8).argsort(stable=True)[: sum(counts)]
    return dict(enumerate(torch.split(rows % max(1, canvas.codes.shape[-1]), counts)))


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """One pass over the items that take part in it."""

    stage: int
    level: int
    step: int
    config: DecodeConfig

    def __call__(
        self, network: MaskedNetwork, canvas: _Canvas, frames: Sequence[Tensor], keep: Pass
    ) -> tuple[Tensor, ...]:
        """Close positions on the canvas; return the frames that stay open, per item."""
        counts = [len(own) for own in frames]
        frame, device = torch.cat(list(frames)), canvas.codes.device
        batch = torch.tensor(list(keep), device=device)
        row = torch.arange(len(keep), device=device).repeat_interleave(
            torch.tensor(counts, device=device), output_size=len(frame)
        )
        result = decode_step(
            self._scores(network, canvas, batch, row, frame, keep),
            self._keys(canvas, batch[row], frame),
            counts=counts,
            keep_open=list(keep.values()),
            config=self.config.sample_at(self.level, self.step),
            choice_temperature=self.config.choice_at(self.level, self.step),
        )
        decided = torch.where(result.closes, result.tokens, canvas.mask_id)
        canvas.codes[batch[row], self.level, frame] = decided
        stay = result.closes.to(torch.int8).argsort(stable=True)[: sum(keep.values())]
        return torch.split(frame[stay], list(keep.values()))

    def _scores(
        self,
        network: MaskedNetwork,
        canvas: _Canvas,
        batch: Tensor,
        row: Tensor,
        frame: Tensor,
        keep: Pass,
    ) -> HeadScores:
        lengths = [canvas.lengths[item] for item in keep]
        codes = canvas.codes[batch, :, : max(lengths)]
        on_device = torch.tensor(lengths, device=batch.device)
        twin = network.unconditional if self.config.sample.guidance != 1.0 else None
        hidden, free = (
            None if one is None else one.hidden(codes, self.level, on_device, batch)[row, frame]
            for one in (network, twin)
        )
        assert hidden is not None
        weight, bias = network.head(self.level)
        return HeadScores(hidden=hidden, weight=weight, bias=bias, unconditional=free)

    def _keys(self, canvas: _Canvas, item: Tensor, frame: Tensor) -> NoiseKeys:
        return NoiseKeys(
            seed=canvas.seeds[item],
            item=canvas.items[item],
            position=frame,
            stage=self.stage,
            level=self.level,
            step=self.step,
        )
