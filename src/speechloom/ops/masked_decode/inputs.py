"""What goes into a decoding step and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from torch import Tensor

from speechloom.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a token is drawn from the scores of its row.

    Attributes:
        temperature: divides the scores; 0 takes the best id, the lowest of equals.
        top_k: keep the k best ids and those equal to the k-th; 0 keeps all.
        top_p: of those, keep the fewest best ids that hold this share of the probability, and
            those equal to the last of them; 1 keeps all.
        guidance: weight of classifier-free guidance; 1 is the conditional scores alone.
        forbidden: ids that are never drawn.

    Raises:
        UsageError: temperature, top_k or top_p is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"`temperature` must be 0 or more, but is {self.temperature}.")
        if self.top_k < 0:
            raise UsageError(f"`top_k` must be 0 (all) or more, but is {self.top_k}.")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"`top_p` must be above 0 and at most 1, but is {self.top_p}.")


@dataclass(frozen=True, kw_only=True)
class LogitScores:
    """Scores that exist already.

    Attributes:
        logits: float [N, V].
        unconditional: float [N, V] for guidance, or None.
    """

    logits: Tensor
    unconditional: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HeadScores:
    """Scores as hidden states and the head that makes logits of them.

    Attributes:
        hidden: float [N, D].
        weight: float [V, D].
        bias: float [V], or None.
        unconditional: hidden states, float [N, D], for guidance, or None.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    unconditional: Tensor | None = None


Scores = Union[LogitScores, HeadScores]  # noqa: UP007 - an alias is evaluated on Python 3.10 too
"""Where the scores of the open rows come from."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Outcome of a step for N rows.

    Attributes:
        tokens: int64 [N].
        confidence: float32 [N], what the rows were ranked by.
        closes: bool [N], False for a row that stays open: its token is to be thrown away.
    """

    tokens: Tensor
    confidence: Tensor
    closes: Tensor
