"""What a network is laid out with for inference, whatever computes it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from speechloom.errors import UsageError

__all__ = ["ENDS", "Convolution", "Layers", "Linear", "Norm", "Rotary", "check_end"]

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine of rotary positions, float32 [F, D / 2] each (Su et al. 2021, RoFormer)."""

ENDS = ("none", "silu", "glu", "swiglu")
"""What may be done to the product of a linear layer: nothing; x sigmoid(x); a sigmoid(b) and
a b sigmoid(b) of its halves a and b, so that half as many outputs are left."""


def check_end(end: str, outputs: int) -> None:
    """Raise a `UsageError` if a product of so many outputs cannot end so."""
    if end not in ENDS:
        raise UsageError(f"`end` must be one of {', '.join(ENDS)}, but is {end!r}.")
    if end in ("glu", "swiglu") and outputs % 2:
        raise UsageError(f"`end` {end!r} needs an even number of outputs, but they are {outputs}.")


class Linear(Protocol):
    """A linear layer, its weights laid out, with what comes after it."""

    def __call__(self, x: Tensor) -> Tensor:
        """[..., I] to [..., O]."""
        ...

    def add_to(self, target: Tensor, x: Tensor, scale: float = 1.0) -> None:
        """Add the scaled result for [..., I] to float32 [..., O], in place."""
        ...


class Norm(Protocol):
    """A norm over the last axis."""

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 [..., D] to [..., D]."""
        ...


class Convolution(Protocol):
    """A depthwise convolution over the frames, with its norm and activation."""

    def __call__(self, x: Tensor) -> Tensor:
        """Float32 [B, F, C] to [B, F, C]; outside of an item the frames are zero."""
        ...


class Layers(Protocol):
    """Makes the layers of a network in one number format.

    Weights are laid out once, here: change them, and make new layers. What is between the layers
    stays float32. They are not for training.
    """

    @property
    def rows_alone(self) -> bool:
        """Whether a row's numbers do not depend on the rows beside it, bit for bit."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Where layers follow each other with nothing between them: they may all run at its end.

        That spares the time from one to the next. Inside, only layers may read what layers write.
        """
        ...

    def linear(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        end: str = "none",
        result: torch.dtype | None = None,
    ) -> Linear:
        """Lay out a linear layer.

        Args:
            weight: float32 [O, I].
            bias: float32 [O] or None.
            end: what is done to the product, one of `ENDS`.
            result: type of what it returns; None takes that of the products.

        Raises:
            UsageError: there is no such end, or an odd number of outputs has no halves.
        """
        ...

    def norm(
        self,
        gain: Tensor,
        bias: Tensor | None = None,
        *,
        epsilon: float = 1e-5,
        centred: bool = True,
        result: torch.dtype | None = None,
    ) -> Norm:
        """Lay out a layer norm, or the root-mean-square norm.

        Args:
            gain: float32 [D].
            bias: float32 [D] or None.
            epsilon: added to the variance.
            centred: take the mean away first; False for the root-mean-square norm.
            result: as in `linear`.
        """
        ...

    def convolution(
        self, taps: Tensor, tap_bias: Tensor | None, norm: Any, *, silu_first: bool = False
    ) -> Convolution:
        """Lay out a depthwise convolution with its norm and SiLU.

        Args:
            taps: float32 [T, C]; the middle one is of the frame itself.
            tap_bias: float32 [C] or None.
            norm: of the same layers, over C; its type is the result's.
            silu_first: convolution, SiLU, norm; else convolution, norm, SiLU.
        """
        ...

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        mask: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> Tensor:
        """Attention of all frames to all frames.

        Args:
            q: [B, H, F, D], in the format of the products, and so are the others.
            k: [B, H, F, D].
            v: [B, H, F, D].
            mask: bool, broadcast to [B, H, F, F], False where nothing is to be heard; or None.
                Each row hears something.
            rotary: turns the halves of queries and keys by their positions first; or None.

        Returns:
            [B, F, H D].
        """
        ...
