"""What the checks feed to a component: audio, phones and text, all made, none recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from speechloom.values import Audio, Phones

__all__ = ["AudioMaker", "Inputs", "made_audio"]

AudioMaker = Callable[[int, int, int, int], Audio]
"""(length in samples, sample_rate in Hz, channels, number of the recording) to `Audio`."""

ENGLISH = "The quick brown fox, it seems, jumps over the lazy dog. Does it? Yes."


def made_audio(length: int, sample_rate: int = 16_000, channels: int = 1, number: int = 0) -> Audio:
    """Something like a voice: harmonics of a gliding pitch in syllables, and a little noise.

    Args:
        length: samples.
        sample_rate: Hz.
        channels: each a little quieter than the one before.
        number: different numbers give different voices and tunes.
    """
    draw = np.random.default_rng(number)
    seconds = np.arange(length) / sample_rate
    pitch = 90 + 25 * number % 120 + 15 * np.sin(2 * np.pi * 0.7 * seconds + number)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    tone = sum(np.sin(h * phase) / h for h in (1, 2, 3, 5) if h * 250 < sample_rate / 2)
    loudness = 0.15 * (1.2 + np.sin(2 * np.pi * 3.1 * seconds))
    one = tone * loudness + 0.003 * draw.standard_normal(length)
    shares = 1 / (1 + 0.25 * np.arange(channels))
    return Audio((one[None] * shares[:, None]).astype(np.float32), sample_rate)


@dataclass(frozen=True)
class Inputs:
    """Where the checks take their inputs from; override what your component is particular about.

    Attributes:
        make_audio: makes recordings; see `made_audio`.
        symbols: phones of an alphabet by its name, where no installed front end has it.
        texts: a text by BCP 47 language, at least two sentences of it; English is there.
        long_seconds: how long the very long recording is.
    """

    make_audio: AudioMaker = made_audio
    symbols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    long_seconds: float = 60.0

    def audio(
        self, seconds: float, sample_rate: int = 16_000, *, channels: int = 1, number: int = 0
    ) -> Audio:
        """A recording of about so many seconds, at least one sample."""
        length = max(1, round(seconds * sample_rate))
        return self.make_audio(length, sample_rate, channels, number)

    def phones(self, alphabet: str, count: int = 6, *, number: int = 0) -> Phones | None:
        """An utterance of so many phones; None when the alphabet is not known."""
        known = self.symbols.get(alphabet)
        if known is None:
            return None
        symbols = tuple(known[(number + i) % len(known)] for i in range(count))
        return Phones(symbols, alphabet, words=("word",), word_spans=((0, count),))

    def text(self, languages: Sequence[str]) -> str | None:
        """A text in one of the languages; None when there is none."""
        texts = {"en": ENGLISH, **self.texts}
        for language in languages:
            for key in (language, language.split("-")[0]):
                if key in texts:
                    return texts[key]
        return None
