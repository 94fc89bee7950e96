"""What the compiled kernels of the operations share: how they are compiled, fed and called.

A kernel is a C function of one record. `speechloom.ops.team` calls it on several threads at once;
they take pieces of the work by counting up the record's first field, and know their own memory by
counting up its second. Numba is needed to import this.
"""
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, no-untyped-call"
# mypy: disable-error-code="call-arg, attr-defined"
# The types of compiled functions are numba's; their docstrings say them.

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic
from torch import Tensor

from speechloom.ops import team

__all__ = [
    "Call",
    "Kernel",
    "address_of",
    "compiled",
    "flush",
    "next_piece",
    "own_memory",
    "pointer_to",
    "together",
]

_I64 = ir.IntType(64)


def compiled(fastmath: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Compile at the first call; keep the code on disk where there is a place for it."""

    def decorate(function: Callable[..., Any]) -> Any:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            return njit(**options)(function)

    return decorate


# In compiled code.


@intrinsic
def _count_up(typing_context, counter):
    """Count an int64 at an address up by one, as one step among threads; return it as it was."""

    def code(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", place, _I64(1), "monotonic")

    return types.int64(types.int64), code


@intrinsic
def address_of(typing_context, pointer):
    """The address in a pointer."""

    def code(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], _I64)

    return types.int64(pointer), code


def pointer_to(kind: Any) -> Any:
    """A function of compiled code that makes a pointer to a type of an address."""

    @intrinsic
    def pointer(typing_context, place):
        result = types.CPointer(kind)

        def code(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.int64), code

    return pointer


@compiled()
def next_piece(record):
    """The number of a piece of the work that no other thread has."""
    return _count_up(address_of(record))


@compiled()
def own_memory(record, fields):
    """A thread's own memory: its address; to be asked for once."""
    return fields.scratch + _count_up(address_of(record) + 8) * fields.scratch_size


# In Python.


class Kernel:
    """A kernel and its record's fields, compiled at the first call and kept for good.

    Args:
        function: `function(record)`, to be compiled; `numba.carray(record, 1)[0]` has the fields.
        numbers: names of int64 fields: numbers, addresses, flags.
        reals: names of float64 fields, which come last.
        counted: the record begins with what `next_piece` and `own_memory` count.

    Attributes:
        reals: these names.
    """

    def __init__(
        self,
        function: Callable[..., None],
        numbers: Iterable[str],
        reals: Iterable[str] = (),
        *,
        counted: bool = True,
    ) -> None:
        counters = ("next", "worker", "scratch", "scratch_size") if counted else ()
        names = (*counters, *numbers)
        self.reals = frozenset(reals)
        kinds = [(name, np.int64) for name in names] + [(name, np.float64) for name in reals]
        self._function = function
        self._record = np.dtype(kinds)
        self._compiled: Any = None
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> Kernel:
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All fields in their order."""
        return self._record.names or ()

    @property
    def is_compiled(self) -> bool:
        """Whether it is compiled, or read from the cache, already."""
        return self._compiled is not None

    @property
    def address(self) -> int:
        """Where the compiled function is; compiles it at the first call."""
        if self._compiled is None:
            with self._lock:
                self._compiled = self._compiled or self._compile()
        found: int = self._compiled.address
        return found

    def _compile(self) -> Any:
        signature = types.void(types.CPointer(numba.from_dtype(self._record)))
        try:
            return cfunc(signature, cache=True, error_model="numpy")(self._function)
        except RuntimeError:  # as in `compiled`
            return cfunc(signature, error_model="numpy")(self._function)

    def bound(self, **fields: float) -> Call:
        """The kernel with fields that are the same in all calls."""
        return Call(self, fields)


class Call:
    """A kernel with what is the same in all its calls."""

    def __init__(self, kernel: Kernel, fields: Mapping[str, float]) -> None:
        self.kernel = kernel
        self._places = {name: place for place, name in enumerate(kernel.names)}
        self._record = ctypes.c_int64 * len(kernel.names)
        self._fixed = [0] * len(kernel.names)
        self._set(self._fixed, fields)

    def __call__(self, scratch_bytes: int, /, *tensors: Tensor, **fields: float) -> None:
        """Run it on torch's number of threads, at once or where a `together` ends.

        Args:
            scratch_bytes: memory of each thread, with any content.
            tensors: those that addresses in the record are of, kept until it has run.
            fields: the rest of the record.
        """
        values, workers = self._fixed.copy(), torch.get_num_threads()
        memory = _scratch_memory(workers * scratch_bytes)
        self._set(values, fields, scratch=memory.data_ptr(), scratch_size=scratch_bytes)
        ready = _Ready(self.kernel, self._record(*values), workers, (memory, *tensors))
        if _local.queue is None:
            ready.run()
        else:
            _local.queue.append(ready)

    def _set(self, values: list[int], fields: Mapping[str, float], **more: int) -> None:
        for name, value in chain(fields.items(), more.items()):
            is_real = name in self.kernel.reals
            values[self._places[name]] = _bits(value) if is_real else int(value)


@dataclass(frozen=True)
class _Ready:
    """A kernel with its whole record and memory for some workers; tensors are kept alive."""

    kernel: Kernel
    record: Any
    workers: int
    tensors: tuple[Tensor, ...]

    def run(self) -> None:
        team.run(self.kernel.address, ctypes.addressof(self.record), self.workers)


class _Local(threading.local):
    """What a Python thread has for its kernels, which run one after the other."""

    memory: Tensor | None = None
    queue: list[_Ready] | None = None


_local = _Local()


@contextmanager
def together() -> Iterator[None]:
    """Run the kernels that are called inside one after the other when it ends, or at a `flush`.

    After a kernel the caches hold nothing of the interpreter, which then takes some fifty
    microseconds to start the next one. Here it prepares all of them first. What they write must
    not be read inside.
    """
    if _local.queue is not None:  # the outer one runs them
        yield
        return
    _local.queue = []
    try:
        yield
        flush()
    finally:
        _local.queue = None


def flush() -> None:
    """Run what a `together` holds back: before something else reads what the kernels write."""
    queue = _local.queue
    if not queue:
        return
    parallel, workers = team.openmp(), min(ready.workers for ready in queue)
    if parallel is None or workers == 1:
        for ready in queue:
            ready.run()
    else:
        both = [(ready.kernel.address, ctypes.addressof(ready.record)) for ready in queue]
        pairs = (ctypes.c_int64 * (2 * len(both)))(*chain(*both))
        start = ctypes.cast(parallel, ctypes.c_void_p).value
        record = (ctypes.c_int64 * 4)(len(both), ctypes.addressof(pairs), start or 0, workers)
        team.run(_IN_TURN.address, ctypes.addressof(record), 1)
    queue.clear()


@intrinsic
def _start(typing_context, parallel, kernel, record, workers):
    """`parallel(kernel, record, workers, 0)`, the first three being addresses."""

    def code(context, builder, signature, arguments):
        place, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place, place, word, word]).as_pointer()
        function, called, data = (
            builder.inttoptr(value, to)
            for value, to in zip(arguments[:3], (kind, place, place), strict=True)
        )
        builder.call(function, [called, data, builder.trunc(arguments[3], word), word(0)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), code


_addresses = pointer_to(types.int64)


def _in_turn(record):
    fields = carray(record, 1)[0]
    pairs = _addresses(fields.pairs)
    for i in range(fields.count):
        _start(fields.parallel, pairs[2 * i], pairs[2 * i + 1], fields.workers)


_IN_TURN = Kernel(_in_turn, ("count", "pairs", "parallel", "workers"), counted=False)
"""Starts kernels on OpenMP's threads, one after the other."""


@lru_cache(maxsize=256)
def _bits(value: float) -> int:
    """A float64 as the int64 of the same bits."""
    bits: int = struct.unpack("q", struct.pack("d", value))[0]
    return bits


def _scratch_memory(size: int) -> Tensor:
    """Memory that this thread keeps for its kernels, one after the other."""
    held = _local.memory
    if held is None or held.numel() < size:
        held = _local.memory = torch.empty(size, dtype=torch.uint8)
    return held
