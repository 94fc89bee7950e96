"""Phones at frame rate: which phone a frame is in, and in which third of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speechloom_starter.phones import PHONES

Ints = npt.NDArray[np.int64]
THIRDS_VOCABULARY = 3 * len(PHONES)


def phone_thirds(phones: Ints, frames: Ints) -> Ints:
    """Ids int64 [F] of ``phone * 3 + third`` for phones [N] that last ``frames`` [N] frames each.

    Frame i of a phone of n frames lies in third ``3 i // n``.
    """
    total = int(frames.sum())
    starts = np.cumsum(frames) - frames
    inside = np.arange(total) - np.repeat(starts, frames)
    third = 3 * inside // np.repeat(np.maximum(frames, 1), frames)
    return np.asarray(np.repeat(phones, frames) * 3 + third, dtype=np.int64)
