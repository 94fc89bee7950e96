"""A new plugin package, made from templates: it works, and its tests pass as it stands."""

from __future__ import annotations

import datetime
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

from packaging.utils import canonicalize_name
from packaging.version import Version

from speechloom.errors import OutputError, UsageError
from speechloom.records import GROUPS
from speechloom.spec import API_VERSION, KINDS, Kind

__all__ = ["create", "render"]

SUMMARIES: Mapping[Kind, str] = {
    "tokenizer": "Frame energies as content units",
    "codec": "Mu-law means of eight blocks per frame as codes",
    "generator": "Counted draws that fill a canvas of codes",
    "vocoder": "A bank of sines for log amplitudes",
    "frontend": "Spells a text in letters",
    "speaker_encoder": "Shares of frequency bands as a voice",
    "aligner": "The same share of a recording for every phone",
}
ALIGNER_INPUTS = ', inputs=Inputs(symbols={"letters": ("a", "b", "c")})'
"""An aligner is checked without a front end, so its test gives the phones of the alphabet."""

RATED = ("tokenizer", "codec", "generator", "vocoder", "aligner")
"""Kinds whose facts have a frame rate."""

FIRST_VERSION = "0.1.0"
PLACEHOLDER = re.compile(r"<<(\w+)>>")


def create(kind: Kind, name: str, directory: Path) -> Path:
    """Write a plugin package.

    Args:
        kind: what kind of component it provides.
        name: id of the component; the distribution is ``speechloom-<name>``.
        directory: where the folder of the package is made.

    Returns:
        The folder of the package.

    Raises:
        UsageError: the name cannot be an id, or the folder is there already.
        OutputError: it cannot be written.
    """
    files = render(kind, name)
    folder = directory / f"speechloom-{_id(name)}"
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name or --directory")
    try:
        for path, text in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error}; choose a --directory") from error
    return folder


def render(kind: Kind, name: str) -> dict[str, str]:
    """The files of a plugin package, path to text.

    Raises:
        UsageError: the name cannot be an id.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no kind {kind!r} of component; kinds are {', '.join(KINDS)}")
    values = _values(kind, _id(name))
    values["boilerplate"] = _filled("package/boilerplate.py", values)
    values["facts_arguments"] = _filled(f"{kind}/facts.py", values).rstrip("\n")
    return {path: _filled(template, values) for path, template in _files(kind, values["package"])}


def _files(kind: Kind, package: str) -> Iterator[tuple[str, str]]:
    """Path in the package, and its template."""
    yield "pyproject.toml", "package/pyproject.toml"
    yield "README.md", "package/README.md"
    yield "LICENSE", "package/LICENSE"
    yield ".gitignore", "package/gitignore"
    yield ".github/workflows/tests.yml", "package/ci.yml"
    yield f"src/{package}/__init__.py", "package/init.py"
    yield f"src/{package}/_spec.py", "package/spec.py"
    yield f"src/{package}/{kind}.py", f"{kind}/component.py"
    yield f"src/{package}/py.typed", "package/py.typed"
    yield "tests/test_conformance.py", "package/test_conformance.py"
    yield f"tests/test_{kind}.py", f"{kind}/test.py"


def _id(name: str) -> str:
    """The id that a name stands for: ``speechloom-My_Codec`` is ``my-codec``."""
    id = canonicalize_name(name).removeprefix("speechloom-")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", id):
        raise UsageError(
            f"{name!r} cannot be the id of a component; take letters, digits and hyphens, "
            "such as my-codec"
        )
    return id


def _values(kind: Kind, id: str) -> dict[str, str]:
    camel = "".join(part.capitalize() for part in id.split("-"))
    ending = "".join(part.capitalize() for part in kind.split("_"))
    # The ending keeps the class apart from speechloom's own names, such as Audio or Codes.
    name = camel if camel.endswith(ending) and camel != ending else camel + ending
    core = Version(_core_version())
    aligns = kind == "aligner"
    return {
        "id": id,
        "kind": kind,
        "kind_words": {"frontend": "front end"}.get(kind, kind.replace("_", " ")),
        "class": name if name[0].isalpha() else f"The{name}",
        "facts": f"{ending}Facts",
        "spec_imports": _spec_imports(f"{ending}Facts", rated=kind in RATED),
        "distribution": f"speechloom-{id}",
        "package": f"speechloom_{id.replace('-', '_')}",
        "group": GROUPS[kind],
        "summary": SUMMARIES[kind],
        "api_version": API_VERSION,
        "core_version": f"{core.major}.{core.minor}",
        "core_limit": str(core.major + 1),
        "testing_names": f"{'Inputs, ' if aligns else ''}parametrize_with_checks",
        "check_arguments": "SPEC" + (ALIGNER_INPUTS if aligns else ""),
        "year": str(datetime.date.today().year),
    }


def _spec_imports(facts: str, *, rated: bool) -> str:
    """The imports of the spec module, sorted as a linter wants them."""
    names = ", ".join(sorted(["ComponentSpec", facts]))
    lines = ["from fractions import Fraction\n"] if rated else []
    return "\n".join([*lines, f"from speechloom.spec import {names}"])


def _core_version() -> str:
    try:
        return importlib.metadata.version("speechloom")
    except importlib.metadata.PackageNotFoundError:
        return FIRST_VERSION


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its placeholders filled in."""
    source = resources.files(__name__) / "templates" / f"{template}.txt"
    text = source.read_text(encoding="utf-8")
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)
