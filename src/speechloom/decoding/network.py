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

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """Run the network on some items of the batch, and give what it says of open positions.

        Args:
            codes: int64 [A, K, F].
            level: the level that is decoded.
            lengths: int64 [A], at most F; frames past them are padding.
            items: int64 [A], which items of the batch these are.
            rows: int64 [N], which of the A items each open position is of, ascending.
            frames: int64 [N], which frame of it; ascending in `masked_decode`, but a frame may come
                several times in a decoding of fixed shapes (`speechloom.decoding.graphs`).

        Returns:
            float [N, D].
        """
        ...

    def head(self, level: int) -> tuple[Tensor, Tensor | None]:
        """Weight [V, D] and bias [V] of a level's output head."""
        ...
