"""One step of masked decoding: draw, rate, close. `README.md` has the mathematics."""

from speechloom.ops.masked_decode.api import decode_step, sample_rows, warm_up
from speechloom.ops.masked_decode.inputs import (
    HeadScores,
    LogitScores,
    SampleConfig,
    Scores,
    StepResult,
)
from speechloom.ops.masked_decode.noise import NoiseKeys, uniforms

__all__ = [
    "HeadScores",
    "LogitScores",
    "NoiseKeys",
    "SampleConfig",
    "Scores",
    "StepResult",
    "decode_step",
    "sample_rows",
    "uniforms",
    "warm_up",
]
