"""What an evaluation found: per case and summed up, as JSON and as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from speechloom.container import write_atomically
from speechloom.errors import UsageError
from speechloom.eval.confidence import bootstrap_interval, weighted_mean
from speechloom.eval.metrics import Metric, Score
from speechloom.spec import Task

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["CaseResult", "Report", "Summary", "summarise"]

_ARROW = {"lower": "↓", "higher": "↑"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CaseScore(_Record):
    """One value of one case.

    Attributes:
        value: in the metric's unit.
        weight: how much the case counts in the mean.
    """

    value: float
    weight: float = 1.0


class CaseResult(_Record):
    """What was found of one case.

    Attributes:
        id: the case's.
        group: the case's.
        task: the case's.
        scores: by metric.
        skipped: for each metric that has no value, why.
        error: why there is no result at all; None when there is one.
        seconds: duration of the result.
        audio: where the result was kept or was found; None when it was not kept.
    """

    id: str
    group: str
    task: Task
    scores: dict[str, CaseScore] = {}
    skipped: dict[str, str] = {}
    error: str | None = None
    seconds: float | None = None
    audio: str | None = None


class Summary(_Record):
    """One metric over the cases of one group.

    Attributes:
        metric: name.
        group: of the cases.
        unit: of mean, low and high.
        better: whether lower or higher is better.
        n: cases that have a value.
        mean: weighted as the metric says; None when no case has a value.
        low: lower end of the confidence interval; None with fewer than two values.
        high: upper end.
    """

    metric: str
    group: str
    unit: str
    better: Literal["lower", "higher"]
    n: int
    mean: float | None = None
    low: float | None = None
    high: float | None = None


class Report(_Record):
    """The result of an evaluation.

    Attributes:
        summary: for each metric and group, in the order of the metrics.
        cases: in the order given.
        not_installed: for each metric of the default set that was left out, what it needs.
        confidence: of the intervals.
        speechloom: version that made the report.
    """

    summary: tuple[Summary, ...]
    cases: tuple[CaseResult, ...]
    not_installed: dict[str, str] = {}
    confidence: float = 0.95
    speechloom: str

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """Cases that gave no result."""
        return tuple(case for case in self.cases if case.error is not None)

    def mean(self, metric: str, group: str = "result") -> float | None:
        """The mean of one metric in one group; None where there is no value.

        Raises:
            UsageError: the report has no such metric or group.
        """
        for entry in self.summary:
            if (entry.metric, entry.group) == (metric, group):
                return entry.mean
        known = ", ".join(f"{entry.metric} of {entry.group}" for entry in self.summary)
        raise UsageError(f"the report has no {metric} of {group}; it has {known or 'nothing'}")

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for ``json.dumps``."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Report:
        """The report that `to_json` wrote.

        Raises:
            UsageError: it is not one.
        """
        try:
            return cls.model_validate(record)
        except ValidationError as error:
            raise UsageError(f"this is not a report of speechloom eval: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, all of it or nothing.

        Raises:
            OutputError: the path cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomically(Path(path), lambda file: file.write(text.encode()))

    def table(self) -> Table:
        """The summary for people: a row for each metric, a column for each group."""
        from rich.table import Table

        groups = tuple(dict.fromkeys(entry.group for entry in self.summary))
        cells = {(entry.metric, entry.group): _cell(entry) for entry in self.summary}
        table = Table(title=f"mean [{self.confidence:.0%} interval] (cases)")
        table.add_column("metric")
        for group in groups:
            table.add_column(group, justify="right")
        for metric in dict.fromkeys(entry.metric for entry in self.summary):
            first = next(entry for entry in self.summary if entry.metric == metric)
            label = f"{metric} {_ARROW[first.better]} {first.unit}".rstrip()
            table.add_row(label, *(cells[metric, group] for group in groups))
        for metric in self.not_installed:
            table.add_row(metric, *("not installed" for _ in groups))
        return table


def _cell(entry: Summary) -> str:
    if entry.mean is None:
        return "-"
    interval = ""
    if entry.low is not None and entry.high is not None:
        interval = f" [{_number(entry.low)}, {_number(entry.high)}]"
    # Rich reads [word] as markup; numbers in brackets stay as they are.
    return f"{_number(entry.mean)}{interval} ({entry.n})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def to_case_score(score: Score) -> CaseScore:
    """The score as the report keeps it."""
    return CaseScore(value=score.value, weight=score.weight)


def summarise(
    cases: Sequence[CaseResult], metrics: Sequence[Metric], *, confidence: float
) -> tuple[Summary, ...]:
    """Sum up each metric in each group.

    Raises:
        UsageError: confidence lies outside (0, 1).
    """
    groups = tuple(dict.fromkeys(case.group for case in cases))
    return tuple(
        _summarise_one(metric, group, cases, confidence) for metric in metrics for group in groups
    )


def _summarise_one(
    metric: Metric, group: str, cases: Sequence[CaseResult], confidence: float
) -> Summary:
    scores = [c.scores[metric.name] for c in cases if c.group == group and metric.name in c.scores]
    values, weights = [s.value for s in scores], [s.weight for s in scores]
    interval = bootstrap_interval(values, weights, confidence=confidence)
    return Summary(
        metric=metric.name,
        group=group,
        unit=metric.unit,
        better=metric.better,
        n=len(scores),
        mean=weighted_mean(values, weights) if scores else None,
        low=interval[0] if interval else None,
        high=interval[1] if interval else None,
    )
