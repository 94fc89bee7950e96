"""What scripts made for the site is what they would make today."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speechloom.scaffold import render
from speechloom.spec import Kind

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SMALL = 1_500_000
"""Bytes that recordings and pictures may take, together."""


def script(name: str) -> ModuleType:
    """A script of the docs folder, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_picture_says_what_the_protocols_say() -> None:
    drawn = (DOCS / "assets" / "parts.svg").read_text(encoding="utf-8")
    assert drawn == script("make_picture").picture(), "run python docs/make_picture.py"


def without_year(files: dict[str, str]) -> dict[str, str]:
    licence = files["LICENSE"].splitlines(keepends=True)
    return {**files, "LICENSE": "".join(line for line in licence if "(c)" not in line.lower())}


def test_the_template_repository_is_what_the_command_makes() -> None:
    folder = DOCS / "template"
    kept = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    made = render("codec", "my-codec")
    assert without_year(kept) == without_year(made), "copy what `plugins new` makes there"
    assert ".github/workflows/tests.yml" in kept


def test_samples_are_of_these_settings_and_weights() -> None:
    pytest.importorskip("matplotlib")
    starter = pytest.importorskip("speechloom_starter")
    samples, again = script("make_samples"), "run python docs/make_samples.py"
    record = json.loads((DOCS / "samples" / "samples.json").read_text())
    assert record["settings"] == samples.settings(), again
    assert set(record["samples"]) == set(samples.SAMPLES), again
    package = Path(starter.__file__).parent
    hashes = {h for files in record["weights"].values() for h in files.values()}
    assert hashes, "the record names no weights"
    shipped = {samples.hashlib.sha256(p.read_bytes()).hexdigest() for p in package.rglob("*.*")}
    assert hashes <= shipped, f"the weights have changed: {again}"


def test_samples_are_small_and_complete() -> None:
    files = list((DOCS / "samples").iterdir())
    names = json.loads((DOCS / "samples" / "samples.json").read_text())["samples"]
    wanted = {f"{name}.{suffix}" for name in names for suffix in ("flac", "png")}
    assert {path.name for path in files} == wanted | {"samples.json"}
    assert sum(path.stat().st_size for path in files) < SMALL


class Entry(BaseModel):
    """One row of the plugin directory.

    Attributes:
        distribution: name on the package index.
        kinds: of its components.
        summary: one line, without a full stop.
        homepage: where its documentation is: an address, or one of our plugins' pages.
        license: SPDX id of the code.
        weights_license: SPDX id or a sentence, where weights are shipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    distribution: str = Field(pattern=r"^speechloom-[a-z0-9]+(-[a-z0-9]+)*$")
    kinds: tuple[Kind | Literal["learner", "command"], ...] = Field(min_length=1)
    summary: str = Field(min_length=10, max_length=100, pattern=r"[^.]$")
    homepage: str = Field(pattern=r"^(https://\S+|speechloom-[a-z0-9-]+\.md)$")
    license: str = Field(min_length=2)
    weights_license: str | None = None


class Directory(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    plugins: tuple[Entry, ...]


def directory() -> Directory:
    yaml = pytest.importorskip("yaml")
    return Directory.model_validate(yaml.safe_load((DOCS / "directory.yaml").read_text()))


def test_the_plugin_directory_is_well_formed() -> None:
    names = [entry.distribution for entry in directory().plugins]
    assert len(set(names)) == len(names)
    for name in names:
        assert Requirement(name).name == name
    for entry in directory().plugins:
        if entry.homepage.endswith(".md"):
            assert (ROOT / "plugins" / entry.homepage[:-3] / "README.md").exists()


def test_our_own_plugins_are_in_the_directory() -> None:
    ours = {path.parent.name for path in ROOT.glob("plugins/*/README.md")}
    assert ours <= {entry.distribution for entry in directory().plugins}


@pytest.mark.parametrize(
    "wrong",
    [
        {"distribution": "mine"},
        {"kinds": []},
        {"kinds": ["codecs"]},
        {"summary": "Ends with a stop."},
        {"homepage": "http://example.org"},
        {"stars": 5},
    ],
)
def test_a_wrong_entry_is_refused(wrong: dict[str, object]) -> None:
    right = {
        "distribution": "speechloom-mine",
        "kinds": ["codec"],
        "summary": "A codec of mine",
        "homepage": "https://example.org",
        "license": "MIT",
    }
    Entry.model_validate(right)
    with pytest.raises(ValidationError):
        Entry.model_validate({**right, **wrong})


TUTORIALS = [
    "quickstart",
    "own-tokens",
    *(f"tasks/{t}" for t in ("synthesize", "edit", "continue", "convert")),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_the_notebook_of_a_tutorial_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jupytext = pytest.importorskip("jupytext")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("latex2mathml")
    if name == "own-tokens":
        pytest.importorskip("speechloom_hubert")
        pytest.importorskip("transformers")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    hooks = script("hooks")
    assert f"{name}.md" in hooks.TUTORIALS
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    if name == "quickstart":  # its first block is the installation
        page = page.replace("pip install torch==2.13.0 . ", "true . ")
    book = jupytext.reads(hooks.notebook(page), fmt="ipynb")
    assert sum(cell.cell_type == "code" for cell in book.cells) > 2
    client = nbclient.NotebookClient(
        book, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
