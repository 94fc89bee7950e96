"""What a training step hides and what it asks for: the Task Register and its masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom_speechsec.config import TASKS
from speechloom_speechsec.model import NO_CONTENT

SYNTHESIZE, CONTINUE, EDIT, CONVERT = range(len(TASKS))


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """How often each task and level is trained, and how much is dropped.

    Attributes:
        task_weights: of synthesize, continue, edit, convert; need not sum to one.
        task_per_item: draw a task for every item; False draws one for the whole step.
        level_weights: of the levels; empty gives level 0 the weight `first_level_weight` and
            every other level one.
        first_level_weight: level 0 is decoded in many passes, so it deserves more training.
        whole_share: share of synthesis items without a prompt.
        said_share: share of continuation items that keep their content, as a continuation of which
            the text is known has it; the paper's has none.
        content_dropout: share of items that lose their content, for guidance.
        voice_dropout: share of items that lose their voice, for guidance.
    """

    task_weights: tuple[float, float, float, float] = (0.4, 0.15, 0.25, 0.2)
    task_per_item: bool = True
    level_weights: tuple[float, ...] = ()
    first_level_weight: float = 3.0
    whole_share: float = 0.3
    said_share: float = 0.0
    content_dropout: float = 0.05
    voice_dropout: float = 0.1


@dataclass(frozen=True, kw_only=True)
class TrainingMask:
    """One training step's inputs and targets.

    Attributes:
        inputs: int64 [B, K, F], the codes with the mask id where the network may not look.
        level: int64 [B], the level that each item predicts.
        task: int64 [B], index into `TASKS`.
        content: int64 [B, F], `NO_CONTENT` where the content is dropped.
        free: bool [B], the continuations that have no content to follow.
        region: bool [B, F], the frames that are to be generated.
        loss_positions: bool [B, F], the masked frames of the current level.
        voice_known: bool [B], False where the voice is dropped.
    """

    inputs: Tensor
    level: Tensor
    task: Tensor
    content: Tensor
    free: Tensor
    region: Tensor
    loss_positions: Tensor
    voice_known: Tensor


def draw_training_mask(
    codes: Tensor,
    content: Tensor,
    lengths: Tensor,
    *,
    mask_id: int,
    generator: torch.Generator,
    config: MaskConfig | None = None,
) -> TrainingMask:
    """Draw tasks, levels, regions and masks for one step.

    In the region, the finer levels are hidden and a share cos(u pi / 2), u uniform, of the
    current level is masked and asked for. Frames outside it show all their levels. Padding is
    never hidden and never asked for.

    Source: SoundStorm, section 3.2, and SpeechSEC's Task Register. We differ: everything is
    drawn per item, the share is an exact count of at least one frame (as at decoding time),
    and a share of synthesis items has no prompt.

    Args:
        codes: int64 [B, K, F].
        content: int64 [B, F].
        lengths: int64 [B], real frames per item, at least 1.
        mask_id: id of an unknown code, equal to the codebook size.
        generator: the only source of randomness; it lives on the device of `codes`.
        config: shares and weights.

    Raises:
        UsageError: shapes disagree, an item is empty, or weights do not fit the levels.
    """
    config = config or MaskConfig()
    _check(codes, content, lengths)
    task = _draw_task(codes, config, generator)
    level = _draw_level(codes, config, generator)
    region = draw_region(task, lengths, codes.shape[-1], config.whole_share, generator)
    masked = draw_masked(region, generator)
    hidden = hide(level, masked, region, codes.shape[1])
    free = task == CONTINUE
    if config.said_share:
        free = free & ~_chance(task, config.said_share, generator)
    no_content = free | _chance(task, config.content_dropout, generator)
    return TrainingMask(
        inputs=codes.masked_fill(hidden, mask_id),
        level=level,
        task=task,
        content=content.masked_fill(no_content[:, None], NO_CONTENT),
        free=free,
        region=region,
        loss_positions=masked,
        voice_known=~_chance(task, config.voice_dropout, generator),
    )


def draw_region(
    task: Tensor,
    lengths: Tensor,
    frames: int,
    whole_share: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw the frames to generate, bool [B, F], at least one per item.

    Synthesis and continuation generate from a start to the end of the item, an edit generates a
    span with both sides visible, a conversion generates everything. A continuation of an item of
    two frames or more has a prompt.

    Args:
        task: int64 [B].
        lengths: int64 [B].
        frames: padded length F.
        whole_share: share of synthesis items that start at frame 0.
        generator: source of randomness.
    """
    first = (_uniform(task, generator) * lengths).long()
    second = (_uniform(task, generator) * lengths).long()
    start = torch.minimum(first, second)
    end = torch.where(task == EDIT, torch.maximum(first, second) + 1, lengths)
    start = torch.where(task == EDIT, start, first)
    start = torch.where(task == CONTINUE, first.clamp(min=1).minimum(lengths - 1), start)
    whole = (task == SYNTHESIZE) & _chance(task, whole_share, generator)
    start = torch.where(whole | (task == CONVERT), 0, start)
    frame = torch.arange(frames, device=task.device)
    return (frame >= start[:, None]) & (frame < end[:, None])


