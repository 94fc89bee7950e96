"""Watching what a component touches besides its arguments: network, random state, memory.

No torch is imported unless it already is, so that these can guard light code too.
"""

from __future__ import annotations

import gc
import random
import socket
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

__all__ = ["Growth", "blocked_network", "memory_growth", "random_state", "restored_random_state"]


@contextmanager
def blocked_network() -> Iterator[list[str]]:
    """Refuse every connection out of this process and note each attempt.

    Local (Unix) sockets still work. An attempt raises OSError, as a machine with no network does;
    code that swallows it is still found, because the attempt is in the list.

    Yields:
        What was tried, as text; grows inside the ``with`` block.
    """
    attempts: list[str] = []

    def refuse(what: str) -> None:
        attempts.append(what)
        raise OSError(f"the network is blocked, but something tried {what}")

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def method(self: socket.socket, *args: Any) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None):
                refuse(f"socket.{name}({args[-1] if args else ''})")
            return original(self, *args)

        return method

    with ExitStack() as stack:
        for name in ("connect", "connect_ex", "sendto"):
            stack.enter_context(mock.patch.object(socket.socket, name, guarded(name)))
        for name in ("getaddrinfo", "gethostbyname"):
            lookup = _refusing_lookup(name, refuse)
            stack.enter_context(mock.patch.object(socket, name, lookup))
        yield attempts


def _refusing_lookup(name: str, refuse: Callable[[str], None]) -> Callable[..., None]:
    def lookup(host: object, *args: object, **options: object) -> None:
        refuse(f"socket.{name}({host!r})")

    return lookup


def random_state() -> tuple[object, ...]:
    """The global random state of Python, numpy and (where it is imported) torch, to compare."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: tuple[object, ...] = (
        random.getstate(),
        (name, np.asarray(keys).tobytes(), position, has_gauss, gauss),
    )
    torch = sys.modules.get("torch")
    return state if torch is None else (*state, torch.get_rng_state().numpy().tobytes())


@contextmanager
def restored_random_state(shift: int = 0) -> Iterator[None]:
    """Run with the global generators moved on by `shift` draws, and put them back after it."""
    torch = sys.modules.get("torch")
    python, numpy = random.getstate(), np.random.get_state()
    device = None if torch is None else torch.get_rng_state()
    for _ in range(shift):
        random.random()
        np.random.random()
        if torch is not None:
            torch.rand(1)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(device)


@dataclass(frozen=True)
class Growth:
    """What a number of calls left behind.

    Attributes:
        python_bytes: memory held by Python and numpy, as `tracemalloc` counts it.
        tensors: torch tensors alive.
        resident_bytes: resident memory of the process; 0 where the system does not tell.
    """

    python_bytes: int
    tensors: int
    resident_bytes: int


def memory_growth(call: Callable[[], object], *, calls: int = 20, warm_up: int = 3) -> Growth:
    """What `calls` calls leave behind after `warm_up` calls have filled the caches.

    Args:
        call: what to measure; its result is dropped.
        calls: how many are measured.
        warm_up: how many go before.
    """
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        for _ in range(warm_up):
            call()
        before = _held()
        for _ in range(calls):
            call()
        after = _held()
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return Growth(*(b - a for a, b in zip(before, after, strict=True)))


def _held() -> tuple[int, int, int]:
    gc.collect()
    return tracemalloc.get_traced_memory()[0], _live_tensors(), _resident_bytes()


def _live_tensors() -> int:
    torch = sys.modules.get("torch")
    if torch is None:
        return 0
    # The type is asked, not the object: proxies answer isinstance by importing what they stand for.
    types = Counter(map(type, gc.get_objects()))
    return sum(count for kind, count in types.items() if issubclass(kind, torch.Tensor))


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except OSError:
        return 0
    import resource

    return pages * resource.getpagesize()
