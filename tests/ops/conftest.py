from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from speechloom.ops.masked_decode import NoiseKeys

MakeKeys = Callable[..., NoiseKeys]


@pytest.fixture
def make_keys() -> MakeKeys:
    """Keys of N rows at positions 0 .. N - 1 of one item."""

    def make(
        rows: int, *, seed: int = 1, item: int = 0, first: int = 0, step: int = 0
    ) -> NoiseKeys:
        position = torch.arange(first, first + rows)
        return NoiseKeys(
            seed=torch.full_like(position, seed),
            item=torch.full_like(position, item),
            position=position,
            step=step,
        )

    return make
