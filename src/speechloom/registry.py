"""The registry: every component that is installed or was registered, and the loaded ones.

>>> from speechloom.registry import Registry
>>> Registry(entry_points=(), environ={}).specs("codec")
()
"""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from speechloom import suggestions
from speechloom.discovery import Switches, discover, installed_entry_points
from speechloom.errors import PluginConflict, PluginNotFound, UsageError
from speechloom.loading import PROTOCOLS, build, missing_methods
from speechloom.protocols import Component
from speechloom.records import GROUPS, PluginRecord, Status, problem
from speechloom.spec import KINDS, AnyFacts, ComponentSpec, Facts, Kind

__all__ = ["GROUPS", "PROTOCOLS", "PluginRecord", "Registry", "Status", "default_registry"]

_Key = tuple[Kind, str]


@dataclass(frozen=True)
class _Local:
    """A component of this process: an instance, or a class that is built when it is loaded."""

    record: PluginRecord
    instance: Component | None
    factory: type[Any] | None


class Registry:
    """Finds components by kind and id, and loads each at most once per device.

    It is safe to use from several threads.

    Args:
        entry_points: what to discover; None reads the metadata of everything installed. Given
            ones isolate the registry, for tests.
        environ: where the ``SPEECHLOOM_*`` switches are read; None is the process's environment.
    """

    def __init__(
        self,
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._entry_points = None if entry_points is None else tuple(entry_points)
        self._environ = os.environ if environ is None else environ
        self._lock = threading.RLock()
        self._discovered: tuple[PluginRecord, ...] | None = None
        self._local: dict[_Key, _Local] = {}
        self._loaded: dict[tuple[Kind, str, str, Facts], Component] = {}

    def records(self, kind: Kind | None = None) -> tuple[PluginRecord, ...]:
        """Everything that was found, usable or not, sorted by kind and id.

        Args:
            kind: only this kind; None means all.

        Raises:
            UsageError: there is no such kind.
            PluginError: a plugin has a problem and ``SPEECHLOOM_STRICT_PLUGINS=1`` is set.
        """
        if kind is not None:
            _check_kind(kind)
        with self._lock:
            if self._discovered is None:
                points = self._entry_points
                points = installed_entry_points() if points is None else points
                self._discovered = discover(points, Switches.read(self._environ))
            found = [self._current(record) for record in self._discovered]
            found += [self._current(local.record) for local in self._local.values()]
        found.sort(key=lambda record: (KINDS.index(record.kind), record.id, record.full_id))
        return tuple(record for record in found if kind in (None, record.kind))

    def specs(self, kind: Kind) -> tuple[ComponentSpec, ...]:
        """Specs of the components that can be used by their short id, sorted by id."""
        usable = (record for record in self.records(kind) if record.status.usable)
        return tuple(record.spec for record in usable if record.spec is not None)

    def get(self, kind: Kind, id: str) -> PluginRecord:
        """The record of one component, which may be one that cannot be loaded.

        Args:
            kind: its kind.
            id: its id, or ``distribution:id``.

        Raises:
            PluginNotFound: nothing has that id; the message says what is close to it.
            PluginConflict: two distributions provide it and none is preferred.
        """
        everything = self.records()
        _check_kind(kind)
        records = [record for record in everything if record.kind == kind]
        exact = [record for record in records if id in (record.id, record.full_id)]
        usable = [record for record in exact if record.status.usable]
        if usable:
            return usable[0]
        if not exact:
            raise PluginNotFound(suggestions.not_found(kind, id, everything), plugin=f"{kind}/{id}")
        shadowed = [record for record in exact if record.status is Status.shadowed]
        if len(shadowed) > 1:
            names = " and ".join(record.full_id for record in shadowed)
            raise PluginConflict(
                f"{kind} {id!r} is provided by {names}; ask for one of these full ids, or set "
                f"SPEECHLOOM_PREFER={shadowed[0].distribution}",
                plugin=f"{kind}/{id}",
            )
        return (shadowed or exact)[0]

    def load(
        self, kind: Kind, id: str, *, device: str = "cpu", facts: AnyFacts | None = None
    ) -> Component:
        """The component itself, built with its weights the first time it is asked for.

        Args:
            kind: its kind.
            id: its id, or ``distribution:id``.
            device: as torch names it.
            facts: what it is to be built for, where it can be built for several kinds of features
                (`VocoderFacts.playing`); None for the facts that it announced.

        Raises:
            PluginNotFound: nothing has that id.
            PluginConflict: two distributions provide it and none is preferred.
            BackendUnavailable: a package that it needs is not here.
            PluginLoadError: it is switched off, incompatible or fails; the cause is chained.
            WeightsError: its weights are missing or damaged.
        """
        with self._lock:
            record = self.get(kind, id)
            if record.spec is None:
                raise problem(record)
            wanted = record.spec.facts if facts is None else facts
            key = (kind, record.full_id, device, wanted)
            if key not in self._loaded:
                self._loaded[key] = self._build(record, device, wanted)
            return self._loaded[key]

    def register(
        self, component_or_class: Component | type[Any], *, spec: ComponentSpec | None = None
    ) -> None:
        """Add a component of this process, for research code and notebooks.

        It goes before an installed one of the same id. Registering an id again replaces it.

        Args:
            component_or_class: an instance, which has its ``spec``, or a class.
            spec: of the class; not needed where the class has one as an attribute.

        Raises:
            UsageError: there is no spec, or a method of the protocol is missing.
        """
        local = _local(component_or_class, spec)
        key = (local.record.kind, local.record.id)
        with self._lock:
            self._forget(key)
            self._local[key] = local

    @contextmanager
    def override(self, *components: Component | type[Any]) -> Iterator[None]:
        """Use these components inside the ``with`` block, and what was there before after it.

        Args:
            components: as `register` takes them; a class needs a ``spec`` attribute.

        Raises:
            UsageError: as `register` does.
        """
        locals_ = [_local(component, None) for component in components]
        keys = {(local.record.kind, local.record.id) for local in locals_}
        with self._lock:
            before = {key: self._local.get(key) for key in keys}
            for key in keys:
                self._forget(key)
            self._local.update({(loc.record.kind, loc.record.id): loc for loc in locals_})
        try:
            yield
        finally:
            with self._lock:
                for key, local in before.items():
                    self._forget(key)
                    if local is not None:
                        self._local[key] = local

    def _forget(self, key: _Key) -> None:
        """Drop an in-process component and what was built from it."""
        kind, id = key
        self._local.pop(key, None)
        mine = (kind, f"in-process:{id}")
        self._loaded = {k: v for k, v in self._loaded.items() if k[:2] != mine}

    def _current(self, record: PluginRecord) -> PluginRecord:
        """The record as it stands now: loaded, or hidden by one of this process."""
        installed = record.distribution is not None
        if installed and record.status.usable and (record.kind, record.id) in self._local:
            return record.failed(Status.shadowed, "is replaced by one registered in this process")
        loaded = any(key[:2] == (record.kind, record.full_id) for key in self._loaded)
        return replace(record, status=Status.loaded) if loaded else record

    def _build(self, record: PluginRecord, device: str, facts: AnyFacts) -> Component:
        """Build what a record stands for, with the facts that are wanted of it."""
        local = self._local.get((record.kind, record.id))
        assert record.spec is not None, "a record without a spec is refused before"
        as_announced = facts == record.spec.facts
        if not as_announced:
            record = replace(record, spec=record.spec.model_copy(update={"facts": facts}))
        if record.distribution is None and local is not None:
            if local.instance is not None and as_announced:
                return local.instance
            return build(record, device, local.factory or type(local.instance))
        # A shadowed record was asked for by its full id, and works as well as any other.
        if not record.status.usable and record.status is not Status.shadowed:
            raise problem(record)
        return build(record, device)


def default_registry() -> Registry:
    """The registry of this process, made when it is first asked for."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Registry()
        return _default


_default: Registry | None = None
_default_lock = threading.Lock()


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r} of component; kinds are {', '.join(KINDS)}")


def _local(component: Component | type[Any], spec: ComponentSpec | None) -> _Local:
    """Check a component of this process and make its record."""
    cls = component if isinstance(component, type) else type(component)
    if spec is None:
        spec = getattr(component, "spec", None)
    if not isinstance(spec, ComponentSpec):
        raise UsageError(
            f"{cls.__qualname__} has no spec: give its ComponentSpec as `spec=` or as an attribute"
        )
    missing = missing_methods(cls, spec.kind)
    if missing:
        raise UsageError(
            f"{cls.__qualname__} cannot be the {spec.kind} {spec.id!r}: it lacks "
            f"{', '.join(missing)} of the protocol {PROTOCOLS[spec.kind].__name__}"
        )
    record = PluginRecord(
        kind=spec.kind,
        id=spec.id,
        distribution=None,
        version=None,
        value=f"{cls.__module__}:{cls.__qualname__}",
        status=Status.available,
        spec=spec,
        origin=_place(cls),
    )
    if isinstance(component, type):
        return _Local(record, instance=None, factory=component)
    return _Local(record, instance=component, factory=None)


def _place(cls: type[Any]) -> str | None:
    """File and line of a class, where they can be found; a notebook's may not be."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return None
