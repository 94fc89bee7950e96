"""Every Python block and every `speechloom` command of README and docs runs, offline."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import speechloom.cli

pytest.importorskip("speechloom_starter", reason="the examples use the starter voice")

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", *ROOT.glob("plugins/*/README.md")])
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block of a page."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2]


def commands(text: str) -> Iterator[list[str]]:
    """The `speechloom` commands of a shell block; installing is what the session itself does."""
    for line in text.splitlines():
        for part in line.split(" && "):
            words = shlex.split(part, comments=True)
            if words[:1] == ["speechloom"]:
                yield words


def runs(distribution: str) -> bool:
    """Whether a plugin is installed with everything that it needs; the starter's network is."""
    if distribution == "speechloom-speechsec":
        return True
    records = [r for r in speechloom.default_registry().records() if r.distribution == distribution]
    return bool(records) and all(record.status.usable for record in records)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stop:
        speechloom.cli.main()
    assert not stop.value.code, f"{shlex.join(words)} failed with {stop.value.code}"


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    if page.parent.parent.name == "plugins" and not runs(page.parent.name):
        pytest.skip(f"{page.parent.name} or what it needs is not installed")
    monkeypatch.chdir(tmp_path)
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), {"__name__": "__example__"})
        else:
            for words in commands(text):
                run_command(words, monkeypatch)


def test_the_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "&& speechloom synthesize" in text
    assert "pip install nox && nox -s tests" in text
