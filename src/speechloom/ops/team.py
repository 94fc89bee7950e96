"""Run a compiled function on several threads: on torch's own where they can be had.

torch's CPU operations run on the threads of an OpenMP library, which wait for the next operation
in a loop. Other threads would share the cores with these waiting ones: on two cores, two threads of
a pool take more than twice the time that they take alone. GNU's library has a plain function that
runs anything on its threads, within two microseconds; LLVM's and Intel's offer the same. Where no
such library is at hand, and in a process that was forked from one that used it (its threads are
gone, and it waits for them for ever), threads of a pool do the work.

numba's own parallel loops are not used: its portable threading layer breaks when two threads enter
it.
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

__all__ = ["openmp", "run"]

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def run(kernel: int, arguments: int, workers: int) -> None:
    """Call a kernel once on each of some threads, the calling one among them; wait for all.

    The kernel shares the work out by itself: all calls get the same arguments, and which threads
    run, how many at once or in which order says nothing.

    Args:
        kernel: address of a `void kernel(void *arguments)` that neither raises nor needs the
            interpreter's lock.
        arguments: address that it is called with.
        workers: calls to make; at most torch's number of threads, and at least one.
    """
    workers = max(1, min(workers, torch.get_num_threads()))
    call = _ENTRY(kernel)
    if workers == 1:
        call(arguments)
        return
    parallel = openmp()
    if parallel is not None:
        parallel(kernel, arguments, workers, 0)
        return
    others = [_pool().submit(call, arguments) for _ in range(workers - 1)]
    call(arguments)
    for other in others:
        other.result()


def openmp() -> Any:
    """The ctypes function `GOMP_parallel(function, data, threads, flags)` that torch uses, or None.

    None also in a forked process.
    """
    return None if _IS_FORKED else _find_openmp()


@cache
def _find_openmp() -> Any:
    library = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"
    try:
        # Names are looked up in this library and in those that it is linked with.
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="speechloom-ops")


_IS_FORKED = False


def _after_fork() -> None:
    global _IS_FORKED
    _IS_FORKED = True
    _pool.cache_clear()  # threads do not survive a fork: the child makes its own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
