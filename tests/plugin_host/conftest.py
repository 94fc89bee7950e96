"""Plugins for the tests of the plugin host: real files, with real distribution metadata."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from speechloom.registry import GROUPS, Registry
from speechloom.spec import Kind

SPEC = """
from speechloom.spec import ComponentSpec, FrontendFacts

SPEC = ComponentSpec(
    id={id!r},
    implementation="{module}.frontend:LettersFrontend",
    facts=FrontendFacts(
        alphabet="letters", phones=("pau", "a", "b"), pause="pau", languages=("en",)
    ),
    summary="Spells a text in letters",
    license="MIT",
    {extra}
)
"""

IMPLEMENTATION = """
from speechloom.values import Phones


class LettersFrontend:
    weights = {}

    def __init__(self, spec, device):
        self.spec = spec
        self.device = device

    @classmethod
    def from_pretrained(cls, spec, *, device="cpu"):
        return cls(spec, device)

    @classmethod
    def from_random(cls, spec, *, seed=0):
        return cls(spec, "cpu")

    def phonemize(self, text, *, lexicon=None):
        return [Phones(tuple(text), "letters")]
"""


@dataclass
class PluginFolder:
    """A folder of installed plugins, as site-packages is one."""

    path: Path
    modules: list[str] = field(default_factory=list)

    def add(
        self,
        id: str,
        *,
        dist: str | None = None,
        kind: Kind = "frontend",
        version: str = "0.1.0",
        group: str | None = None,
        spec: str | None = None,
        init: str = "",
        implementation: str = IMPLEMENTATION,
        extra: str = "",
    ) -> str:
        """Write one plugin; returns the name of its package."""
        dist = dist or f"speechloom-{id}"
        module = dist.replace("-", "_")
        self.modules.append(module)
        package = self.path / module
        package.mkdir(exist_ok=True)
        source = SPEC.format(id=id, module=module, extra=extra) if spec is None else spec
        (package / "__init__.py").write_text(textwrap.dedent(init))
        (package / "_spec.py").write_text(textwrap.dedent(source))
        (package / "frontend.py").write_text(textwrap.dedent(implementation))
        info = self.path / f"{module}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        points = info / "entry_points.txt"
        before = points.read_text() if points.exists() else ""
        points.write_text(f"{before}[{group or GROUPS[kind]}]\n{id} = {module}._spec:SPEC\n")
        return module

    def entry_points(self) -> list[importlib.metadata.EntryPoint]:
        """What these plugins announce."""
        found = importlib.metadata.distributions(path=[str(self.path)])
        return [point for dist in found for point in dist.entry_points]

    def registry(self, **environ: str) -> Registry:
        """A registry of these plugins only."""
        return Registry(self.entry_points(), environ)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFolder]:
    """An empty folder of plugins that can be imported from."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    folder = PluginFolder(path)
    yield folder
    for name in list(sys.modules):
        if name.partition(".")[0] in folder.modules:
            del sys.modules[name]
