"""A team calls a function on each of its threads: on torch's own, on a pool's, after a fork."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from speechloom.ops import team

Threads = Callable[[int], None]


class Kernel:
    """A function for a team, which notes its arguments and the thread of each call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self._entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._call)
        self.address = ctypes.cast(self._entry, ctypes.c_void_p).value or 0

    def _call(self, arguments: int) -> None:
        self.calls.append((arguments, threading.get_ident()))

    def run(self, arguments: int, workers: int) -> list[int]:
        """Have a team call it; return the threads."""
        self.calls.clear()
        team.run(self.address, arguments, workers)
        assert {given for given, _ in self.calls} == {arguments}
        return [thread for _, thread in self.calls]


@pytest.fixture(params=["torch's threads", "a pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to have threads."""
    if request.param == "a pool":
        monkeypatch.setattr(team, "openmp", lambda: None)
    elif team.openmp() is None:
        pytest.skip("this torch has no OpenMP library that is known")
    return str(request.param)


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.usefixtures("way")
def test_every_worker_is_called_once(threads: Threads, workers: int) -> None:
    threads(5)
    called = Kernel().run(77, workers)
    assert len(called) == workers
    assert threading.get_ident() in called


@pytest.mark.usefixtures("way")
def test_a_run_can_be_repeated(threads: Threads) -> None:
    threads(3)
    kernel = Kernel()
    for turn in range(1, 200):
        assert len(kernel.run(turn, 3)) == 3


def test_torchs_threads_are_taken_each_once(way: str, threads: Threads) -> None:
    threads(4)
    called = set(Kernel().run(1, 4))
    assert len(called) == 4 if way == "torch's threads" else len(called) <= 4


@pytest.mark.usefixtures("way")
def test_there_are_at_most_as_many_workers_as_torch_has_threads(threads: Threads) -> None:
    threads(2)
    assert len(Kernel().run(1, 50)) == 2
    threads(1)
    assert Kernel().run(1, 50) == [threading.get_ident()]


@pytest.mark.parametrize("workers", [1, 0, -3])
def test_one_worker_is_the_caller(
    threads: Threads, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(3)
    monkeypatch.setattr(team, "openmp", None)  # not asked for
    monkeypatch.setattr(team, "_pool", None)
    assert Kernel().run(1, workers) == [threading.get_ident()]


@pytest.mark.usefixtures("way")
def test_several_threads_may_run_a_team_at_once(threads: Threads) -> None:
    threads(3)

    def run(turn: int) -> int:
        return len(Kernel().run(turn + 1, 3))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run, range(100))) == {3}


def test_an_operation_of_torch_may_come_between(threads: Threads) -> None:
    threads(3)
    kernel, x = Kernel(), torch.ones(200_000)
    for turn in range(1, 20):
        assert len(kernel.run(turn, 3)) == 3
        assert float((x + turn).sum()) == 200_000 * (turn + 1)


@pytest.mark.parametrize("content", [None, b"no library"])
def test_a_torch_without_a_known_library_has_none(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "__init__.py"))
    if content is not None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "libtorch_global_deps.so").write_bytes(content)
    assert team._find_openmp.__wrapped__() is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_has_a_team_too(run_alone: Callable[..., None]) -> None:
    run_alone(
        """
        import ctypes, os, signal, threading, torch
        from speechloom.ops import team

        calls = []

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def kernel(arguments):
            calls.append(arguments)

        def has_team():
            calls.clear()
            team.run(ctypes.cast(kernel, ctypes.c_void_p).value, 7, 3)
            return calls == [7, 7, 7]

        def in_a_child(works):
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # it must not outlive the one that waits for it
                os._exit(0 if works() else 3)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

        torch.set_num_threads(3)
        torch.ones(200_000).add_(1)  # torch's threads are there
        assert has_team()
        assert in_a_child(has_team)
        assert in_a_child(lambda: has_team() and in_a_child(has_team))
        assert has_team()
        """,
        "-Wignore::DeprecationWarning",  # Python warns of forks beside threads: that is the case
    )
