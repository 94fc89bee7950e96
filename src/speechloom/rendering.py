"""From filled sheets to samples: the last stage, and the seams.

A sheet is decoded in windows that overlap by the codec's context, so what is streamed and what is
made at once are the same samples. The caller's own samples are copied, never decoded; where a made
stretch meets them, the first and last few milliseconds of the *made* stretch fade.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from speechloom.layout import Keep, Layout, Make
from speechloom.spec import CodecFacts, GeneratorFacts, VocoderFacts
from speechloom.speech import Region
from speechloom.values import Audio, Features, fit_length
from speechloom.windows import stream_decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechloom.filling import Filled
    from speechloom.protocols import Codec, Generator, Vocoder

__all__ = ["Player", "cut_points", "regions_of", "render"]

WINDOW_SECONDS = 1
"""Length of a decoding window: what a listener waits for at most once the codes are there."""

FADE_SECONDS = 0.010
"""Cross-fade where a made stretch meets the caller's samples."""

JOIN_SECONDS = 0.005
"""Fade at both ends of a sentence, which are pauses, so that joining makes no click."""


@dataclass(frozen=True)
class Player:
    """Turns what a generator gave into samples.

    Attributes:
        codec: for codes.
        vocoder: for features.
        generator: for the facts of what it gave.
    """

    generator: Generator
    codec: Codec | None = None
    vocoder: Vocoder | None = None

    @property
    def sample_rate(self) -> int:
        """Hz of what it plays."""
        if self.codec is not None:
            return cast(CodecFacts, self.codec.spec.facts).sample_rate
        if self.vocoder is not None:
            return cast(VocoderFacts, self.vocoder.spec.facts).sample_rate
        return cast(int, cast(GeneratorFacts, self.generator.spec.facts).sample_rate)

    def windows(self, filled: Filled) -> Iterator[NDArray[np.float32]]:
        """Samples [C, T] of a sheet, window by window; joined they are the whole sheet."""
        if isinstance(filled.result, Audio):
            yield filled.result.samples
        elif self.codec is not None:
            yield from self._decoded(self.codec, filled)
        else:
            assert self.vocoder is not None
            yield self._rendered(self.vocoder, filled.result).samples

    def _rendered(self, vocoder: Vocoder, values: torch.Tensor) -> Audio:
        facts = cast(VocoderFacts, vocoder.spec.facts)
        return vocoder.render(Features(values[None], facts.features, facts.frame_rate))[0]

    def _decoded(self, codec: Codec, filled: Filled) -> Iterator[NDArray[np.float32]]:
        facts = cast(CodecFacts, codec.spec.facts)
        codes = filled.as_codes(facts.codes, facts.codebook_size, facts.frame_rate)
        for audio in stream_decode(codec, codes, seconds=WINDOW_SECONDS):
            yield audio.samples


def cut_points(layout: Layout, source: Audio | None, sample_rate: int) -> list[tuple[int, int]]:
    """Where each piece lies in the result, in samples: (start, end), one after the other.

    Args:
        layout: pieces in order.
        source: the recording that pieces are kept from.
        sample_rate: of the result, Hz.
    """
    points = []
    at = 0
    for piece in layout.pieces:
        if isinstance(piece, Keep):
            assert source is not None
            start, end = kept_samples(piece, source)
            length = end - start
        else:
            length = round(piece.seconds * sample_rate)
        points.append((at, at + length))
        at += length
    return points


def kept_samples(piece: Keep, source: Audio) -> tuple[int, int]:
    """The samples of the recording that a piece keeps."""
    end = source.length if piece.end is None else round(piece.end * source.sample_rate)
    return round(piece.start * source.sample_rate), min(end, source.length)


def regions_of(layout: Layout, source: Audio | None, sample_rate: int) -> tuple[Region, ...]:
    """The made stretches of the result, in samples at `sample_rate` Hz; neighbours become one."""
    regions: list[Region] = []
    points = cut_points(layout, source, sample_rate)
    for piece, (start, end) in zip(layout.pieces, points, strict=True):
        if not isinstance(piece, Make) or start == end:
            continue
        if regions and regions[-1].end == start:
            start = regions.pop().start
        regions.append(Region(start, end, sample_rate))
    return tuple(regions)


def render(
    layout: Layout, filled: Iterator[Filled], player: Player, source: Audio | None
) -> Iterator[Audio]:
    """The result, chunk by chunk, in order.

    Args:
        layout: pieces in order.
        filled: one per sheet, in order; taken as they are needed.
        player: plays them.
        source: the recording that the result goes on or goes into, in the caller's own format;
            None where there is none.

    Yields:
        Chunks whose concatenation is the whole, in the format of the recording where there is one,
        else in the player's.
    """
    for index, piece in enumerate(layout.pieces):
        if isinstance(piece, Keep):
            assert source is not None
            start, end = kept_samples(piece, source)
            if end > start:
                yield source.slice(start, end)
        elif source is not None:
            one = next(filled)
            if round(piece.seconds * source.sample_rate) > 0:
                yield _spliced(layout, index, one, player, source)
        else:
            yield from _joined_softly(player, next(filled), piece)


