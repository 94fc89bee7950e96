"""What stands between the IPA front end and espeak, without espeak."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from speechloom.errors import BackendUnavailable
from speechloom_vits import characters


class OneState:
    """Like espeak: a call sees what another thread's call has put there."""

    def __init__(self, language: str, **options: object) -> None:
        self.text = ""

    def phonemize(self, texts: list[str], *, strip: bool) -> list[str]:
        self.text = texts[0]
        time.sleep(0.001)
        return [self.text.upper()]


class NoProgram:
    def __init__(self, language: str, **options: object) -> None:
        raise RuntimeError("espeak not installed on your system")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    module = ModuleType("phonemizer.backend")
    monkeypatch.setitem(sys.modules, "phonemizer", ModuleType("phonemizer"))
    monkeypatch.setitem(sys.modules, "phonemizer.backend", module)
    characters._phonemiser.cache_clear()
    yield module
    characters._phonemiser.cache_clear()


def test_threads_take_turns(backend: ModuleType) -> None:
    backend.EspeakBackend = OneState  # type: ignore[attr-defined]
    words = [f"word{number}" for number in range(40)]
    read, start = characters._phonemiser(), threading.Barrier(4)

    def some(first: int) -> list[str]:
        start.wait()
        return [read(word) for word in words[first::4]]

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(some, range(4)))
    assert made == [[word.upper() for word in words[first::4]] for first in range(4)]


def test_a_missing_program_is_named(backend: ModuleType) -> None:
    backend.EspeakBackend = NoProgram  # type: ignore[attr-defined]
    with pytest.raises(BackendUnavailable, match="espeak not installed.*install the program"):
        characters._phonemiser()
