"""What compiled kernels share: records, pieces of the work, memory of each thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

numba = pytest.importorskip("numba")
from speechloom.ops import native, team  # noqa: E402
from speechloom.ops.native import Kernel, next_piece, own_memory, pointer_to  # noqa: E402

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
