"""Which learners are installed, and getting one of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from speechloom.discovery import Switches, installed_entry_points, missing_requirements
from speechloom.errors import BackendUnavailable, PluginLoadError, PluginNotFound
from speechloom.records import IMPORT_FAILURES, first_line
from speechloom.suggestions import did_you_mean
from speechloom.training.spec import GROUP, LearnerSpec

if TYPE_CHECKING:
    from speechloom.training.learner import Learner

__all__ = ["LearnerRecord", "find_learner", "find_learners", "learner_class"]


@dataclass(frozen=True)
class LearnerRecord:
    """One learner as its entry point announces it.

    Attributes:
        id: its short name.
        distribution: who provides it, with its version.
        spec: its spec, where that could be read.
        error: one sentence that says why it cannot be used; None when it can.
    """

    id: str
    distribution: str
    spec: LearnerSpec | None = None
    error: str | None = None


def find_learners(entry_points: Iterable[EntryPoint] | None = None) -> tuple[LearnerRecord, ...]:
    """Record every learner, whether it works or not; nothing of torch is imported.

    Args:
        entry_points: of any groups; those that are installed by default.
    """
    points = installed_entry_points() if entry_points is None else entry_points
    switches = Switches.read(os.environ)
    records = [
        _record(point)
        for point in points
        if point.group == GROUP
        and switches.refusal(point.name, point.dist.name if point.dist else None) is None
    ]
    return tuple(sorted(records, key=lambda record: (record.id, record.distribution)))


def find_learner(id: str, records: Iterable[LearnerRecord]) -> LearnerRecord:
    """The usable learner of that name.

    Raises:
        PluginNotFound: there is none; the message lists those that exist.
        PluginLoadError: it cannot be used.
        BackendUnavailable: a package that it needs is not installed.
    """
    known = {record.id: record for record in records}
    if id not in known:
        close = did_you_mean(id, known)
        meant = f"; did you mean {close!r}?" if close else ""
        names = ", ".join(sorted(known)) or "none (install a plugin that brings one)"
        raise PluginNotFound(
            f"there is no learner {id!r}{meant}; installed are {names}", plugin=f"learner/{id}"
        )
    record = known[id]
    if record.spec is None:
        raise PluginLoadError(f"{record.error}", plugin=f"learner/{id}")
    if record.error is not None:
        raise BackendUnavailable(record.error, plugin=f"learner/{id}")
    return record


def learner_class(record: LearnerRecord) -> type[Learner]:
    """Import the class that a record names.

    Raises:
        BackendUnavailable: a package that it needs is not installed.
        PluginLoadError: it cannot be imported, or is no learner.
    """
    from speechloom.training.learner import Learner

    assert record.spec is not None, f"{record.id} was not found by find_learner"
    module, _, name = record.spec.implementation.partition(":")
    plugin = f"learner/{record.id}"
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"learner {record.id!r} needs the module {error.name!r}, which is not installed",
            plugin=plugin,
        ) from error
    except IMPORT_FAILURES as error:
        raise PluginLoadError(
            f"learner {record.id!r} of {record.distribution} cannot be imported: "
            f"{type(error).__name__}: {first_line(error)}",
            plugin=plugin,
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Learner)):
        raise PluginLoadError(
            f"{record.spec.implementation} of {record.distribution} is not a Learner",
            plugin=plugin,
        )
    return cls


def _record(point: EntryPoint) -> LearnerRecord:
    dist = point.dist
    whose = f"{dist.name} {dist.version}" if dist else "this process"
    try:
        spec = point.load()
    except IMPORT_FAILURES as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        return LearnerRecord(
            point.name,
            whose,
            error=f"learner {point.name!r} of {whose} cannot be imported: {why}",
        )
    if not isinstance(spec, LearnerSpec) or spec.id != point.name:
        found = f"the learner {spec.id!r}" if isinstance(spec, LearnerSpec) else type(spec).__name__
        return LearnerRecord(
            point.name,
            whose,
            error=f"{point.value} of {whose} must be a LearnerSpec of id {point.name!r}, but is "
            f"{found}",
        )
    missing = missing_requirements(spec.requires)
    needs = f"learner {spec.id!r} of {whose} needs {' and '.join(missing)}" if missing else None
    return LearnerRecord(point.name, whose, spec, needs)
