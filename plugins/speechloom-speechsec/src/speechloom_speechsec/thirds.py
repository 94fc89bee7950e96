"""Phones at frame rate: which phone a frame is in, and in which third of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["phone_thirds", "thirds_of_segments"]

Ints = npt.NDArray[np.int64]


def phone_thirds(phones: Ints, frames: Ints) -> Ints:
    """Ids int64 [F] of ``phone * 3 + third`` for phones [N] that last ``frames`` [N] frames each.

    Frame i of a phone of n frames lies in third ``3 i // n``.
    """
    total = int(frames.sum())
    starts = np.cumsum(frames) - frames
    inside = np.arange(total) - np.repeat(starts, frames)
    third = 3 * inside // np.repeat(np.maximum(frames, 1), frames)
    return np.asarray(np.repeat(phones, frames) * 3 + third, dtype=np.int64)


def thirds_of_segments(phones: Ints, segments: Ints, none: int) -> Ints:
    """Ids int64 [F] from the phone and the number of the segment of each frame.

    Args:
        phones: int64 [F]; negative where there is no phone.
        segments: int64 [F]; a new number begins a new phone, also after the same one.
        none: id of a frame without a phone.
    """
    starts = np.flatnonzero(np.diff(segments, prepend=segments[:1] - 1))
    frames = np.diff(starts, append=len(segments))
    ids = phone_thirds(phones[starts], frames)
    return np.where(phones < 0, none, ids)
