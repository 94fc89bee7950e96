"""The hook bus: plugins that are told of what happens, or have a say in it.

A hook plugin is a module or an object with functions marked by `hookimpl`, announced in the
entry-point group ``speechloom.hooks``. An implementation may take fewer arguments than the hook
has, so hooks can grow without breaking plugins. pluggy calls them; finding and importing them is
ours, so that a broken one harms no other.

>>> from speechloom.hooks import Hooks, hookimpl
>>> class Quiet:
...     @hookimpl
...     def speechloom_router_policy(self, chains):
...         return sorted(chains)
>>> hooks = Hooks(entry_points=(), environ={})
>>> hooks.register(Quiet())
>>> hooks.router_policy(["b", "a"])
['a', 'b']
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from speechloom.discovery import Switches, installed_entry_points
from speechloom.errors import PluginError, PluginLoadError
from speechloom.hookspecs import PREFIX, HookSpecs, hookimpl
from speechloom.records import IMPORT_FAILURES, Status, first_line
from speechloom.suggestions import did_you_mean

if TYPE_CHECKING:
    import typer

    from speechloom.speech import Request, Speech

__all__ = ["GROUP", "HookRecord", "HookSpecs", "Hooks", "default_hooks", "hookimpl"]

GROUP = "speechloom.hooks"
"""Entry-point group of hook plugins."""

Chain = TypeVar("Chain")


@dataclass(frozen=True)
class HookRecord:
    """One hook plugin as discovery found it; the fields mean what they mean in `PluginRecord`.

    Attributes:
        hooks: names of the hooks that it implements.
    """

    name: str
    distribution: str | None
    version: str | None
    value: str
    status: Status
    hooks: tuple[str, ...] = ()
    error: str | None = None
    traceback: str | None = None


class Hooks:
    """The hook plugins of one process, found when a hook is first called.

    Args:
        entry_points: what to discover; None reads the metadata of everything installed.
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
        self._manager = pluggy.PluginManager("speechloom")
        self._manager.add_hookspecs(HookSpecs)
        self._records: tuple[HookRecord, ...] | None = None

    def records(self) -> tuple[HookRecord, ...]:
        """Every hook plugin that is installed, usable or not, sorted by name.

        Raises:
            PluginLoadError: one has a problem and ``SPEECHLOOM_STRICT_PLUGINS=1`` is set.
        """
        with self._lock:
            if self._records is None:
                points = self._entry_points
                points = installed_entry_points() if points is None else points
                switches = Switches.read(self._environ)
                found = [self._read(p, switches) for p in points if p.group == GROUP]
                self._records = tuple(sorted(found, key=lambda record: record.name))
            return self._records

    def register(self, plugin: object, *, name: str | None = None) -> None:
        """Add a hook plugin of this process.

        Args:
            plugin: a module or an object with functions marked by `hookimpl`.
            name: what errors call it; None takes its own name.

        Raises:
            PluginLoadError: it implements no hook, one that does not exist, or takes an argument
                that the hook does not have.
        """
        name = name or str(getattr(plugin, "__name__", type(plugin).__name__))
        with self._lock:
            self.records()
            self._add(plugin, f"{name}#{id(plugin)}" if self._manager.has_plugin(name) else name)

    def unregister(self, plugin: object) -> None:
        """Take a hook plugin of this process out again."""
        self._manager.unregister(plugin)

    @contextmanager
    def using(self, plugin: object) -> Iterator[None]:
        """Have a hook plugin inside a ``with`` block only."""
        self.register(plugin)
        try:
            yield
        finally:
            self.unregister(plugin)

    def register_commands(self, app: typer.Typer) -> None:
        """Let plugins add commands; one that fails is recorded as broken and warned of.

        The command line must start all the same: it is what finds broken plugins.
        """
        self.records()
        everyone = self._manager.get_plugins()
        for plugin in everyone:
            caller = self._manager.subset_hook_caller(
                "speechloom_register_commands", everyone - {plugin}
            )
            try:
                caller(app=app)
            except Exception as error:
                name = self._manager.get_name(plugin) or repr(plugin)
                self._mark_broken(name, error)

    def before_task(self, request: Request) -> None:
        """Tell plugins that a request is about to run."""
        self._call("speechloom_before_task", request=request)

    def after_task(self, request: Request, speech: Speech) -> None:
        """Tell plugins that a request is done."""
        self._call("speechloom_after_task", request=request, speech=speech)

    def progress(self, event: object) -> None:
        """Tell plugins of one step of the work."""
        self._call("speechloom_progress", event=event)

    def router_policy(self, chains: Sequence[Chain]) -> list[Chain]:
        """The chains in the order that a plugin gives them, or as they are.

        Raises:
            PluginError: a plugin raised, or returned something that is not among `chains`.
        """
        ordered = self._call("speechloom_router_policy", chains=list(chains))
        if ordered is None:
            return list(chains)
        if not ordered or any(chain not in chains for chain in ordered):
            who = self._implementers("speechloom_router_policy")
            raise PluginError(
                f"speechloom_router_policy of {who} must return some of the chains that it was "
                f"given, but returned {ordered!r:.200}",
                plugin=who,
            )
        return list(ordered)

    def _mark_broken(self, name: str, error: Exception) -> None:
        message = (
            f"hook plugin {name!r} could not add its commands: {type(error).__name__}: "
            f"{first_line(error)}"
        )
        trace = "".join(traceback.format_exception(error))
        print(f"speechloom: warning: {message}", file=sys.stderr)
        self._records = tuple(
            replace(record, status=Status.broken, error=message, traceback=trace)
            if record.name == name
            else record
            for record in self._records or ()
        )

    def _call(self, hook: str, **arguments: object) -> Any:
        """Call every implementation; an error says whose it is."""
        self.records()
        try:
            return getattr(self._manager.hook, hook)(**arguments)
        except Exception as error:
            who = self._culprit(hook, error) or self._implementers(hook)
            raise PluginError(
                f"{hook} of plugin {who} failed: {type(error).__name__}: {first_line(error)}; "
                f"SPEECHLOOM_DISABLE_PLUGINS={who} switches it off",
                plugin=who,
            ) from error

    def _culprit(self, hook: str, error: BaseException) -> str | None:
        """The plugin whose function is deepest in the traceback."""
        owners = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            code = getattr(implementation.function, "__code__", None)
            owners[code] = implementation.plugin_name
        frames = (frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__))
        guilty = [owners[code] for code in frames if code in owners]
        return guilty[-1] if guilty else None

    def _implementers(self, hook: str) -> str:
        found = getattr(self._manager.hook, hook).get_hookimpls()
        return " or ".join(sorted(implementation.plugin_name for implementation in found))

    def _add(self, plugin: object, name: str) -> tuple[str, ...]:
        """Register with pluggy after checking what pluggy would check too late."""
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            if self._manager.get_plugin(name) is plugin:
                self._manager.unregister(plugin)  # older pluggy leaves it half registered
            raise PluginLoadError(
                f"hook plugin {name} is refused: {first_line(error)}", plugin=name
            ) from error
        callers = self._manager.get_hookcallers(plugin) or []
        names = tuple(sorted(caller.name for caller in callers))
        unknown = [caller.name for caller in callers if not caller.has_spec()]
        if unknown or not names:
            self._manager.unregister(plugin)
            raise PluginLoadError(f"hook plugin {name} {_explain(unknown)}", plugin=name)
        return names

    def _read(self, point: importlib.metadata.EntryPoint, switches: Switches) -> HookRecord:
        """Import and register one hook plugin, or record why not."""
        distribution = point.dist.name if point.dist else None
        version = point.dist.version if point.dist else None
        refusal = switches.refusal(point.name, distribution)
        label = f"hook plugin {point.name!r} of {distribution} {version}"
        hooks: tuple[str, ...] = ()
        status, error, trace = Status.loaded, None, None
        if refusal:
            status, error = Status.disabled, f"{label} {refusal}"
        else:
            try:
                hooks = self._add(point.load(), point.name)
            except IMPORT_FAILURES as failure:
                status, trace = Status.broken, traceback.format_exc()
                error = f"{label} fails: {type(failure).__name__}: {first_line(failure)}"
                if switches.trace:
                    print(trace, file=sys.stderr, end="")
                if switches.strict:
                    raise PluginLoadError(error, plugin=point.name) from failure
        return HookRecord(
            point.name, distribution, version, point.value, status, hooks, error, trace
        )


def _explain(unknown: list[str]) -> str:
    known = [name for name in vars(HookSpecs) if name.startswith(PREFIX)]
    if not unknown:
        return f"implements no hook; hooks are {', '.join(known)}, marked with @hookimpl"
    close = did_you_mean(unknown[0], known)
    hint = f"did you mean {close}?" if close else f"hooks are {', '.join(known)}"
    return f"implements {', '.join(unknown)}, which is not a hook; {hint}"


_default: Hooks | None = None
_default_lock = threading.Lock()


def default_hooks() -> Hooks:
    """The hooks of this process, made when they are first asked for."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Hooks()
        return _default
