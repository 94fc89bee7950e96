"""Canvases, codes and features that a component of given facts claims to take.

All are made from small rules, so that an item is the same alone and in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from speechloom.spec import CodecFacts, GeneratorFacts, Task, VocoderFacts
from speechloom.values import Canvas, Codes, Features, pad_stack

__all__ = ["CanvasItem", "codes_for", "features_for", "make_canvas"]


@dataclass(frozen=True)
class CanvasItem:
    """One item of a canvas; all that is made for it follows from these numbers.

    Attributes:
        frames: its length.
        seed: of its request.
        item: its number in the request.
    """

    frames: int
    seed: int = 1
    item: int = 0

    def open_frames(self, task: Task) -> slice:
        """The frames that are to be filled, for one task."""
        third = self.frames // 3
        if task == "edit":
            return slice(third, self.frames - third)
        return slice(third if task == "continue" else 0, self.frames)


def make_canvas(
    facts: GeneratorFacts,
    task: Task,
    content_kind: str | None,
    items: Sequence[CanvasItem],
    *,
    voice: bool = True,
) -> Canvas:
    """A canvas that a generator of these facts claims to fill.

    Args:
        facts: of the generator.
        task: decides what is known.
        content_kind: one of its kinds, or None for none.
        items: what is in the batch.
        voice: whether to give voices, where the generator takes any.
    """
    batch, frames = len(items), max(item.frames for item in items)
    ids = torch.zeros(batch, facts.codebooks, frames, dtype=torch.int64)
    known = torch.zeros(ids.shape, dtype=torch.bool)
    for row, item in enumerate(items):
        ids[row, :, : item.frames] = _ids(item, facts)
        known[row, :, : item.frames] = True
        known[row, :, item.open_frames(task)] = False
    content, segments = _content(content_kind, items, frames, facts.content_size)
    return Canvas(
        task=task,
        ids=torch.where(known, ids, 0),
        known=known,
        lengths=torch.tensor([item.frames for item in items]),
        gives=facts.gives,
        codebook_size=facts.codebook_size,
        frame_rate=facts.frame_rate,
        seeds=torch.tensor([item.seed for item in items]),
        items=torch.tensor([item.item for item in items]),
        content=content,
        content_kind=content_kind,
        segments=segments,
        voices=_voices(facts, batch) if voice else None,
    )


def _ids(item: CanvasItem, facts: GeneratorFacts) -> torch.Tensor:
    """Ids [K, F] in range, with every level and frame different."""
    levels = torch.arange(facts.codebooks)[:, None]
    return (torch.arange(item.frames) * 13 + levels * 7 + item.item) % facts.codebook_size


def _content(
    kind: str | None, items: Sequence[CanvasItem], frames: int, size: int | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Content of ids 0 and 1, which every vocabulary has, in runs of three; or waves."""
    if kind is None:
        return None, None
    if kind.startswith("features:"):
        rows = [_waves(size or 1, item.frames) for item in items]
        return pad_stack(rows, 0.0), None
    run = (torch.arange(frames) // 3).repeat(len(items), 1)
    inside = torch.arange(frames) < torch.tensor([item.frames for item in items])[:, None]
    content = torch.where(inside, run % 2, -1)
    segments = torch.where(inside, run, 0) if kind.startswith("phones:") else None
    return content, segments


def _voices(facts: GeneratorFacts, batch: int) -> torch.Tensor | None:
    """The same voice for every item, of length 1, or None where the generator takes none."""
    if facts.voice is None or facts.voice_size is None:
        return None
    size = facts.voice_size
    return torch.cos(torch.arange(size, dtype=torch.float32)).div(size**0.5).repeat(batch, 1)


def codes_for(facts: CodecFacts, frames: Sequence[int]) -> Codes:
    """Codes that a codec of these facts claims to decode, one item for each length."""
    ids = torch.zeros(len(frames), facts.codebooks, max(frames), dtype=torch.int64)
    for row, length in enumerate(frames):
        steps = torch.arange(length) * 13 + torch.arange(facts.codebooks)[:, None] * 7
        ids[row, :, :length] = steps % facts.codebook_size
    return Codes(
        ids, facts.codes, facts.codebook_size, facts.frame_rate, torch.tensor(list(frames))
    )


def features_for(facts: VocoderFacts, frames: Sequence[int]) -> Features:
    """Features that a vocoder of these facts claims to render, one item for each length."""
    values = pad_stack([_waves(facts.size, length) for length in frames], 0.0)
    return Features(values, facts.features, facts.frame_rate, torch.tensor(list(frames)))


def _waves(size: int, frames: int) -> torch.Tensor:
    """Smooth values [size, frames], each band and frame different."""
    return torch.sin(torch.arange(frames) * 0.7 + torch.arange(size)[:, None] * 0.3)
