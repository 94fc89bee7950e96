"""Fake generators: units to codes, phones to units, phones to features.

Each draw is a hash of (seed, item, level, position, content, voice) and of nothing else, so that a
request gives the same alone, in a batch and padded.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from speechloom.claims import check_canvas, check_phones
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.testing.fake_base import Fake
from speechloom.testing.fake_sound import CENTRE
from speechloom.testing.fake_specs import FEATURE_GENERATOR, GENERATOR, PHONES, TEXT_GENERATOR
from speechloom.values import Canvas, Codes, Features, Phones, Tokens, Voice

__all__ = ["FakeFeatureGenerator", "FakeGenerator", "FakeTextGenerator"]

FRAMES_PER_PHONE = 4


class _FakeGenerator(Fake):
    @property
    def _facts(self) -> GeneratorFacts:
        facts = self.spec.facts
        assert isinstance(facts, GeneratorFacts)
        return facts

    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Four frames for every phone at rate 1."""
        check_phones(self.spec, phones, rate, voices)
        return [[max(1, round(FRAMES_PER_PHONE / rate))] * len(one) for one in phones]


class FakeGenerator(_FakeGenerator):
    """Units to codes: noise as loud as the unit says, next to nothing for silent ones."""

    default_spec: ClassVar[ComponentSpec] = GENERATOR

    def fill(self, canvas: Canvas) -> Codes:
        """Fill codes [B, 8, F]."""
        check_canvas(self.spec, canvas)
        drawn = draws(canvas) % np.uint64(201)
        swing = (drawn.astype(np.int64) - 100) * canvas.temperature
        level = 16 if canvas.content is None else np.maximum(_numbers(canvas.content) // 4, 0)
        loudness = (np.broadcast_to(level, swing[:, 0].shape)[:, None] + 1) / 32
        new = np.clip(CENTRE + np.rint(swing * loudness), 0, 2 * CENTRE)
        facts = self._facts
        return Codes(
            _merged(canvas, new),
            facts.gives.removeprefix("codes:"),
            facts.codebook_size,
            facts.frame_rate,
            canvas.lengths,
        )


class FakeTextGenerator(_FakeGenerator):
    """Phones to units: four units for each phone, one of which is drawn."""

    default_spec: ClassVar[ComponentSpec] = TEXT_GENERATOR

    def fill(self, canvas: Canvas) -> Tokens:
        """Fill units [B, F] on a canvas [B, 1, F]."""
        check_canvas(self.spec, canvas)
        assert canvas.content is not None
        drawn = draws(canvas) % np.uint64(4) if canvas.temperature > 0 else 0
        phones = np.clip(_numbers(canvas.content), 0, len(PHONES) - 1)
        new = phones[:, None] * 4 + np.asarray(drawn, dtype=np.int64)
        facts = self._facts
        return Tokens(
            _merged(canvas, new)[:, 0],
            facts.gives.removeprefix("tokens:"),
            facts.codebook_size,
            facts.frame_rate,
            canvas.lengths,
        )


class FakeFeatureGenerator(_FakeGenerator):
    """Phones to block means: noise that is louder for later letters."""

    default_spec: ClassVar[ComponentSpec] = FEATURE_GENERATOR

    def fill(self, canvas: Canvas) -> Features:
        """Make features [B, 8, F]; the ids of the canvas are not used."""
        check_canvas(self.spec, canvas)
        assert canvas.content is not None
        levels = np.arange(8, dtype=np.uint64)[None, :, None]
        unit = (draws(canvas)[:, :1] ^ levels) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)
        loudness = np.maximum(_numbers(canvas.content), 0)[:, None] / len(PHONES)
        values = (unit / 2.0**23 - 1.0) * loudness * canvas.temperature
        inside = torch.arange(canvas.ids.shape[-1]) < canvas.lengths.cpu()[:, None]
        made = torch.from_numpy(values.astype(np.float32)) * inside[:, None]
        name = self._facts.gives.removeprefix("features:")
        return Features(made.to(canvas.ids.device), name, self._facts.frame_rate, canvas.lengths)


def draws(canvas: Canvas) -> NDArray[np.uint64]:
    """One number for each position [B, K, F], from what names the draw alone."""
    _, levels, frames = canvas.ids.shape
    voices = [0] * canvas.batch
    if canvas.voices is not None:
        voices = [zlib.crc32(v.tobytes()) for v in canvas.voices.detach().cpu().numpy()]
    parts = [
        _numbers(canvas.seeds)[:, None, None],
        _numbers(canvas.items)[:, None, None],
        np.arange(levels)[None, :, None],
        np.arange(frames)[None, None, :],
        np.asarray(voices)[:, None, None],
    ]
    if canvas.content is not None:
        parts.append(_numbers(canvas.content)[:, None, :])
    state = np.zeros(canvas.ids.shape, dtype=np.uint64)
    for part in parts:
        state = _mixed(state ^ part.astype(np.uint64))
    return state


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One round of splitmix64 (Steele et al. 2014)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


def _numbers(ids: torch.Tensor) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = ids.detach().cpu().numpy().astype(np.int64)
    return numbers


def _merged(canvas: Canvas, new: NDArray[np.int64] | NDArray[np.float64]) -> torch.Tensor:
    """What is known where it is known, the new ids elsewhere, 0 in the padding."""
    made = torch.from_numpy(new.astype(np.int64)).to(canvas.ids.device)
    frames = torch.arange(canvas.ids.shape[-1], device=canvas.ids.device)
    inside = frames < canvas.lengths[:, None].to(canvas.ids.device)
    return torch.where(canvas.known, canvas.ids, made) * inside[:, None]
