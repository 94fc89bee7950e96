"""From what a caller names to the component that is checked."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

from speechloom.errors import UsageError
from speechloom.loading import implementation
from speechloom.records import PluginRecord, Status, problem, record_of
from speechloom.registry import Registry, default_registry
from speechloom.spec import ComponentSpec, FrontendFacts
from speechloom.testing.checks import Subject
from speechloom.testing.inputs import Inputs

__all__ = ["spec_of", "subject_for"]


def subject_for(
    target: ComponentSpec | str | Any,
    *,
    registry: Registry | None = None,
    inputs: Inputs | None = None,
) -> Subject:
    """Build what the checks are given.

    Args:
        target: as `check_plugin` takes it.
        registry: as `check_plugin` takes it.
        inputs: what to feed it; alphabets of installed front ends are added.

    Raises:
        PluginError: there is no such plugin, or it cannot be built.
    """
    registry = registry or default_registry()
    if isinstance(target, str):
        record = _record(target, registry)
        component, module = _from_record(record, registry), record.value.partition(":")[0]
        spec_module = module if record.distribution else None
    elif isinstance(target, ComponentSpec):
        component, spec_module = _from_spec(target), _module_of(target)
    else:
        component, spec_module = target, _module_of(target.spec)
    return Subject(component, _with_alphabets(inputs or Inputs(), registry), spec_module)


def spec_of(target: ComponentSpec | str | Any, registry: Registry) -> ComponentSpec:
    """The spec of what is to be checked; nothing is built.

    Args:
        target: a spec, a component, or ``kind/id`` in the registry.
        registry: where that is looked up.

    Raises:
        PluginError: there is no such plugin, or its spec cannot be read.
    """
    if isinstance(target, ComponentSpec):
        return target
    if isinstance(target, str):
        record = _record(target, registry)
        if record.spec is None:
            raise problem(record)
        return record.spec
    spec: ComponentSpec = target.spec
    return spec


def _record(target: str, registry: Registry) -> PluginRecord:
    kind, slash, name = target.partition("/")
    if not slash:
        raise UsageError(f"a component is named kind/id, such as codec/dac, not {target!r}")
    return registry.get(kind, name)  # type: ignore[arg-type]  # a wrong kind is refused there


def _from_record(record: PluginRecord, registry: Registry) -> Any:
    if record.distribution is None:
        return registry.load(record.kind, record.id)
    if record.spec is None or not (record.status.usable or record.status is Status.shadowed):
        raise problem(record)
    return implementation(record, record.spec).from_random(record.spec, seed=0)


def _from_spec(spec: ComponentSpec) -> Any:
    """Import and build what a spec names, as the registry would."""
    return implementation(record_of(spec), spec).from_random(spec, seed=0)


def _module_of(spec: ComponentSpec) -> str | None:
    """The module of the plugin that makes this very spec object, where it can be found."""
    implementation_module = spec.implementation.partition(":")[0]
    package = implementation_module.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != package or name == implementation_module:
            continue
        # The namespace is read, not its attributes: some modules import things when asked.
        holds = any(value is spec for value in vars(module).values())
        if holds and re.search(r"\bComponentSpec(\(|\.model_validate\()", _source(module)):
            return name
    return None


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ""


def _with_alphabets(inputs: Inputs, registry: Registry) -> Inputs:
    facts = [spec.facts for spec in registry.specs("frontend")]
    known = {one.alphabet: one.phones for one in facts if isinstance(one, FrontendFacts)}
    return replace(inputs, symbols={**known, **inputs.symbols})
