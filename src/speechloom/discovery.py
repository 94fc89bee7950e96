"""Finding plugins: reading entry points and light specs, recording what is wrong with each.

Nothing here raises because of a plugin, unless ``SPEECHLOOM_STRICT_PLUGINS=1`` asks for it: each
entry point becomes a `PluginRecord` with a status, and a broken one harms no other. pluggy's own
loader is not used, because it imports everything and stops at the first failure.
"""

from __future__ import annotations

import importlib.metadata
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from speechloom.records import (
    GROUPS,
    IMPORT_FAILURES,
    PluginRecord,
    Status,
    first_line,
    problem,
)
from speechloom.spec import API_VERSION, KINDS, ComponentSpec, Kind

__all__ = ["Switches", "discover", "installed_entry_points"]


@dataclass(frozen=True)
class Switches:
    """What the environment says about plugins.

    Attributes:
        allowed: ``SPEECHLOOM_PLUGINS``, ids or distribution names; None allows all, and an
            empty list none.
        disabled: ``SPEECHLOOM_DISABLE_PLUGINS``; wins over `allowed`.
        preferred: ``SPEECHLOOM_PREFER``, distributions that win a collision, best first.
        strict: ``SPEECHLOOM_STRICT_PLUGINS=1``, problems raise.
        trace: ``SPEECHLOOM_PLUGIN_TRACE=1``, tracebacks of plugins go to stderr.
    """

    allowed: frozenset[str] | None = None
    disabled: frozenset[str] = frozenset()
    preferred: tuple[str, ...] = ()
    strict: bool = False
    trace: bool = False

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Switches:
        """Read them from an environment."""
        allowed = environ.get("SPEECHLOOM_PLUGINS")
        return cls(
            allowed=None if allowed is None else frozenset(_names(allowed)),
            disabled=frozenset(_names(environ.get("SPEECHLOOM_DISABLE_PLUGINS", ""))),
            preferred=_names(environ.get("SPEECHLOOM_PREFER", "")),
            strict=_is_on(environ.get("SPEECHLOOM_STRICT_PLUGINS")),
            trace=_is_on(environ.get("SPEECHLOOM_PLUGIN_TRACE")),
        )

    def refusal(self, name: str, distribution: str | None) -> str | None:
        """Why a plugin is switched off, or None when it is not."""
        dist = canonicalize_name(distribution or "")
        names = {canonicalize_name(name), dist, f"{dist}:{canonicalize_name(name)}"}
        if names & self.disabled:
            return "is switched off by SPEECHLOOM_DISABLE_PLUGINS"
        if self.allowed is not None and not names & self.allowed:
            return "is not in the allow-list SPEECHLOOM_PLUGINS"
        return None


def _names(value: str) -> tuple[str, ...]:
    """Split at commas; names compare as distribution names do (``My_Codec`` is ``my-codec``)."""
    names = (name.strip() for name in value.split(","))
    return tuple(":".join(map(canonicalize_name, name.split(":"))) for name in names if name)


def _is_on(value: str | None) -> bool:
    return (value or "").strip().lower() not in ("", "0", "false", "no", "off")


def installed_entry_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    """Entry points of every installed distribution, in all ``speechloom.*`` groups."""
    found = importlib.metadata.entry_points()
    groups = sorted(group for group in found.groups if group.startswith("speechloom."))
    return tuple(point for group in groups for point in found.select(group=group))


def discover(
    entry_points: Iterable[importlib.metadata.EntryPoint], switches: Switches
) -> tuple[PluginRecord, ...]:
    """Record every component that the entry points announce.

    Args:
        entry_points: of any groups; those of no component kind are passed over.
        switches: from the environment.

    Returns:
        Records sorted by kind and full id.

    Raises:
        PluginError: only when `switches` are strict and there is a problem.
    """
    kinds = {group: kind for kind, group in GROUPS.items()}
    records = [_read(kinds[p.group], p, switches) for p in entry_points if p.group in kinds]
    records = _settle_collisions(records, switches.preferred)
    records.sort(key=lambda record: (KINDS.index(record.kind), record.id, record.full_id))
    for record in records:
        if switches.trace and record.traceback:
            print(record.traceback, file=sys.stderr, end="")
        if switches.strict and record.status.problem:
            raise problem(record)
    return tuple(records)


