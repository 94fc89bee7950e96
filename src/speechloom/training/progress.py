"""What a run shows while it goes: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Display"]

QUIET_SECONDS = 10.0
"""Time between lines where there is no terminal."""


class Display:
    """Shows how far a run is, and its numbers; silent in all processes but the first.

    Args:
        silent: show nothing.
        console: where to; standard output by default.
    """

    def __init__(self, *, silent: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._silent = silent
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=silent or not self._console.is_terminal,
        )
        self._task: Any = None
        self._printed = 0.0

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._silent:
            self._console.print(text, markup=False, soft_wrap=True)

    def legend(self, watch: Mapping[str, str]) -> None:
        """Say which numbers to watch, and what is normal for them."""
        for name, normal in watch.items():
            self.say(f"watch {name}: {normal}")

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Begin a bar, in place of the one before it."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=total, completed=done)
        self._printed = time.monotonic()

    def advance(self, what: str, done: int, total: int, numbers: str = "") -> None:
        """Show how far it is."""
        text = f"{what}  {numbers}" if numbers else what
        self._bar.update(self._task, completed=done, description=text)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._printed > QUIET_SECONDS:
            self._printed = now
            self.say(f"{what} {done}/{total}  {numbers}".rstrip())
