"""Every public name says what it is; its shapes, units and errors are in its docstring.

Public is what `__all__` lists, in the core and in every plugin, also where a package lists what a
module of it defines. Read from the source, so that modules whose extras are not installed are held
to the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import speechloom
from speechloom import errors

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "src", *sorted(ROOT.glob("plugins/*/src")))
NOT_PUBLIC = {"cli", "templates", "cpu_kernels", "fake_specs"}
TENSOR = re.compile(r"\bTensor\b|\bNDArray\b")
STATE = re.compile(r"\b(dict|Mapping)\[str, [^\]]*\]")
"""Tensors by name, such as the weights of a network, have no common shape."""
SHAPE = re.compile(
    r"(?<![\w\]])\[(?!-?\d[\d., -]*\])(\.\.\., )?\w[^\]]*\](?!\()|(?i:\bshape|\bscalar)"
)
"""Sizes in brackets, such as [B, F]; not a link, the arguments of a type or an interval."""
RATE = re.compile(r"(sample|frame)_rate|_seconds$|^seconds$")
UNIT = re.compile(r"\bHz\b|seconds?|per second|[Rr]ate|fraction", re.IGNORECASE)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.ClassDef | Function


@dataclass(frozen=True)
class Public:
    """A public class, function, method or constant.

    Attributes:
        name: with the module and class that define it.
        node: its source; None for a constant.
        docstring: its own.
        around: docstrings that also speak for it: of its class.
    """

    name: str
    node: Documented | None
    docstring: str
    around: str = ""

    @property
    def said(self) -> str:
        return f"{self.around}\n{self.docstring}"


@dataclass(frozen=True)
class Module:
    """A module in a folder of sources."""

    source: Path
    name: str

    @property
    def path(self) -> Path:
        whole = self.source.joinpath(*self.name.split("."))
        alone = whole.with_suffix(".py")
        return alone if alone.exists() else whole / "__init__.py"


@cache
def tree_of(module: Module) -> ast.Module:
    return ast.parse(module.path.read_text(encoding="utf-8"))


def modules(sources: tuple[Path, ...]) -> Iterator[Module]:
    for source in sources:
        for path in sorted(source.glob("*/**/*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            # What `_spec` and its like list is for their package, which lists what is public of it.
            private = any(part.startswith("_") and part != "__init__" for part in parts)
            if not private and not NOT_PUBLIC & set(parts):
                yield Module(source, ".".join(part for part in parts if part != "__init__"))


def listed(module: Module) -> list[str]:
    """What `__all__` lists."""
    for node in tree_of(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def statements(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, ast.stmt | None]]:
    """Every statement of a module with the one after it, also under a condition."""
    for node, after in zip(body, [*body[1:], None], strict=True):
        yield node, after
        if isinstance(node, ast.If | ast.Try):
            yield from statements([*node.body, *node.orelse])


def definition(module: Module, name: str) -> Iterator[Public]:
    """The definition of a public name, found through imports, with its public methods."""
    for node, after in statements(tree_of(module).body):
        if isinstance(node, Documented) and node.name == name:
            if not is_overload(node):
                yield from with_methods(module.name, node)
                return
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    home = home_of(node.module or "", module)
                    if home.path.name == "__init__.py" and alias.name not in listed(home):
                        return  # a module
                    yield from definition(home, alias.name)
                    return
        elif name in assigned(node):
            yield Public(f"{module.name}.{name}", None, string(after))
            return
    if (module.path.parent / f"{name}.py").exists() or (module.path.parent / name).is_dir():
        return  # a module, whose names are looked at by themselves
    raise LookupError(f"{module.name} lists {name} in __all__ and does not define it")


def home_of(name: str, asking: Module) -> Module:
    """A module by its name, in the package that asks or in another one of ours."""
    for source in (asking.source, *SOURCES):
        if (home := Module(source, name)).path.exists():
            return home
    raise LookupError(f"{asking.name} offers a name of {name}, which is not ours")


def assigned(node: ast.stmt) -> set[str]:
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}


def string(node: ast.stmt | None) -> str:
    """The docstring that stands below a constant."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def is_overload(node: Documented) -> bool:
    return any("overload" in ast.unparse(one) for one in node.decorator_list)


def with_methods(module: str, node: Documented) -> Iterator[Public]:
    around = ast.get_docstring(node) or ""
    yield Public(f"{module}.{node.name}", node, around)
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, Function) and not method.name.startswith("_"):
                if not is_overload(method) and not is_setter(method):
                    name = f"{module}.{node.name}.{method.name}"
                    yield Public(name, method, ast.get_docstring(method) or "", around)


def is_setter(node: Function) -> bool:
    return any(ast.unparse(one).endswith(".setter") for one in node.decorator_list)


def public(*sources: Path) -> list[Public]:
    """Every public name once, whichever modules list it."""
    found = {
        one.name: one
        for module in modules(sources)
        for name in listed(module)
        for one in definition(module, name)
    }
    return list(found.values())