def _read(kind: Kind, point: importlib.metadata.EntryPoint, switches: Switches) -> PluginRecord:
    """Import one spec and judge it."""
    dist = point.dist
    record = PluginRecord(
        kind=kind,
        id=point.name,
        distribution=dist.name if dist else None,
        version=dist.version if dist else None,
        value=point.value,
        status=Status.available,
        origin=str(dist.locate_file("")) if dist else None,
    )
    refusal = switches.refusal(point.name, record.distribution)
    if refusal:
        return record.failed(Status.disabled, refusal)
    try:
        spec = point.load()
    except IMPORT_FAILURES as error:
        return record.failed(Status.broken, _import_failure(error), traceback.format_exc())
    return _judge(record, spec)


def _import_failure(error: BaseException) -> str:
    reason = f"cannot be imported: {type(error).__name__}: {first_line(error)}"
    unknown = isinstance(error, ValidationError) and any(
        detail["type"] == "extra_forbidden" for detail in error.errors()
    )
    hint = "; its spec has fields that this speechloom does not know, it may need a newer one"
    return reason + (hint if unknown else "")


def _judge(record: PluginRecord, spec: object) -> PluginRecord:
    """Check a spec against its entry point, the core's api version and what is installed."""
    if not isinstance(spec, ComponentSpec):
        found = type(spec).__name__
        return record.failed(
            Status.broken, f"must name a ComponentSpec, but {record.value} is of type {found}"
        )
    if (spec.kind, spec.id) != (record.kind, record.id):
        return record.failed(
            Status.broken,
            f"disagrees with its entry point: {record.value} is the spec of {spec.kind} "
            f"{spec.id!r}, so it belongs in group {GROUPS[spec.kind]} under the name {spec.id!r}",
        )
    record = replace(record, spec=spec)
    if not _speaks(spec.api_version):
        return record.failed(
            Status.incompatible,
            f"is written for api version {spec.api_version}, but this speechloom speaks "
            f"{API_VERSION}; install versions of both that match",
        )
    try:
        missing = missing_requirements(spec.requires)
    except ValueError as error:
        return record.failed(Status.broken, f"has an unreadable requirement: {first_line(error)}")
    if missing:
        return record.failed(
            Status.missing_dependency, f"needs {' and '.join(missing)}; {_how_to_get(spec)}"
        )
    return record


def _speaks(version: str) -> bool:
    """Same major version, and no younger minor version than the core's."""
    major, minor = (int(part) for part in version.split("."))
    own_major, own_minor = (int(part) for part in API_VERSION.split("."))
    return major == own_major and minor <= own_minor


def missing_requirements(requires: Iterable[str]) -> list[str]:
    """Say which PEP 508 requirements are not met here.

    Raises:
        ValueError: one of them is not a requirement.
    """
    missing = []
    for text in requires:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"{requirement.name}{requirement.specifier} (not installed)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{requirement.name}{requirement.specifier} (found {version})")
    return missing


def _how_to_get(spec: ComponentSpec) -> str:
    command = spec.install or "pip install " + " ".join(f"'{r}'" for r in spec.requires)
    return f"run `{command}`"


def _settle_collisions(
    records: list[PluginRecord], preferred: tuple[str, ...]
) -> list[PluginRecord]:
    """Name collisions among usable components; a broken one does not take an id away."""
    rivals: dict[tuple[Kind, str], list[PluginRecord]] = {}
    for record in records:
        if record.status.usable:
            rivals.setdefault((record.kind, record.id), []).append(record)
    settled = []
    for record in records:
        group = rivals.get((record.kind, record.id), [])
        collides = record.status.usable and len(group) > 1
        settled.append(_collision(record, group, preferred) if collides else record)
    return settled


def _collision(
    record: PluginRecord, group: list[PluginRecord], preferred: tuple[str, ...]
) -> PluginRecord:
    by_name: dict[str, PluginRecord] = {
        canonicalize_name(rival.distribution or ""): rival for rival in group
    }
    winner = next((by_name[name] for name in preferred if name in by_name), None)
    if winner is record:
        return record
    if winner is not None:
        return record.failed(
            Status.shadowed,
            f"gives way to {winner.distribution}, which SPEECHLOOM_PREFER names; "
            f"ask for {record.full_id!r} to get this one",
        )
    others = ", ".join(rival.full_id for rival in group if rival is not record)
    return record.failed(
        Status.shadowed,
        f"has the same id as {others}; ask for the full id {record.full_id!r}, or set "
        f"SPEECHLOOM_PREFER={record.distribution}",
    )
