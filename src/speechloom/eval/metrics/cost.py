"""What making the result cost: time and memory."""

from __future__ import annotations

from speechloom.errors import UsageError
from speechloom.eval.measurement import Measurement
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.sample import Sample

__all__ = ["METRICS", "first_chunk", "peak_memory", "real_time_factor"]


def _measurement(sample: Sample) -> Measurement:
    assert sample.measurement is not None
    return sample.measurement


def real_time_factor(sample: Sample) -> Score:
    """Time that the call took / duration of the result; lower is better.

    Weighted by duration, so that the mean is all time / all audio.
    """
    seconds = sample.audio.seconds
    return Score(_measurement(sample).wall_seconds / seconds, weight=seconds)


def first_chunk(sample: Sample) -> Score:
    """Seconds until a streamed call gives its first piece of audio; lower is better.

    Raises:
        UsageError: it was not streamed, or begins with the caller's own recording.
    """
    seconds = _measurement(sample).first_chunk_seconds
    if seconds is None:
        raise UsageError("the task cannot be streamed, or begins with the recording it was given")
    return Score(seconds)


def peak_memory(sample: Sample) -> Score:
    """Largest resident memory of the process during the call, in MiB; lower is better.

    It counts everything that the process holds, loaded weights and libraries too, but no memory
    of an accelerator.

    Raises:
        UsageError: this system does not say.
    """
    peak = _measurement(sample).peak_memory_bytes
    if peak is None:
        raise UsageError("this system does not tell the peak memory of a process")
    return Score(peak / 2**20)


METRICS = (
    Metric("rtf", real_time_factor, "", "lower", ("measurement",)),
    Metric("first_chunk", first_chunk, "s", "lower", ("measurement",)),
    Metric("peak_memory", peak_memory, "MiB", "lower", ("measurement",)),
)
"""Real-time factor, seconds to the first chunk, peak memory."""
