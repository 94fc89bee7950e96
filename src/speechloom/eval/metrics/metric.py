"""What a metric is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from speechloom.eval.packages import require
from speechloom.eval.sample import Sample

__all__ = ["Metric", "Need", "Score"]

Need = Literal["measurement", "reference", "regions", "transcript", "voice"]
"""What a case must have for a metric to be computed."""

_ABSENT: dict[Need, str] = {
    "measurement": "nothing was made: the result existed already",
    "reference": "the case has no reference recording",
    "regions": "it is not known which part of the result was generated",
    "transcript": "the case does not say what the result should say",
    "voice": "the case has no recording of the voice",
}


@dataclass(frozen=True)
class Score:
    """A value for one case.

    Attributes:
        value: in the metric's unit.
        weight: how much the case counts in the mean, such as its number of words; positive.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Metric:
    """A way of judging one result.

    Attributes:
        name: as in ``--metric``.
        function: gives the score; it raises `UsageError` where the metric does not apply, which
            the report gives as the reason why there is no value.
        unit: of the value; empty for a plain ratio or scale.
        better: whether lower or higher values are better.
        needs: what the sample must have.
        packages: modules that it imports.
        extra: the extra of speechloom that brings them.
        by_default: whether it is computed when no metric is named.
    """

    name: str
    function: Callable[[Sample], Score]
    unit: str
    better: Literal["lower", "higher"]
    needs: tuple[Need, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = ""
    by_default: bool = True

    def check_installed(self) -> None:
        """Import what it needs.

        Raises:
            BackendUnavailable: with the command that installs it.
        """
        for package in self.packages:
            require(package, extra=self.extra, purpose=f"the metric {self.name!r}")

    def reason_against(self, sample: Sample) -> str | None:
        """Why it cannot be computed of a sample; None when it can."""
        return next((_ABSENT[need] for need in self.needs if getattr(sample, need) is None), None)