EVERYTHING = public(*SOURCES)


def name_of(one: Public) -> str:
    return one.name


def test_every_package_is_read() -> None:
    read = {one.name.partition(".")[0] for one in EVERYTHING}
    assert read == {path.name for source in SOURCES for path in source.iterdir() if path.is_dir()}
    assert len([one for one in EVERYTHING if one.name.startswith("speechloom.")]) > 550


def test_what_importing_the_package_offers_is_read() -> None:
    read = {one.name.rpartition(".")[2] for one in EVERYTHING}
    assert set(speechloom.__all__) <= read


def undocumented(one: Public) -> bool:
    return len(one.docstring.splitlines()[0] if one.docstring else "") <= 1


@pytest.mark.parametrize("one", EVERYTHING, ids=name_of)
def test_it_has_a_docstring(one: Public) -> None:
    assert not undocumented(one)


def annotations(node: Documented | None) -> dict[str, str]:
    """Annotations of the arguments and of what comes back, or of the fields of a class."""
    if node is None:
        return {}
    if isinstance(node, ast.ClassDef):
        return {
            ast.unparse(field.target): ast.unparse(field.annotation)
            for field in node.body
            if isinstance(field, ast.AnnAssign)
        }
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    found = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation is not None}
    return {**found, "return": ast.unparse(node.returns)} if node.returns is not None else found


def handles_tensors(one: Public) -> bool:
    return any(TENSOR.search(STATE.sub("", a)) for a in annotations(one.node).values())


def lacks_shape(one: Public) -> bool:
    return handles_tensors(one) and not SHAPE.search(one.said)


TENSORS = [one for one in EVERYTHING if handles_tensors(one)]


@pytest.mark.parametrize("one", TENSORS, ids=name_of)
def test_what_takes_or_gives_tensors_names_their_shapes(one: Public) -> None:
    assert not lacks_shape(one), f"{one.name} names no shape, such as [B, F]"


def is_timed(one: Public) -> bool:
    return any(RATE.search(name) for name in annotations(one.node))


def lacks_unit(one: Public) -> bool:
    return is_timed(one) and not UNIT.search(one.said)


TIMED = [one for one in EVERYTHING if is_timed(one)]


@pytest.mark.parametrize("one", TIMED, ids=name_of)
def test_rates_and_durations_have_units(one: Public) -> None:
    assert not lacks_unit(one), f"{one.name} names no unit"


def raised(node: Documented | None) -> set[str]:
    """Errors of ours that a function raises in its own lines."""
    if node is None:
        return set()
    if isinstance(node, ast.ClassDef):
        checks = [m for m in node.body if getattr(m, "name", "") in ("__init__", "__post_init__")]
        return {name for check in checks for name in raised(check)}  # type: ignore[arg-type]
    found = set()
    for line in ast.walk(node):
        if isinstance(line, ast.Raise) and isinstance(line.exc, ast.Call):
            name = ast.unparse(line.exc.func)
            found |= {name} & set(errors.__all__)
    return found


def unnamed_errors(one: Public) -> set[str]:
    return {name for name in raised(one.node) if name not in one.said}


# What the fakes raise, the protocols say.
RAISING = [one for one in EVERYTHING if raised(one.node) and ".fake_" not in one.name]


@pytest.mark.parametrize("one", RAISING, ids=name_of)
def test_what_it_raises_is_named(one: Public) -> None:
    missing = unnamed_errors(one)
    assert not missing, f"{one.name} raises {', '.join(sorted(missing))} and does not say when"


# The checks themselves


def test_the_checks_find_what_is_missing(tmp_path: Path) -> None:
    package = tmp_path / "poor"
    package.mkdir()
    (package / "__init__.py").write_text('from poor.low import low\n\n__all__ = ["low"]\n')
    (package / "low.py").write_text("def low(x: Tensor): ...\n")
    (package / "high.py").write_text(
        '''
__all__ = ["LIMIT", "High", "slow"]
LIMIT = 3

class High:
    """A class."""

    def mean(self, x: Tensor) -> Tensor: ...

    def _hidden(self): ...

def slow(frame_rate: int) -> None:
    """Without a unit."""
    raise UsageError("no")
'''
    )
    found = public(tmp_path)
    assert [one.name for one in found if undocumented(one)] == [
        "poor.low.low",
        "poor.high.LIMIT",
        "poor.high.High.mean",
    ]
    assert [one.name for one in found if lacks_shape(one)] == [
        "poor.low.low",
        "poor.high.High.mean",
    ]
    assert [one.name for one in found if lacks_unit(one)] == ["poor.high.slow"]
    assert [one.name for one in found if unnamed_errors(one)] == ["poor.high.slow"]


def test_a_name_that_is_listed_must_be_defined(tmp_path: Path) -> None:
    (tmp_path / "poor").mkdir()
    (tmp_path / "poor" / "__init__.py").write_text('__all__ = ["nothing"]\n')
    with pytest.raises(LookupError, match="lists nothing in __all__"):
        public(tmp_path)