def draw_masked(region: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a share cos(u pi / 2) of each item's region, bool [B, F], at least one frame."""
    u = torch.rand(region.shape[0], generator=generator, device=region.device)
    size = region.sum(-1)
    count = (torch.cos(u * math.pi / 2) * size).round().long().clamp(min=1).minimum(size)
    noise = torch.rand(region.shape, generator=generator, device=region.device)
    noise = noise.masked_fill(~region, 2.0)
    rank = noise.argsort(dim=-1).argsort(dim=-1)
    return (rank < count[:, None]) & region


def hide(level: Tensor, masked: Tensor, region: Tensor, levels: int) -> Tensor:
    """What the network may not see, bool [B, K, F].

    At the level that is predicted that is what is masked; of the finer ones all of the region,
    where nothing is known of them at decoding time either. Coarser levels are seen.

    Args:
        level: int64 [B], the level that each item predicts.
        masked: bool [B, F], of that level.
        region: bool [B, F], the frames that are generated.
        levels: K.
    """
    number = torch.arange(levels, device=level.device)[:, None]
    now = level[:, None, None]
    return ((number > now) & region[:, None]) | ((number == now) & masked[:, None])


def _draw_task(codes: Tensor, config: MaskConfig, generator: torch.Generator) -> Tensor:
    weights = torch.tensor(config.task_weights, dtype=torch.float32, device=codes.device)
    batch = codes.shape[0]
    draws = batch if config.task_per_item else 1
    return torch.multinomial(weights, draws, replacement=True, generator=generator).expand(batch)


def _draw_level(codes: Tensor, config: MaskConfig, generator: torch.Generator) -> Tensor:
    batch, levels, _ = codes.shape
    default = (config.first_level_weight, *(1.0 for _ in range(levels - 1)))
    chosen = config.level_weights or default
    weights = torch.tensor(chosen, dtype=torch.float32, device=codes.device)
    if len(weights) != levels:
        raise UsageError(
            f"`level_weights` must have one weight for each of the {levels} levels, "
            f"but has {len(weights)}."
        )
    return torch.multinomial(weights, batch, replacement=True, generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)


def _chance(like: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return _uniform(like, generator) < share


def _check(codes: Tensor, content: Tensor, lengths: Tensor) -> None:
    if codes.dim() != 3 or content.shape != codes[:, 0].shape or lengths.shape != codes.shape[:1]:
        raise UsageError(
            "`codes`, `content` and `lengths` must be [B, K, F], [B, F] and [B], but are "
            f"{list(codes.shape)}, {list(content.shape)} and {list(lengths.shape)}."
        )
    if bool((lengths < 1).any()) or bool((lengths > codes.shape[-1]).any()):
        raise UsageError(
            f"`lengths` must lie in 1 .. {codes.shape[-1]}, but are {lengths.tolist()}."
        )
