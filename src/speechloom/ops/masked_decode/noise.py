"""Counter-based noise: a draw is a pure function of what it is for.

Philox4x32-10 in plain int64 operations, so that every device and every implementation gives the
same bits. Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechloom.errors import UsageError

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
MAX_STEP, MAX_LEVEL, MAX_STAGE = 1 << 16, 1 << 8, 1 << 8


@dataclass(frozen=True, kw_only=True)
class NoiseKeys:
    """What the draws of N rows are for; two draws with equal keys are equal.

    Attributes:
        seed: int64 [N], of the request.
        item: int64 [N], number of the item in its request; the lower 32 bits count.
        position: int64 [N], frame; the lower 32 bits count.
        stage: number of the generator in its pipeline, below 256.
        level: codebook, below 256.
        step: decoding step of the level, below 65536.

    Raises:
        UsageError: stage, level or step is negative or too large.
    """

    seed: Tensor
    item: Tensor
    position: Tensor
    stage: int = 0
    level: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        for name, limit in (("stage", MAX_STAGE), ("level", MAX_LEVEL), ("step", MAX_STEP)):
            value = getattr(self, name)
            if not 0 <= value < limit:
                raise UsageError(f"`{name}` must lie in 0 .. {limit - 1}, but is {value}.")

    @property
    def packed(self) -> int:
        """The counter word that holds step, level and stage."""
        return self.step | self.level << 16 | self.stage << 24


def uniforms(keys: NoiseKeys) -> tuple[Tensor, Tensor]:
    """Two independent uniform numbers per row, float32 [N] in (0, 1), never 0 or 1.

    Key = the seed's low and high word; counter = (position, packed step, item, 0). The first
    number is for the token, the second for its confidence.
    """
    counter = (
        keys.position & WORD,
        torch.full_like(keys.position, keys.packed),
        keys.item & WORD,
        torch.zeros_like(keys.position),
    )
    words = philox4x32(counter, (keys.seed & WORD, (keys.seed >> 32) & WORD))
    return _unit(words[0]), _unit(words[1])


def philox4x32(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32 with ten rounds; all words are int64 tensors that hold 32 bits."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _wide_multiply(c0, MULTIPLIERS[0])
        high1, low1 = _wide_multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def _wide_multiply(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 32 x 32 bit product; in halves, as int64 has no 64 unsigned bits."""
    low_part = (x & 0xFFFF) * factor
    middle = (x >> 16) * factor + (low_part >> 16)
    return middle >> 16, ((middle & 0xFFFF) << 16) | (low_part & 0xFFFF)


def _unit(word: Tensor) -> Tensor:
    """The upper 23 bits as the middle of one of 2**23 cells: exact in float32."""
    return ((word >> 9) * 2 + 1).to(torch.float32) * 2.0**-24
