"""What compiled kernels share: records, pieces of the work, memory of each thread."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

numba = pytest.importorskip("numba")
from speechloom.ops import native, team  # noqa: E402
from speechloom.ops.native import (  # noqa: E402
    Kernel,
    flush,
    next_piece,
    own_memory,
    pointer_to,
    together,
)

Threads = Callable[[int], None]
carray = numba.carray
numbers_at, reals_at = pointer_to(numba.types.int64), pointer_to(numba.types.float64)


def _note(record):  # type: ignore[no-untyped-def]
    """Count each piece, and copy the real fields."""
    a = carray(record, 1)[0]
    counts, reals = numbers_at(a.out), reals_at(a.reals)
    while True:
        piece = next_piece(record)
        if piece >= a.pieces:
            return
        counts[piece] += 1
        reals[0], reals[1] = a.first, a.second


NOTE = Kernel(_note, ("out", "pieces", "reals"), ("first", "second"))


def note(pieces: int, first: float = 0.5, second: float = 0.25) -> tuple[list[int], list[float]]:
    out, reals = torch.zeros(pieces, dtype=torch.int64), torch.zeros(2, dtype=torch.float64)
    call = NOTE.bound(pieces=pieces, second=second)
    call(64, out=out.data_ptr(), reals=reals.data_ptr(), first=first)
    return out.tolist(), reals.tolist()


@pytest.mark.parametrize("number", [1, 2, 5])
def test_each_piece_is_made_once(threads: Threads, number: int) -> None:
    threads(number)
    assert note(1000)[0] == [1] * 1000
    assert note(0)[0] == []


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.1), (-1.5, 1e300), (3, 0.5), (0.5, 2)])
def test_real_fields_arrive_and_may_be_whole(first: float, second: float) -> None:
    assert note(1, first, second)[1] == [first, second]


def _mark(record):  # type: ignore[no-untyped-def]
    """Fill the own memory with the number of the piece; note whether it stayed so."""
    a = carray(record, 1)[0]
    own, out = numbers_at(own_memory(record, a)), numbers_at(a.out)
    while True:
        piece = next_piece(record)
        if piece >= a.pieces:
            return
        for _ in range(50):
            for n in range(a.size):
                own[n] = piece
            for n in range(a.size):
                out[piece] += own[n] == piece


MARK = Kernel(_mark, ("out", "pieces", "size"))


def mark(pieces: int, size: int) -> Tensor:
    out = torch.zeros(pieces, dtype=torch.int64)
    MARK.bound(size=size)(8 * size, out=out.data_ptr(), pieces=pieces)
    return out


def test_each_thread_has_its_own_memory(threads: Threads) -> None:
    """Of the threads of a team, and of several teams at once, which ask for more and for less."""
    threads(3)
    assert (mark(100, 40) == 50 * 40).all()
    with ThreadPoolExecutor(4) as pool:
        sizes = [1, 400, 3, 50] * 5
        for size, out in zip(sizes, pool.map(lambda size: mark(60, size), sizes), strict=True):
            assert (out == 50 * size).all()


def test_a_kernel_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, compile = (
        Kernel(_note, ("out", "pieces", "reals"), ("first", "second")),
        Kernel._compile,
    )
    made: list[Kernel] = []

    def counted(own: Kernel) -> Any:
        made.append(own)
        return compile(own)

    monkeypatch.setattr(Kernel, "_compile", counted)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: kernel.address, range(8)))) == 1
    assert made == [kernel]


def test_code_is_compiled_without_a_place_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_cache(compiler: Callable[..., Any]) -> Callable[..., Any]:
        def compile(*arguments: Any, cache: bool = False, **options: Any) -> Any:
            def decorate(function: Callable[..., object]) -> Any:
                if cache:
                    raise RuntimeError("cannot cache function: no locator available")
                return compiler(*arguments, **options)(function)

            return decorate

        return compile

    monkeypatch.setattr(native, "njit", without_cache(numba.njit))
    monkeypatch.setattr(native, "cfunc", without_cache(numba.cfunc))

    @native.compiled()
    def double(x):  # type: ignore[no-untyped-def]
        return x + x

    assert double(4) == 8
    monkeypatch.setattr(NOTE, "_compiled", None)
    assert note(3)[0] == [1, 1, 1]


def test_a_call_asks_for_all_of_torchs_threads(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads(3)
    asked: list[int] = []
    monkeypatch.setattr(team, "run", lambda kernel, arguments, workers: asked.append(workers))
    note(10)
    assert asked == [3]


# Together.


@pytest.fixture(params=["torch's threads", "a pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to have threads."""
    if request.param == "a pool":
        monkeypatch.setattr(team, "openmp", lambda: None)
    elif team.openmp() is None:
        pytest.skip("this torch has no OpenMP library that is known")
    return str(request.param)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the workers of every run of a team."""
    run, made = team.run, []

    def noted(kernel: int, arguments: int, workers: int) -> None:
        made.append(workers)
        run(kernel, arguments, workers)

    monkeypatch.setattr(team, "run", noted)
    return made


def count(out: Tensor) -> None:
    """Count each piece up by one, without looking at what comes of it."""
    reals = torch.zeros(2, dtype=torch.float64)
    call = NOTE.bound(first=0.0, second=0.0, pieces=len(out))
    call(64, out, reals, out=out.data_ptr(), reals=reals.data_ptr())


def counts(pieces: int = 10) -> Tensor:
    return torch.zeros(pieces, dtype=torch.int64)


def _double(record):  # type: ignore[no-untyped-def]
    """Write twice the numbers, each piece's one."""
    a = carray(record, 1)[0]
    numbers, out = numbers_at(a.x), numbers_at(a.out)
    while True:
        piece = next_piece(record)
        if piece >= a.pieces:
            return
        out[piece] = 2 * numbers[piece]


