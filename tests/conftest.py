"""Fixtures of the core's own tests: a pipeline of fakes and recordings to give it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from speechloom.hooks import Hooks
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio

Record = Callable[..., Audio]

# A busy machine must not fail a property that holds.
settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")

# A busy machine is slow at times; what is tested is the result, not the pace.
settings.register_profile(
    "core", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("core")


@pytest.fixture
def hooks() -> Hooks:
    """A hook bus with nobody on it."""
    return Hooks(entry_points=(), environ={})


@pytest.fixture
def pipeline(fake_registry: Registry, hooks: Hooks) -> Pipeline:
    """All four tasks, by fakes."""
    return Pipeline(registry=fake_registry, hooks=hooks)


@pytest.fixture
def record() -> Record:
    """Make a recording: seconds, rate, channels, and a number for another one.

    Samples are whole 16-bit steps, so that they survive every container.
    """

    def make(
        seconds: float = 2.0, sample_rate: int = 16_000, channels: int = 1, number: int = 0
    ) -> Audio:
        audio = made_audio(round(seconds * sample_rate), sample_rate, channels, number)
        return Audio(np.rint(audio.samples * 2.0**15).astype(np.float32) / 2.0**15, sample_rate)

    return make
