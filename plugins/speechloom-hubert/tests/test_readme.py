"""The Python of the README runs, with no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_the_example_runs(no_network: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[1] / "README.md"
    (block,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(block, str(page), "exec"), {"__name__": "__example__"})
    assert capsys.readouterr().out == "features:random-hubert-l1 [1, 16, 50] 50\n"
