"""Share rows out among threads: as many as torch uses, from any thread, before and after a fork.

The compiled loops release the interpreter lock, so plain threads run them side by side. numba's
own parallel loops are not used: its portable threading layer breaks when two threads enter it, and
OpenMP's when the process forks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

Work = Callable[[int, int, Tensor], None]


def share_out(rows: int, piece: int, scratch_size: int, work: Work) -> None:
    """Call `work(first, last, scratch)` for all rows, `piece` of them at a time.

    The calling thread works too; few rows do not leave it.

    Args:
        rows: how many there are.
        piece: rows of a call, at least 1.
        scratch_size: elements of a worker's memory, int32.
        work: called with a range of rows and a worker's own memory, with any content.
    """
    pieces = iter(range(0, rows, piece))
    workers = min(torch.get_num_threads(), -(-rows // piece))
    scratches = torch.empty(workers, scratch_size, dtype=torch.int32)

    def run(scratch: Tensor) -> None:
        for first in pieces:
            work(first, min(first + piece, rows), scratch)

    others = [_pool().submit(run, scratch) for scratch in scratches[1:]]
    run(scratches[0])
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="speechloom-decode")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork: the child makes its own
    os.register_at_fork(after_in_child=_pool.cache_clear)
