"""Keep what did not change from one pass of the network to the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

__all__ = ["FrameMemory"]


class FrameMemory:
    """What a network computes of each frame by itself, kept for the passes that follow.

    Most codes of a canvas are the same in two passes of a level. Up to the first attention a frame
    is computed from its own codes alone: where these are what they were, so is the result. With
    layers whose rows do not depend on each other the numbers are the same, bit for bit.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._codes: Tensor | None = None
        self._kept: tuple[Tensor, ...] = ()

    def __call__(
        self,
        codes: Tensor,
        compute: Callable[[Tensor], tuple[Tensor, ...]],
        *,
        key: Hashable = None,
    ) -> tuple[Tensor, ...]:
        """Compute the frames whose codes changed since the last call; return all.

        Args:
            codes: int64 [K, F] of one item.
            compute: gives tensors [N, ...] of frames, int64 [N].
            key: what else the result depends on; another key than before computes all frames.

        Returns:
            Tensors [F, ...], which later calls change.
        """
        before, frames = self._codes, torch.arange(codes.shape[-1], device=codes.device)
        # What is kept may be changed by any later call, also by one that is not in this mode.
        with torch.inference_mode():
            if before is None or key != self._key or before.shape != codes.shape:
                self._codes = None  # also if this fails
                self._kept = compute(frames)
            elif len(changed := frames[(codes != before).any(0)]):
                for kept, new in zip(self._kept, compute(changed), strict=True):
                    kept[changed] = new
        self._codes, self._key = codes.clone(), key
        return self._kept