# Made stretches between the caller's samples ----------------------------------------------


def _spliced(layout: Layout, index: int, filled: Filled, player: Player, source: Audio) -> Audio:
    piece = cast(Make, layout.pieces[index])
    sheet = np.concatenate(list(player.windows(filled)), axis=1)
    played = Audio(np.clip(sheet, -1, 1), player.sample_rate).mono().resampled(source.sample_rate)
    length = round(piece.seconds * source.sample_rate)
    start = round(piece.start * source.sample_rate)
    made = fit_length(played.samples[:, start : start + length], length)
    made = made * _channel_gains(source)
    before = _neighbour(layout.pieces, index - 1)
    after = _neighbour(layout.pieces, index + 1)
    if before is not None:
        _, end = kept_samples(before, source)
        _fade_from(made, source, end)
    if after is not None:
        begin, _ = kept_samples(after, source)
        _fade_to(made, source, begin)
    _fade_edges(made, source.sample_rate, start=before is None, end=after is None)
    return Audio(made, source.sample_rate)


def _fade_edges(made: NDArray[np.float32], rate: int, *, start: bool, end: bool) -> None:
    """Where a made stretch meets another or nothing, it fades as sentences do."""
    length = made.shape[1]
    gain = _edge_gain(np.arange(length), 0, length, min(int(JOIN_SECONDS * rate), length // 2))
    half = length // 2
    made[:, :half] *= gain[:half] if start else 1
    made[:, half:] *= gain[half:] if end else 1


def _neighbour(pieces: Sequence[Keep | Make], index: int) -> Keep | None:
    if not 0 <= index < len(pieces):
        return None
    piece = pieces[index]
    return piece if isinstance(piece, Keep) else None


def _channel_gains(source: Audio) -> NDArray[np.float32]:
    """How loud each channel is beside their mean, so that speech on the left stays there."""
    if source.channels == 1:
        return np.ones((1, 1), np.float32)
    power = np.sqrt(np.mean(np.square(source.samples, dtype=np.float64), axis=1))
    mean = float(np.sqrt(np.mean(np.square(source.mono().samples, dtype=np.float64))))
    gains = power / mean if mean > 0 else np.ones(source.channels)
    return np.clip(gains, 0.0, 4.0).astype(np.float32)[:, None]


def _ramp(samples: int) -> NDArray[np.float32]:
    """A raised cosine from just above 0 to just below 1."""
    steps = (np.arange(samples) + 1) / (samples + 1)
    return (0.5 - 0.5 * np.cos(np.pi * steps)).astype(np.float32)


def _fade_from(made: NDArray[np.float32], source: Audio, end: int) -> None:
    """Come out of the recording's samples that follow `end`; past its end, close the step."""
    length = min(int(FADE_SECONDS * source.sample_rate), made.shape[1] // 2)
    ramp = _ramp(length)
    tail = source.samples[:, end : end + length]
    if tail.shape[1] == length:
        made[:, :length] = tail * (1 - ramp) + made[:, :length] * ramp
    elif length and end > 0:
        step = source.samples[:, end - 1 : end] - made[:, :1]
        made[:, :length] += step * (1 - ramp)


def _fade_to(made: NDArray[np.float32], source: Audio, begin: int) -> None:
    """Go over into the recording's samples that lead up to `begin`."""
    length = min(int(FADE_SECONDS * source.sample_rate), made.shape[1] // 2, begin)
    if length:
        ramp = _ramp(length)
        lead = source.samples[:, begin - length : begin]
        made[:, -length:] = made[:, -length:] * (1 - ramp) + lead * ramp


# Made stretches that follow each other ----------------------------------------------------


def _joined_softly(player: Player, filled: Filled, piece: Make) -> Iterator[Audio]:
    """Windows of one sheet, cut to the piece, with a short fade at both ends."""
    rate = player.sample_rate
    begin, end = round(piece.start * rate), round(piece.end * rate)
    fade = min(int(JOIN_SECONDS * rate), (end - begin) // 2)
    at = 0
    for window in player.windows(filled):
        chunk = window[:, max(0, begin - at) : max(0, end - at)]
        first = max(at, begin)
        at += window.shape[1]
        if chunk.shape[1]:
            gain = _edge_gain(np.arange(first, first + chunk.shape[1]), begin, end, fade)
            yield Audio(np.clip(chunk * gain, -1, 1), rate)


def _edge_gain(
    positions: NDArray[np.int64], begin: int, end: int, fade: int
) -> NDArray[np.float32]:
    distance = np.minimum(positions - begin, end - 1 - positions) + 1
    return np.clip(distance / (fade + 1), 0, 1).astype(np.float32)
