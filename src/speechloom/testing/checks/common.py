"""Checks for every component: what it says of itself, and what it leaves alone."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

from speechloom.loading import missing_methods
from speechloom.spec import API_VERSION, ComponentSpec, GeneratorFacts
from speechloom.testing.checks.outcomes import assert_same, leaves, typical_call
from speechloom.testing.checks.table import Subject, check, require
from speechloom.testing.isolation import (
    blocked_network,
    memory_growth,
    random_state,
    restored_random_state,
)

HEAVY = ("torch", "transformers", "torchaudio", "tensorflow", "jax", "scipy", "librosa")
"""Packages that a spec module must not import: listing plugins would take seconds."""


@check()
def check_follows_protocol(subject: Subject) -> None:
    """It has every method of its protocol, and a spec."""
    assert isinstance(subject.spec, ComponentSpec), "`spec` must be a ComponentSpec"
    missing = missing_methods(type(subject.component), subject.spec.kind)
    assert not missing, f"methods of the protocol are missing: {', '.join(missing)}"


@check()
def check_spec_survives_json(subject: Subject) -> None:
    """The spec comes back from JSON unchanged."""
    back = ComponentSpec.model_validate_json(subject.spec.model_dump_json())
    assert back == subject.spec, f"the spec changes on its way through JSON: {back}"


@check()
def check_spec_is_complete(subject: Subject) -> None:
    """The spec names a license, an api version that exists, and the sizes that facts imply."""
    spec, facts = subject.spec, subject.facts
    assert spec.license.strip(), "`license` must name the SPDX id of the code"
    theirs, ours = (tuple(map(int, v.split("."))) for v in (spec.api_version, API_VERSION))
    assert theirs[0] == ours[0], f"api {spec.api_version} is another major than {API_VERSION}"
    assert theirs <= ours, f"api {spec.api_version} is newer than {API_VERSION}"
    if isinstance(facts, GeneratorFacts):
        assert (facts.voice is None) == (facts.voice_size is None), (
            "`voice` and `voice_size` belong together: name the size of the voices"
        )
        unclaimed = set(facts.free_tasks) - set(facts.tasks)
        assert not unclaimed, f"`free_tasks` are not among `tasks`: {sorted(unclaimed)}"


@check()
def check_implementation_is_named(subject: Subject) -> None:
    """``implementation`` names the class of the component."""
    module_name, _, name = subject.spec.implementation.partition(":")
    named = getattr(importlib.import_module(module_name), name, None)
    assert named is type(subject.component), (
        f"{subject.spec.implementation} is {named}, but the component is a "
        f"{type(subject.component).__qualname__}"
    )


@check()
def check_spec_import_is_light(subject: Subject) -> None:
    """Importing the module of the spec imports no torch and nothing else that is heavy."""
    assert_light(require(subject.spec_module, "the module of the spec is not known"))


@check()
def check_weights_are_hashed(subject: Subject) -> None:
    """``weights`` maps file names to their sha256."""
    weights = subject.component.weights
    assert isinstance(weights, Mapping), f"`weights` must be a mapping, but is {type(weights)}"
    for name, digest in weights.items():
        assert re.fullmatch(r"[0-9a-f]{64}", digest), f"weights[{name!r}] is no sha256: {digest!r}"


@check()
def check_built_alike_from_one_seed(subject: Subject) -> None:
    """``from_random`` depends on its seed, and not on the global random state."""
    other = _built(subject)
    with restored_random_state(shift=3):
        again = _built(subject)
    assert_same(typical_call(other)(), typical_call(again)(), "two components of one seed")


@check()
def check_leaves_random_state_alone(subject: Subject) -> None:
    """Building and calling leave the random state of Python, numpy and torch as it was."""
    with restored_random_state():
        call, before = typical_call(subject), random_state()
        call()
        assert random_state() == before, "a call changed the global random state"
        _built(subject)
        assert random_state() == before, "`from_random` changed the global random state"


@check()
def check_repeats_itself(subject: Subject) -> None:
    """The same call gives the same result, whatever the global random state is."""
    call = typical_call(subject)
    first = call()
    with restored_random_state(shift=3):
        assert_same(first, call(), "the same call twice")


@check()
def check_leaves_arguments_alone(subject: Subject) -> None:
    """What it is given is not written to."""
    untouched, used = typical_call(subject), typical_call(subject)
    used()
    assert_same(_arguments(untouched), _arguments(used), "arguments before and after", tolerance=0)


@check()
def check_keeps_no_gradients(subject: Subject) -> None:
    """Results carry no gradients and nothing is left on the parameters."""
    with torch.enable_grad():
        result = typical_call(subject)()
    tensors = [leaf for leaf in leaves(result) if isinstance(leaf, torch.Tensor)]
    assert not any(tensor.requires_grad for tensor in tensors), "a result requires grad"
    kept = [tensor for tensor in _held_tensors(subject.component) if tensor.grad is not None]
    assert not kept, "gradients were kept on the parameters"


@check()
def check_works_in_inference_mode(subject: Subject) -> None:
    """``torch.inference_mode`` changes nothing."""
    call = typical_call(subject)
    with torch.inference_mode():
        inside = call()
    assert_same(call(), inside, "outside and inside inference_mode")


@check()
def check_runs_on_cpu_by_default(subject: Subject) -> None:
    """With no device named, parameters and results are on the CPU."""
    built = _built(subject)
    results = [leaf for leaf in leaves(typical_call(built)()) if isinstance(leaf, torch.Tensor)]
    devices = {t.device.type for t in [*results, *_held_tensors(built.component)]}
    assert devices <= {"cpu"}, f"tensors are on {sorted(devices)}, but no device was named"


@check()
def check_uses_no_network(subject: Subject) -> None:
    """Building it random and calling it works offline, and does not try to connect."""
    with blocked_network() as attempts:
        typical_call(_built(subject))()
    assert not attempts, f"it tried to connect: {'; '.join(attempts)}"


@check()
def check_runs_in_threads(subject: Subject) -> None:
    """Two threads that call it at once both get what one alone gets."""
    call = typical_call(subject)
    alone = call()
    with ThreadPoolExecutor(2) as threads:
        together = [future.result() for future in [threads.submit(call) for _ in range(4)]]
    for result in together:
        assert_same(alone, result, "alone and in two threads")


@check()
def check_memory_is_flat(subject: Subject) -> None:
    """Twenty calls leave nothing behind."""
    growth = memory_growth(typical_call(subject), calls=20)
    assert growth.tensors < 20, f"{growth.tensors} tensors stay alive after 20 calls"
    kept = growth.python_bytes / 1024
    assert kept < 64, f"{kept:.0f} KiB stay allocated after 20 calls"
    resident = growth.resident_bytes / 2**20
    assert resident < 64, f"resident memory grew by {resident:.0f} MiB in 20 calls"


def assert_light(module: str) -> None:
    """Importing a module works, and imports nothing of `HEAVY`."""
    code, imported, errors = _imports(module, tuple(sys.path))
    assert code == 0, f"importing {module} fails: {errors[-500:]}"
    assert not imported.strip(), f"importing {module} imports {imported.strip()}"


@cache
def _imports(module: str, path: tuple[str, ...]) -> tuple[int, str, str]:
    """Exit code, heavy packages and errors of a process that imports one module."""
    code = (
        f"import sys, importlib; sys.path[:] = {list(path)!r}; importlib.import_module({module!r});"
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def _built(subject: Subject) -> Subject:
    """A fresh, tiny, random component of the same class."""
    component = type(subject.component).from_random(subject.spec, seed=0)
    return Subject(component, subject.inputs, subject.spec_module)


def _arguments(call: Any) -> list[object]:
    """What a typical call holds: its closure without the subject."""
    cells = [cell.cell_contents for cell in call.__closure__ or ()]
    return [value for value in cells if not isinstance(value, Subject)]


def _held_tensors(component: object) -> Iterator[torch.Tensor]:
    """Parameters, buffers and tensors that are attributes of the component."""
    if isinstance(component, torch.nn.Module):
        yield from component.parameters()
        yield from component.buffers()
    for value in vars(component).values() if hasattr(component, "__dict__") else ():
        if isinstance(value, torch.nn.Module):
            yield from value.parameters()
            yield from value.buffers()
        elif isinstance(value, torch.Tensor):
            yield value