DOUBLE = Kernel(_double, ("x", "out", "pieces"))


def double(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    DOUBLE.bound(pieces=len(x))(0, x, out, x=x.data_ptr(), out=out.data_ptr())
    return out


@pytest.mark.parametrize("number", [1, 2, 3])
def test_nothing_runs_before_the_end(
    threads: Threads, way: str, runs: list[int], number: int
) -> None:
    threads(number)
    out = counts()
    with together():
        for _ in range(5):
            count(out)
        assert not runs
        assert (out == 0).all()
    assert (out == 5).all()
    # OpenMP's threads are started by one compiled loop, which runs on the calling thread.
    assert runs == ([number] * 5 if number == 1 or way == "a pool" else [1])


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.usefixtures("way")
def test_kernels_run_in_their_order(threads: Threads, number: int) -> None:
    """Each of them needs all that the one before it wrote."""
    threads(number)
    for _ in range(20):
        x = first = torch.arange(1000)
        with together():
            for _ in range(8):
                x = double(x)
        assert torch.equal(x, 256 * first)


def test_no_kernels_together_run_nothing(runs: list[int]) -> None:
    with together():
        flush()
    flush()
    assert runs == []


@pytest.mark.usefixtures("way")
def test_a_flush_runs_what_is_held_back_once(threads: Threads) -> None:
    threads(2)
    first, second = counts(), counts()
    with together():
        count(first)
        flush()
        assert (first == 1).all()
        flush()
        count(second)
        assert (second == 0).all()
    assert (first == 1).all()
    assert (second == 1).all()


@pytest.mark.usefixtures("way")
def test_nested_ones_run_at_the_outer_end(threads: Threads, runs: list[int]) -> None:
    threads(2)
    out = counts()
    with together():
        count(out)
        with together():
            count(out)
            with together():
                count(out)
        count(out)
        assert not runs
    assert (out == 4).all()


def test_an_exception_drops_what_is_held_back(runs: list[int]) -> None:
    out = counts()

    def fail() -> None:
        with together():
            count(out)
            with together():
                count(out)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not runs
    flush()
    assert (out == 0).all()
    count(out)  # at once again
    assert (out == 1).all()
    with together():
        count(out)
    assert (out == 2).all()


def test_a_kernel_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(kernel: int, arguments: int, workers: int) -> None:
        raise MemoryError

    out = counts()
    with monkeypatch.context() as patch:
        patch.setattr(team, "run", fail)
        with pytest.raises(MemoryError), together():
            count(out)
    count(out)
    assert (out == 1).all()


@pytest.mark.usefixtures("way")
def test_python_threads_have_queues_of_their_own(threads: Threads) -> None:
    threads(2)
    held, go_on = threading.Event(), threading.Event()
    theirs, ours = counts(), counts()

    def hold() -> None:
        with together():
            count(theirs)
            held.set()
            assert go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(hold)
        assert held.wait(30)
        count(ours)  # at once
        assert (ours == 1).all()
        with together():
            count(ours)
        assert (ours == 2).all()
        assert (theirs == 0).all()
        go_on.set()
        other.result()
    assert (theirs == 1).all()


@pytest.mark.usefixtures("way")
def test_memory_may_grow_while_kernels_are_held_back(threads: Threads) -> None:
    threads(3)
    native._local.memory = None
    sizes, made = [1, 400, 3, 5000, 50], []
    with together():
        for size in sizes:
            made.append(mark(20, size))
            torch.full((3 * 8 * size,), 255, dtype=torch.uint8)  # where freed memory was
    for size, out in zip(sizes, made, strict=True):
        assert (out == 50 * size).all()


@pytest.mark.parametrize(("before", "after"), [(1, 5), (5, 1), (2, 3)])
@pytest.mark.usefixtures("way")
def test_the_number_of_threads_may_change_before_the_end(
    threads: Threads, before: int, after: int
) -> None:
    """Each kernel has memory for as many as there were."""
    native._local.memory = None
    threads(before)
    with together():
        first = mark(40, 5000)
        threads(after)
        second = mark(40, 3000)
    assert (first == 50 * 5000).all()
    assert (second == 50 * 3000).all()


def test_tensors_are_kept_until_a_kernel_has_run() -> None:
    out = counts(1000)
    alive = weakref.ref(out)
    with together():
        count(out)
        del out
        assert alive() is not None
    assert alive() is None


def test_tensors_of_dropped_kernels_are_let_go() -> None:
    def fail(kept: list[Tensor]) -> None:
        with together():
            count(kept.pop())
            raise ZeroDivisionError

    out = counts(1000)
    alive, kept = weakref.ref(out), [out]
    del out
    with pytest.raises(ZeroDivisionError):
        fail(kept)
    assert alive() is None
