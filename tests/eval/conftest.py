"""Sounds that stand for speech: a voiced source through moving resonances, with pauses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from speechloom.errors import AudioError
from speechloom.speech import Alignment, Region, Span, Speech
from speechloom.values import Audio

SAMPLE_RATE = 16_000


def make_sine(hertz: float, seconds: float = 1.0, amplitude: float = 0.5) -> NDArray[np.float32]:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    samples: NDArray[np.float32] = (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)
    return samples


def make_babble(seconds: float = 3.0, f0_hertz: float = 120.0, seed: int = 0) -> Audio:
    """Harmonics under formants that move three times a second, with syllable-like loudness."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    steps = int(seconds * 3) + 2
    grid = np.linspace(0, seconds, steps)
    first, second = (
        np.interp(time, grid, rng.uniform(low, high, steps))
        for low, high in ((300, 800), (900, 2400))
    )
    pitch = f0_hertz * (1 + 0.05 * np.sin(2 * np.pi * 0.7 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    samples = np.zeros_like(time)
    for harmonic in range(1, int(4000 / f0_hertz)):
        frequency = harmonic * pitch
        gain = 1 / (1 + ((frequency - first) / 120) ** 2) + 0.5 / (
            1 + ((frequency - second) / 160) ** 2
        )
        samples += (gain + 0.01) * np.sin(harmonic * phase)
    samples *= 0.02 + np.maximum(0, np.sin(2 * np.pi * 1.9 * time)) ** 0.5
    samples = 0.3 * samples / np.abs(samples).max() + 1e-4 * rng.standard_normal(len(time))
    return Audio(samples.astype(np.float32), SAMPLE_RATE)


@dataclass
class FakePipeline:
    """Speaks every text as `make_babble`; remembers what it was asked."""

    calls: list[tuple[str, Any, Mapping[str, Any]]] = field(default_factory=list)

    def _speech(self, task: str, subject: Any, options: Mapping[str, Any]) -> Any:
        self.calls.append((task, subject, options))
        audio = make_babble(1.0, seed=options.get("seed", 0))
        if options.get("stream"):
            return self._pieces(audio)
        if subject == "fail":
            raise AudioError("this text always fails")
        half = audio.length // 2
        return Speech(
            audio=audio,
            seed=options.get("seed", 0),
            regions=(Region(half, audio.length, SAMPLE_RATE),),
            alignment=Alignment((Span("one", 0.0, 0.4), Span("two", 0.4, 1.0))),
        )

    def _pieces(self, audio: Audio) -> Iterator[Audio]:
        yield audio.slice(0, 1600)
        raise AssertionError("only the first piece is wanted")

    def synthesize(self, text: str, **options: Any) -> Any:
        return self._speech("synthesize", text, options)

    def edit(self, audio: Any, **options: Any) -> Any:
        return self._speech("edit", audio, options)

    def continue_(self, audio: Any, **options: Any) -> Any:
        return self._speech("continue", audio, options)

    def convert(self, audio: Any, **options: Any) -> Any:
        return self._speech("convert", audio, options)


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def babble() -> Callable[..., Audio]:
    return make_babble


@pytest.fixture
def sine() -> Callable[..., NDArray[np.float32]]:
    return make_sine
