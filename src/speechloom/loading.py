"""From a record to a component: import, check the protocol, build."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

from speechloom.errors import BackendUnavailable, PluginLoadError, SpeechloomError
from speechloom.protocols import (
    Aligner,
    Codec,
    Component,
    Frontend,
    Generator,
    SpeakerEncoder,
    Tokenizer,
    Vocoder,
)
from speechloom.records import IMPORT_FAILURES, PluginRecord, first_line, problem
from speechloom.spec import ComponentSpec, Kind

__all__ = ["PROTOCOLS", "build", "implementation", "missing_methods"]

PROTOCOLS: Mapping[Kind, type[Any]] = {
    "tokenizer": Tokenizer,
    "codec": Codec,
    "generator": Generator,
    "vocoder": Vocoder,
    "frontend": Frontend,
    "speaker_encoder": SpeakerEncoder,
    "aligner": Aligner,
}
"""The protocol that a component of each kind must follow."""


def missing_methods(cls: type[Any], kind: Kind) -> list[str]:
    """Methods of the protocol that a class does not have."""
    protocol = PROTOCOLS[kind]
    methods = [name for name in dir(protocol) if callable(getattr(protocol, name))]
    public = [name for name in methods if not name.startswith("_")]
    return [name for name in public if not callable(getattr(cls, name, None))]


def build(record: PluginRecord, device: str, cls: type[Any] | None = None) -> Component:
    """Import, check and build one component with its weights.

    Args:
        record: what to build.
        device: as torch names it.
        cls: the implementation, where it need not be imported.

    Raises:
        BackendUnavailable: a package that it needs is not here.
        PluginLoadError: anything else went wrong in the plugin; the cause is chained.
        SpeechloomError: the plugin raised it, for example a WeightsError.
    """
    if record.spec is None:
        raise problem(record)
    cls = implementation(record, record.spec) if cls is None else cls
    try:
        component = cls.from_pretrained(record.spec, device=device)
    except SpeechloomError:
        raise
    except ModuleNotFoundError as error:
        raise _module_error(record, record.spec, error) from error
    except IMPORT_FAILURES as error:
        raise _failure(record, "could not be built", error) from error
    missing = [name for name in ("spec", "weights") if not hasattr(component, name)]
    if missing:
        raise _load_error(record, f"lacks {' and '.join(missing)} of the protocol")
    return cast("Component", component)


def implementation(record: PluginRecord, spec: ComponentSpec) -> type[Any]:
    """Import the class that a spec names and check that it has the methods of its protocol.

    Raises:
        BackendUnavailable: a package that it needs is not here.
        PluginLoadError: it cannot be imported, or is not what its kind asks for.
    """
    module_name, _, name = spec.implementation.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise _module_error(record, spec, error) from error
    except IMPORT_FAILURES as error:
        raise _failure(record, "cannot be imported", error) from error
    cls = getattr(module, name, None)
    if not isinstance(cls, type):
        raise _load_error(record, f"names {spec.implementation}, which is not a class")
    missing = missing_methods(cls, spec.kind)
    if missing:
        protocol = PROTOCOLS[spec.kind].__name__
        raise _load_error(record, f"lacks {', '.join(missing)} of the protocol {protocol}")
    return cls


def _module_error(
    record: PluginRecord, spec: ComponentSpec, error: ModuleNotFoundError
) -> BackendUnavailable | PluginLoadError:
    """A missing package is the user's to install; a missing module of its own is a fault."""
    own = spec.implementation.partition(".")[0].partition(":")[0]
    missing = (error.name or "").partition(".")[0]
    if missing in ("", own):
        return _failure(record, "cannot be imported", error)
    install = spec.install or f"pip install {missing}"
    return BackendUnavailable(
        f"{record.label} needs the package {missing!r}, which is not installed; run `{install}`",
        plugin=record.full_id,
    )


def _failure(record: PluginRecord, what: str, error: BaseException) -> PluginLoadError:
    return _load_error(
        record,
        f"{what}: {type(error).__name__}: {first_line(error)}; "
        "`speechloom plugins doctor` looks for known causes",
    )


def _load_error(record: PluginRecord, why: str) -> PluginLoadError:
    return PluginLoadError(f"{record.label} {why}", plugin=record.full_id)
