"""What the package promises: sorted, documented names, and a light import."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest

import speechloom

MODULES = [
    "container", "errors", "hooks", "layout", "pipeline", "protocols", "registry", "requesting",
    "router", "spec", "speech", "tasks.continuation", "tasks.convert", "tasks.edit",
    "tasks.synthesize", "values",
]  # fmt: skip


def test_all_is_sorted_and_has_no_doubles() -> None:
    assert speechloom.__all__ == sorted(set(speechloom.__all__))


def test_all_is_complete() -> None:
    public = {
        name
        for name, value in vars(speechloom).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public - set(speechloom.__all__) <= {"annotations", "Any", "Mapping"}
    assert set(speechloom.__all__) <= public


def test_every_error_of_the_tree_is_public() -> None:
    errors = importlib.import_module("speechloom.errors")
    assert set(errors.__all__) <= set(speechloom.__all__)


def test_every_protocol_is_public() -> None:
    protocols = importlib.import_module("speechloom.protocols")
    named = {name for name in protocols.__all__ if hasattr(protocols, name)}
    card = {"Aligner", "Codec", "Component", "Frontend", "Generator", "SpeakerEncoder",
            "Tokenizer", "Vocoder"}  # fmt: skip
    assert card <= named & set(speechloom.__all__)


@pytest.mark.parametrize("name", speechloom.__all__)
def test_every_public_name_has_a_docstring(name: str) -> None:
    value = getattr(speechloom, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__doc__
        assert value.__doc__.strip()
        # A dataclass without a docstring gets its signature as one.
        assert not (dataclasses.is_dataclass(value) and value.__doc__.startswith(f"{name}("))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_what_is_public(name: str) -> None:
    module = importlib.import_module(f"speechloom.{name}")
    assert module.__doc__
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name}.{public}"
        if inspect.isclass(value):
            for method, thing in vars(value).items():
                if not method.startswith("_") and inspect.isfunction(thing):
                    assert thing.__doc__ or method in dir(value.__mro__[1]), f"{public}.{method}"


HEAVY = ("torch", "transformers", "torchaudio", "soundfile", "soxr", "matplotlib", "rich", "typer")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_a_fresh_import_is_light() -> None:
    code = (
        "import sys, speechloom, speechloom.testing.fake_specs\n"
        "for name in speechloom.__all__: getattr(speechloom, name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert run(code).strip() == "[]"


def test_planning_and_refusing_import_no_torch() -> None:
    code = """
import sys, speechloom
from speechloom.registry import Registry
from speechloom.hooks import Hooks
from speechloom.testing.temporary import fake_distribution
from speechloom.pipeline import Pipeline
registry = Registry(entry_points=tuple(fake_distribution().entry_points), environ={})
pipeline = Pipeline(registry=registry, hooks=Hooks((), {}))
for task in ("synthesize", "edit", "continue", "convert"):
    pipeline.plan(task)
for bad in (dict(text=None), dict(text="a", seed=-1), dict(text="a", style="fats")):
    try:
        pipeline.synthesize(**bad)
    except speechloom.UsageError:
        pass
print("torch" in sys.modules)
"""
    assert run(code).strip() == "False"


def test_errors_are_of_the_types_that_callers_expect() -> None:
    assert issubclass(speechloom.UsageError, ValueError)
    assert issubclass(speechloom.OutputError, OSError)
    for name in speechloom.__all__:
        value = getattr(speechloom, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            assert issubclass(value, speechloom.SpeechloomError)


@pytest.mark.parametrize("name", ["synthesize", "edit", "continue_", "convert"])
def test_the_functions_take_what_the_methods_take(name: str) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        getattr(speechloom, name)("x", no_such_option=1)
