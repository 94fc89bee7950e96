"""Masked decoding: the schedule, the loop, what a network must offer to them, how it runs."""

from speechloom.decoding.config import DecodeConfig
from speechloom.decoding.execution import Execution, ExecutionConfig, keep_freed_memory
from speechloom.decoding.loop import masked_decode
from speechloom.decoding.network import MaskedNetwork
from speechloom.decoding.reuse import FrameMemory
from speechloom.decoding.schedule import anneal, open_after
from speechloom.ops.layers.choice import has_bfloat16_units

__all__ = [
    "DecodeConfig",
    "Execution",
    "ExecutionConfig",
    "FrameMemory",
    "MaskedNetwork",
    "anneal",
    "has_bfloat16_units",
    "keep_freed_memory",
    "masked_decode",
    "open_after",
]
