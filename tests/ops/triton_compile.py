"""Compile the kernels to machine code for a chip, by its capability, with no device here.

    python triton_compile.py 90

The launches of `triton.py` are made as they are, on CPU tensors, but only compiled: what Triton
infers about their arguments is what it would infer on a device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

from speechloom.ops.masked_decode import HeadScores, LogitScores, NoiseKeys, SampleConfig
from speechloom.ops.masked_decode import triton as kernels

EVERYTHING = SampleConfig(top_k=5, top_p=0.5, guidance=2.5, forbidden=(1,), temperature=1.3)


class AbsentChip:
    """What Triton's compiler asks of a driver."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


class Compiled:
    """A kernel whose launches compile and do not run."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def compile_only(*arguments: Any, **options: Any) -> None:
            assert self.kernel.warmup(*arguments, grid=grid, **options).asm["cubin"]

        return compile_only


def main(capability: int) -> None:
    triton.runtime.driver.set_active(AbsentChip(capability))
    kernels.draw_fwd_kernel = Compiled(kernels.draw_fwd_kernel)
    kernels.close_fwd_kernel = Compiled(kernels.close_fwd_kernel)
    rows = torch.arange(20)
    keys = NoiseKeys(seed=rows - 5, item=rows, position=rows, stage=200)
    logits = torch.zeros(2, 20, 1000, dtype=torch.bfloat16)
    weight = torch.zeros(100, 64, dtype=torch.bfloat16)
    hidden = torch.zeros(2, 20, 64, dtype=torch.bfloat16)
    options = {"config": EVERYTHING, "choice_temperature": 1.0}
    kernels.draw_rows(LogitScores(logits=logits[0], unconditional=logits[1]), keys, **options)
    print("logits")
    head = HeadScores(hidden=hidden[0], unconditional=hidden[1], weight=weight, bias=weight[:, 0])
    kernels.draw_rows(head, keys, **options)
    print("head")
    kernels.close_rows(torch.zeros(20), *torch.zeros(3, 1, dtype=torch.int64), longest=20)
    print("closing\ncompiled")


if __name__ == "__main__":
    main(int(sys.argv[1]))
