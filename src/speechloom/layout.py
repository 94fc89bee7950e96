"""What a task decides: which stretches are kept, which are made, and what is said when.

A `Layout` is pure data, made by ``tasks.<task>.plan`` from a request and facts, without a model.
Times are exact fractions of a second, so that generators of 50, 75 or 86.13 frames per second read
the same layout, each on its own grid.

::

    source    |=====A=====|xx old words xx|=======B=======|
                    |                          |
    pieces    Keep(A)      Make(sheet 0)       Keep(B)
    sheet 0   |..known A..|phones of new words|..known B..|      context on both sides
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from speechloom.values import Phones

__all__ = ["Copy", "Keep", "Layout", "Make", "Piece", "Sheet", "TimedPhone", "timed"]


@dataclass(frozen=True)
class Copy:
    """A stretch of a sheet that is read off the source recording.

    Attributes:
        at: where it starts on the sheet, seconds.
        source: where it starts in the recording, seconds.
        seconds: how long it is.
    """

    at: Fraction
    source: Fraction
    seconds: Fraction

    @property
    def end(self) -> Fraction:
        """Where it ends on the sheet, seconds."""
        return self.at + self.seconds


@dataclass(frozen=True)
class TimedPhone:
    """A phone on a sheet, from `start` to `end` in seconds."""

    symbol: str
    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class Sheet:
    """One stretch that is filled at once: one item of a canvas.

    Attributes:
        item: its number within the request; names its random draws.
        seconds: length.
        known: what keeps the acoustic codes of the recording.
        told: what keeps the content tokens of the recording: `known`, and margins around it whose
            codes are made anew so that the seam is smooth.
        phones: what is said when, as far as it comes from text.
        words: spelling and (start, end) on the sheet of the words that it makes.
    """

    item: int
    seconds: Fraction
    known: tuple[Copy, ...] = ()
    told: tuple[Copy, ...] = ()
    phones: tuple[TimedPhone, ...] = ()
    words: tuple[tuple[str, Fraction, Fraction], ...] = ()


@dataclass(frozen=True)
class Keep:
    """The recording's own samples, from `start` to `end` in seconds (end None: to its end)."""

    start: Fraction
    end: Fraction | None


@dataclass(frozen=True)
class Make:
    """Samples to be made: from `start` to `end` seconds of a sheet."""

    sheet: int
    start: Fraction
    end: Fraction

    @property
    def seconds(self) -> Fraction:
        """Length."""
        return self.end - self.start


Piece = Keep | Make
"""A stretch of a result: kept from the input, or to be made."""


@dataclass(frozen=True)
class Layout:
    """The whole result: its pieces in order, and the sheets that the made ones come from."""

    pieces: tuple[Piece, ...]
    sheets: tuple[Sheet, ...] = field(default=())


def timed(
    phones: Phones, durations: Sequence[int], frame_rate: Fraction, start: Fraction = Fraction(0)
) -> tuple[tuple[TimedPhone, ...], tuple[tuple[str, Fraction, Fraction], ...]]:
    """Put phones and words in time, one after the other.

    Args:
        phones: N phones.
        durations: N frame counts.
        frame_rate: of the durations, Hz.
        start: where the first begins, seconds.

    Returns:
        The phones in time, and (spelling, start, end) of each word.
    """
    edges = [start]
    for frames in durations:
        edges.append(edges[-1] + Fraction(frames) / frame_rate)
    in_time = tuple(
        TimedPhone(symbol, edges[i], edges[i + 1]) for i, symbol in enumerate(phones.symbols)
    )
    words = tuple(
        (word, edges[first], edges[last])
        for word, (first, last) in zip(phones.words, phones.word_spans, strict=True)
    )
    return in_time, words
