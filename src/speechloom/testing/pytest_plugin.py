"""Fixtures for everybody who tests with speechloom; pytest finds them by itself.

Nothing but pytest is imported until a fixture is used, so that other test suites on the same
machine pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from speechloom.registry import Registry
    from speechloom.testing.temporary import TemporaryPlugins

__all__ = ["fake_registry", "isolated_registry", "no_network", "tmp_plugin"]


@pytest.fixture
def isolated_registry() -> Registry:
    """An empty registry that sees neither installed plugins nor ``SPEECHLOOM_*`` switches."""
    from speechloom.registry import Registry

    return Registry(entry_points=(), environ={})


@pytest.fixture
def fake_registry() -> Registry:
    """A registry with the fakes of `speechloom.testing.fakes` and nothing else."""
    from speechloom.registry import Registry
    from speechloom.testing.temporary import fake_distribution

    return Registry(entry_points=tuple(fake_distribution().entry_points), environ={})


@pytest.fixture
def no_network() -> Iterator[list[str]]:
    """Block the network; the test fails if anything tried to use it, even in vain."""
    from speechloom.testing.isolation import blocked_network

    with blocked_network() as attempts:
        yield attempts
    if attempts:
        pytest.fail(f"the network was used: {'; '.join(attempts)}")


@pytest.fixture
def tmp_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TemporaryPlugins]:
    """Make plugins for this test: good, broken, with missing packages, duplicate, too new."""
    from speechloom.testing.temporary import TemporaryPlugins

    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    plugins = TemporaryPlugins(folder)
    yield plugins
    plugins.forget_modules()
