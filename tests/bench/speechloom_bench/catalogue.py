"""What the tables show, in their order; a row that no run measured is shown as such."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        row: its name in the records.
        what: the work, in words.
        peer: whom it is beside, in words.
        must: what issue 3 asks for, in words.
    """

    row: str
    what: str
    peer: str
    must: str


CPU = (
    Entry("step-500", "one sampling step, 500 open rows of 1024, top-k 308",
          "soundstorm-pytorch's step, 4000 rows as it does", "60x"),
    Entry("step-4000", "the same on all 4000 rows", "the same", "8x"),
    Entry("step-maskgct", "sampling step, 500 rows of 1024, k = 21", "MaskGCT's step", "4x"),
    Entry("step-magnet", "sampling step, 498 rows of 2048, guidance, top-p 0.9",
          "MAGNeT's step", "-"),
    Entry("decode-s", "whole decode S (512 x 6), 500 frames",
          "soundstorm-pytorch as shipped", "2.5x"),
    Entry("decode-s-bf16", "the same in bf16", "as shipped; compiled in bf16", "4.5x; 2.0x"),
    Entry("decode-p", "whole decode P (1024 x 12), 500 frames",
          "soundstorm-pytorch as shipped", "2.1x, 80 % of the ceiling"),
    Entry("decode-p-bf16", "the same in bf16", "as shipped", "4.5x"),
    Entry("maskgct", "MaskGCT-like second stage (1024 x 16, guidance, 3 s prompt, passes 3, 1, 1)",
          "MaskGCT's loop", "2.3x"),
    Entry("maskgct-bf16", "the same in bf16", "MaskGCT's loop", "4.8x"),
    Entry("magnet", "S with guidance, passes 4, 2, 2, 2, 1, 1, 1, 1", "MAGNeT's loop", "-"),
    Entry("ragged", "four utterances of 2.5, 5, 7.5 and 10 s in one batch, S",
          "soundstorm-pytorch, padded", "6x"),
    Entry("ragged-bf16", "the same in bf16", "the same", "11x"),
    Entry("thirty-seconds", "30 s decode, S", "soundstorm-pytorch as shipped", "3.2x"),
    Entry("thirty-seconds-bf16", "the same in bf16", "the same", "6.5x"),
    Entry("first-call", "SpeechSEC S, first call after a warm-up",
          "its own later calls", "at most 1.3x"),
)  # fmt: skip

GPU = (
    Entry("gpu-level-b1", "level sampling, B = 1", "torch eager, level only", "15x"),
    Entry("gpu-level-b32", "level sampling, B = 32", "the same", "20x"),
    Entry("gpu-level-b128", "level sampling, B = 128", "the same", "10x"),
    Entry("gpu-grid-b32", "full-grid step, B = 32", "soundstorm-pytorch's", "150x"),
    Entry("gpu-decode-p-b1", "decode P, B = 1", "its own network, eager bf16", "3x, at most 30 ms"),
    Entry("gpu-decode-p-b1-compiled", "decode P, B = 1", "compile max-autotune", "1.2x"),
    Entry("gpu-decode-p-b32", "decode P, B = 32", "eager bf16", "1.5x, 60 % of the matrix rate"),
    Entry("gpu-no-sync", "decode with synchronisation forbidden, and captured in graphs", "-",
          "passes"),
)  # fmt: skip
