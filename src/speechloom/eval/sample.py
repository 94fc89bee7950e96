"""One result with all that a metric may want to look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from speechloom.errors import UsageError
from speechloom.eval.measurement import Measurement
from speechloom.eval.spectrum import SAMPLE_RATE
from speechloom.speech import Region
from speechloom.values import Audio

__all__ = ["Sample", "same_timing"]

Value = TypeVar("Value")

_TIMING_TOLERANCE_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class Sample:
    """What a metric gets.

    Attributes:
        audio: the result that is judged.
        reference: a recording of the same words.
        voice: a recording of the speaker whom the result should sound like.
        transcript: what is said in `spoken`.
        spoken: the part of the result that says the transcript; the whole by default.
        regions: the stretches of the result that were generated; None when that is not known.
        measurement: what making the result cost; None when it existed already.
    """

    audio: Audio
    reference: Audio | None = None
    voice: Audio | None = None
    transcript: str | None = None
    spoken: Audio | None = None
    regions: tuple[Region, ...] | None = None
    measurement: Measurement | None = None
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """A value that several metrics share, made by the first that asks for it."""
        if name not in self._made:
            self._made[name] = make()
        value: Value = self._made[name]
        return value


def mono_16k(audio: Audio) -> NDArray[np.float32]:
    """The mean of the channels at 16 kHz, float32 [T]."""
    samples: NDArray[np.float32] = audio.mono().resampled(SAMPLE_RATE).samples[0]
    return samples


def same_timing(
    audio: Audio, reference: Audio, sample_rate: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both recordings at one rate and of one length, for metrics that compare sample by sample.

    Args:
        audio: the result.
        reference: the same words with the same timing.
        sample_rate: Hz that both are brought to.

    Returns:
        Samples of the result and of the reference, float32 [T] each.

    Raises:
        UsageError: they differ by more than 50 ms, so that their timing cannot be the same.
    """
    if abs(audio.seconds - reference.seconds) > _TIMING_TOLERANCE_SECONDS:
        raise UsageError(
            f"the result lasts {audio.seconds:.2f} s and the reference {reference.seconds:.2f} s; "
            "this metric compares recordings of the same timing"
        )
    one, other = (a.mono().resampled(sample_rate).samples[0] for a in (audio, reference))
    length = min(len(one), len(other))
    return one[:length], other[:length]
