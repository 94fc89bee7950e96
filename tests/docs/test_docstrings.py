"""Every public name says what it is; its shapes, units and errors are in its docstring.

Read from the source, so that modules whose extras are not installed are held to the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from speechloom import errors

SOURCE = Path(__file__).parents[2] / "src"
NOT_PUBLIC = {"cli", "templates", "cpu_kernels"}
TENSOR = re.compile(r"\bTensor\b|\bNDArray\b")
STATE = re.compile(r"\b(dict|Mapping)\[str, [^\]]*\]")
"""Tensors by name, such as the weights of a network, have no common shape."""
SHAPE = re.compile(r"\[[\w.][^\]]*\]|shape|scalar")
RATE = re.compile(r"(sample|frame)_rate|_seconds$|^seconds$")
UNIT = re.compile(r"\bHz\b|seconds?|per second|[Rr]ate|fraction", re.IGNORECASE)

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public class, function or method.

    Attributes:
        name: with its module and class.
        node: its source.
        around: docstrings that also speak for it: of its class.
    """

    name: str
    node: Documented
    around: str

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def said(self) -> str:
        return f"{self.around}\n{self.docstring}"


def names_of(tree: ast.Module) -> list[str]:
    """What `__all__` lists."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def public() -> Iterator[Public]:
    for path in sorted(SOURCE.glob("speechloom/**/*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if NOT_PUBLIC & set(parts):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = names_of(tree)
        for node in tree.body:
            if isinstance(node, Documented) and node.name in names:
                yield from _with_methods(".".join(parts), node)


def _with_methods(module: str, node: Documented) -> Iterator[Public]:
    yield Public(f"{module}.{node.name}", node, "")
    if isinstance(node, ast.ClassDef):
        around = ast.get_docstring(node) or ""
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                if not any("overload" in ast.unparse(one) for one in method.decorator_list):
                    yield Public(f"{module}.{node.name}.{method.name}", method, around)


EVERYTHING = list(public())


def name_of(one: Public) -> str:
    return one.name


def test_there_is_something_to_read() -> None:
    assert len(EVERYTHING) > 250


@pytest.mark.parametrize("one", EVERYTHING, ids=name_of)
def test_it_has_a_docstring(one: Public) -> None:
    assert len(one.docstring.splitlines()[0] if one.docstring else "") > 1


def annotations(node: Documented) -> dict[str, str]:
    """Annotations of the arguments and of what comes back, or of the fields of a class."""
    if isinstance(node, ast.ClassDef):
        return {
            ast.unparse(field.target): ast.unparse(field.annotation)
            for field in node.body
            if isinstance(field, ast.AnnAssign)
        }
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    found = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
    return {**found, "return": ast.unparse(node.returns)} if node.returns is not None else found


TENSORS = [
    one
    for one in EVERYTHING
    if any(TENSOR.search(STATE.sub("", a)) for a in annotations(one.node).values())
]


@pytest.mark.parametrize("one", TENSORS, ids=name_of)
def test_what_takes_or_gives_tensors_names_their_shapes(one: Public) -> None:
    assert SHAPE.search(one.said), f"{one.name} names no shape, such as [B, F]"


TIMED = [one for one in EVERYTHING if any(RATE.search(name) for name in annotations(one.node))]


@pytest.mark.parametrize("one", TIMED, ids=name_of)
def test_rates_and_durations_have_units(one: Public) -> None:
    assert UNIT.search(one.said), f"{one.name} names no unit"


def raised(node: Documented) -> set[str]:
    """Errors of ours that a function raises in its own lines."""
    if isinstance(node, ast.ClassDef):
        checks = [m for m in node.body if getattr(m, "name", "") in ("__init__", "__post_init__")]
        return {name for check in checks for name in raised(check)}  # type: ignore[arg-type]
    found = set()
    for line in ast.walk(node):
        if isinstance(line, ast.Raise) and isinstance(line.exc, ast.Call):
            name = ast.unparse(line.exc.func)
            found |= {name} & set(errors.__all__)
    return found


# What the fakes raise, the protocols say.
RAISING = [one for one in EVERYTHING if raised(one.node) and ".fake_" not in one.name]


@pytest.mark.parametrize("one", RAISING, ids=name_of)
def test_what_it_raises_is_named(one: Public) -> None:
    missing = {name for name in raised(one.node) if name not in one.said}
    assert not missing, f"{one.name} raises {', '.join(sorted(missing))} and does not say when"
