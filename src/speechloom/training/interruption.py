"""Stopping when somebody asks: the signal is noted, and the loop ends behind its step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interruption", "noticed_signals"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether a signal has come.

    Attributes:
        signal: its number; 0 while there is none.
    """

    signal: int = 0


@contextmanager
def noticed_signals() -> Iterator[Interruption]:
    """Note the first SIGINT or SIGTERM; the second does what it always does.

    Outside of the main thread signals cannot be caught, and stay as they are.
    """
    seen = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        seen.signal = number
        for name, handler in before.items():
            signal.signal(name, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
