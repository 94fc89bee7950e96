"""Plugins made for one test: real modules and real entry points, but nothing is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.records import GROUPS
from speechloom.spec import API_VERSION, ComponentSpec
from speechloom.testing.fake_specs import CODEC

if TYPE_CHECKING:
    from speechloom.registry import Registry

__all__ = ["TemporaryDistribution", "TemporaryPlugins", "fake_distribution"]


class TemporaryDistribution(Distribution):
    """A distribution that exists only in memory.

    Args:
        name: distribution name.
        entry_points: lines ``id = module:object`` by group.
        version: its version.
        folder: where it says that its files are.
    """

    def __init__(
        self,
        name: str,
        entry_points: Mapping[str, Iterable[str]],
        *,
        version: str = "1.0",
        folder: Path | None = None,
    ) -> None:
        lines = [line for group, points in entry_points.items() for line in (f"[{group}]", *points)]
        self._texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            "entry_points.txt": "\n".join(lines),
        }
        self._folder = folder or Path()

    def read_text(self, filename: str) -> str | None:
        """The text of one of its metadata files."""
        return self._texts.get(str(filename))

    def locate_file(self, path: Any) -> Path:
        """Where a file of it would be."""
        return self._folder / str(path)


def fake_distribution() -> TemporaryDistribution:
    """A distribution ``speechloom-fakes`` that provides every fake."""
    from speechloom.testing import fake_specs

    named = {s.id: n for n, s in vars(fake_specs).items() if isinstance(s, ComponentSpec)}
    groups: dict[str, list[str]] = {}
    for spec in fake_specs.FAKE_SPECS:
        line = f"{spec.id} = {fake_specs.__name__}:{named[spec.id]}"
        groups.setdefault(GROUPS[spec.kind], []).append(line)
    return TemporaryDistribution("speechloom-fakes", groups)


class TemporaryPlugins:
    """Makes plugins, good and bad ones, for the time of one test.

    Args:
        folder: where their spec modules are written; it must be on ``sys.path``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.distributions: list[TemporaryDistribution] = []

    def __call__(
        self,
        distribution: str,
        *,
        spec: ComponentSpec = CODEC,
        source: str | None = None,
        version: str = "1.0",
    ) -> TemporaryDistribution:
        """Make a plugin; two distributions with one spec make a duplicate.

        Args:
            distribution: its name; the spec module is named after it.
            spec: what it provides; the entry point has its id and the group of its kind.
            source: text of the spec module, which must define ``SPEC``; by default one that
                defines the given spec.
            version: of the distribution.
        """
        module = f"{distribution.replace('-', '_')}_spec"
        if source is None:
            source = (
                "from speechloom.spec import ComponentSpec\n"
                f"SPEC = ComponentSpec.model_validate_json({spec.model_dump_json()!r})\n"
            )
        (self.folder / f"{module}.py").write_text(source, encoding="utf-8")
        made = TemporaryDistribution(
            distribution,
            {GROUPS[spec.kind]: [f"{spec.id} = {module}:SPEC"]},
            version=version,
            folder=self.folder,
        )
        self.distributions.append(made)
        return made

    def broken(self, distribution: str, error: str = "OSError('libcudart.so.13')") -> None:
        """A plugin whose spec module raises when it is imported."""
        self(distribution, source=f"raise {error}\n", spec=_renamed(distribution))

    def missing(self, distribution: str, package: str = "package-that-is-not-here") -> None:
        """A plugin that requires a distribution that is not installed."""
        spec = _renamed(distribution, requires=(package,), install=f"pip install {package}")
        self(distribution, spec=spec)

    def newer_api(self, distribution: str) -> None:
        """A plugin for a later major version of the protocols."""
        major = int(API_VERSION.split(".")[0]) + 1
        self(distribution, spec=_renamed(distribution, api_version=f"{major}.0"))

    @property
    def entry_points(self) -> tuple[EntryPoint, ...]:
        """Entry points of all plugins that were made."""
        return tuple(point for dist in self.distributions for point in dist.entry_points)

    def registry(self, environ: Mapping[str, str] | None = None) -> Registry:
        """A registry that sees these plugins and nothing else.

        Args:
            environ: ``SPEECHLOOM_*`` switches; none by default, whatever the process has.
        """
        from speechloom.registry import Registry

        return Registry(entry_points=self.entry_points, environ=environ or {})

    def forget_modules(self) -> None:
        """Drop the spec modules that were imported."""
        for name in [n for n, m in sys.modules.items() if _lies_in(m, self.folder)]:
            del sys.modules[name]


def _lies_in(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and Path(file).parent == folder


def _renamed(distribution: str, **changes: Any) -> ComponentSpec:
    return CODEC.model_copy(update={"id": distribution, **changes})
