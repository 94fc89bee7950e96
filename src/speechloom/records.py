"""What is known of one plugin, whether it works or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum

from speechloom.errors import BackendUnavailable, PluginConflict, PluginError, PluginLoadError
from speechloom.spec import KINDS, ComponentSpec, Kind

__all__ = ["GROUPS", "PluginRecord", "Status"]

GROUPS: Mapping[Kind, str] = {kind: f"speechloom.{kind}s" for kind in KINDS}
"""Entry-point group of each kind of component."""

IMPORT_FAILURES = (Exception, SystemExit)
"""What importing a plugin may raise: a broken torchaudio raises OSError, a script exits."""


class Status(str, Enum):
    """What discovery found out about one plugin."""

    available = "available"
    loaded = "loaded"
    disabled = "disabled"
    incompatible = "incompatible"
    missing_dependency = "missing_dependency"
    broken = "broken"
    shadowed = "shadowed"

    @property
    def usable(self) -> bool:
        """Whether it can be asked for by its short id."""
        return self in (Status.available, Status.loaded)

    @property
    def problem(self) -> bool:
        """Whether somebody should look at it."""
        return not self.usable and self is not Status.disabled

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class PluginRecord:
    """One component as discovery found it.

    Attributes:
        kind: which protocol its entry-point group stands for.
        id: its short id.
        distribution: the distribution that provides it; None for one registered in-process.
        version: of the distribution.
        value: what the entry point names, as ``module:object``.
        status: see `Status`.
        spec: its spec, where that could be read.
        error: one sentence that says why it is not usable; None when it is.
        traceback: of the import that failed, as text.
        origin: folder that it is installed in, or file and line of an in-process class.
    """

    kind: Kind
    id: str
    distribution: str | None
    version: str | None
    value: str
    status: Status
    spec: ComponentSpec | None = None
    error: str | None = None
    traceback: str | None = None
    origin: str | None = None

    @property
    def full_id(self) -> str:
        """``distribution:id``, unique among the components of a kind."""
        return f"{self.distribution or 'in-process'}:{self.id}"

    @property
    def label(self) -> str:
        """What messages call it."""
        source = f"{self.distribution} {self.version}" if self.distribution else "this process"
        return f"{self.kind} {self.id!r} of {source}"

    def failed(self, status: Status, why: str, trace: str | None = None) -> PluginRecord:
        """The same record with a problem; `why` completes "<label> ..."."""
        return replace(self, status=status, error=f"{self.label} {why}", traceback=trace)


def record_of(
    spec: ComponentSpec, distribution: str | None = None, version: str | None = None
) -> PluginRecord:
    """The record of a component that nobody had to discover.

    Args:
        spec: its spec.
        distribution: that provides it; None for this process.
        version: of the distribution.
    """
    return PluginRecord(
        kind=spec.kind,
        id=spec.id,
        distribution=distribution,
        version=version,
        value=spec.implementation,
        status=Status.available,
        spec=spec,
    )


def problem(record: PluginRecord) -> PluginError:
    """The error that stands for a record that is not usable."""
    message = record.error or f"{record.label} is {record.status}"
    if record.status is Status.missing_dependency:
        return BackendUnavailable(message, plugin=record.full_id)
    if record.status is Status.shadowed:
        return PluginConflict(message, plugin=record.full_id)
    return PluginLoadError(
        f"{message}; `speechloom plugins doctor` says more", plugin=record.full_id
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to a readable length."""
    lines = str(error).strip().splitlines() or ["(no message)"]
    return lines[0][:300]
