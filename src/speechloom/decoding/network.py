"""What the decoding loop needs of a network."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class MaskedNetwork(Protocol):
    """A network whose condition is already embedded."""

    @property
    def codebook_size(self) -> int:
        """Ids V per level; id V in the input means unknown."""
        ...

    @property
    def unconditional(self) -> MaskedNetwork | None:
        """The same network without its condition, for guidance; None if it has none."""
        ...

    def hidden(self, codes: Tensor, level: int, lengths: Tensor, items: Tensor) -> Tensor:
        """Run the network on some items of the batch.

        Args:
            codes: int64 [A, K, F].
            level: the level that is decoded.
            lengths: int64 [A], at most F; frames past them are padding.
            items: int64 [A], which items of the batch these are.

        Returns:
            float [A, F, D].
        """
        ...

    def head(self, level: int) -> tuple[Tensor, Tensor | None]:
        """Weight [V, D] and bias [V] of a level's output head."""
        ...
