"""edit: everything outside the changed words is known.

The transcripts are compared word by word; each changed run becomes a stretch of the recording that
gives way to new words. A margin on either side keeps its words but is made anew, so that the
transition is spoken and not cut.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from speechloom.errors import UsageError
from speechloom.layout import Copy, Keep, Layout, Make, Piece, Sheet, TimedPhone, timed
from speechloom.values import Phones

__all__ = ["Change", "NewWords", "Span", "changed_words", "plan", "tempo_around", "where"]

MARGIN = Fraction(2, 50)
"""Speech on either side of a change that is made anew, seconds: a transition between two phones."""

TEMPO_SECONDS = Fraction(2)
"""Speech that a tempo is taken from: some five words, enough that no single one decides."""

SLOWEST, FASTEST = 0.5, 2.0
"""What the tempo of a recording is believed to be; beyond, its alignment is at fault."""


@dataclass(frozen=True)
class Change:
    """A run of words that differs between two transcripts.

    Attributes:
        old_start: first old word of the run.
        old_stop: the one after its last; equal to `old_start` for an insertion.
        new_start: first new word.
        new_stop: the one after the last; equal to `new_start` for a removal.
    """

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int


@dataclass(frozen=True)
class Span:
    """A stretch of the recording that gives way, from `start` to `end` in seconds."""

    start: Fraction
    end: Fraction


@dataclass(frozen=True)
class NewWords:
    """What takes the place of a span: phones and their frames; None for a removal."""

    phones: Phones | None
    frames: tuple[int, ...] = ()


def changed_words(old: Sequence[str], new: Sequence[str]) -> tuple[Change, ...]:
    """The runs of words that differ; case and punctuation do not count.

    >>> changed_words("I like blue cheese".split(), "I like green apples.".split())
    (Change(old_start=2, old_stop=4, new_start=2, new_stop=4),)
    """
    matcher = difflib.SequenceMatcher(
        None, [_plain(w) for w in old], [_plain(w) for w in new], autojunk=False
    )
    return tuple(Change(a, b, c, d) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal")


def _plain(word: str) -> str:
    return re.sub(r"[^\w']", "", word.lower()) or word


def where(change: Change, words: Sequence[tuple[Fraction, Fraction]], total: Fraction) -> Span:
    """The stretch of the recording that a change replaces.

    A removal takes the pause after the words with it; an insertion goes into the middle of the
    pause between two words.

    Args:
        change: of N old words.
        words: start and end of each old word, seconds.
        total: length of the recording, seconds.
    """
    start, stop = change.old_start, change.old_stop
    if start == stop:
        before = words[start - 1][1] if start > 0 else Fraction(0)
        after = words[start][0] if start < len(words) else total
        if start == 0:
            return Span(after, after)
        if start == len(words):
            return Span(before, before)
        middle = (before + after) / 2
        return Span(middle, middle)
    if change.new_start == change.new_stop:
        if stop < len(words):
            return Span(words[start][0], words[stop][0])
        return Span(words[start - 1][1] if start > 0 else words[start][0], words[stop - 1][1])
    return Span(words[start][0], words[stop - 1][1])


def tempo_around(
    span: Span,
    words: Sequence[tuple[Fraction, Fraction]],
    usual: Sequence[Fraction],
) -> float:
    """How much faster than usual a speaker speaks around a span.

    The words nearest to the span count, the replaced ones first, until they last `TEMPO_SECONDS`
    together: people speak faster inside a sentence than at its end, and faster in some sentences
    than in others, and new words are to fit their neighbours.

    Args:
        span: what gives way.
        words: start and end of each word of the recording, seconds.
        usual: how long each would last at the usual tempo, seconds.

    Returns:
        1.0 for the usual tempo, 2.0 for twice as fast; from `SLOWEST` to `FASTEST`.

    >>> tempo_around(Span(0, 0), [(Fraction(0), Fraction(1))], [Fraction(3, 2)])
    1.5
    """

    def distance(word: tuple[Fraction, Fraction]) -> Fraction:
        return max(span.start - word[1], word[0] - span.end, Fraction(0))

    spoken = expected = Fraction(0)
    nearest = sorted(range(len(words)), key=lambda index: distance(words[index]))
    for index in nearest:
        if spoken >= TEMPO_SECONDS:
            break
        spoken += words[index][1] - words[index][0]
        expected += usual[index]
    if spoken <= 0:
        return 1.0
    return min(FASTEST, max(SLOWEST, float(expected / spoken)))


def plan(
    source_seconds: Fraction,
    spans: Sequence[Span],
    new: Sequence[NewWords],
    *,
    frame_rate: Fraction,
    context_seconds: float,
    max_seconds: float,
    source_phones: Sequence[tuple[str, Fraction, Fraction]] = (),
) -> Layout:
    """Keep what is outside the spans, make what is inside, with context on both sides.

    Args:
        source_seconds: length of the recording.
        spans: what gives way, in order, not overlapping.
        new: what comes instead, one per span.
        frame_rate: of the frames in `new`, Hz.
        context_seconds: how much of the recording the generator sees on either side.
        max_seconds: the longest sheet.
        source_phones: (phone, start, end) of the recording as far as they are known; they give
            the margins their content.

    Returns:
        One sheet per span.

    Raises:
        UsageError: no span; spans that overlap, lie outside or change nothing; new words too long
            for a sheet; nothing left of the recording.
    """
    if not spans:
        raise UsageError("the two transcripts say the same words; there is nothing to edit")
    _check_spans(spans, new, source_seconds)
    widened = _widened(spans, source_seconds)
    pieces: list[Piece] = []
    sheets: list[Sheet] = []
    at = Fraction(0)
    for span, wide, words in zip(spans, widened, new, strict=True):
        if wide.start > at:
            pieces.append(Keep(at, wide.start))
        sheet, make = _sheet(
            len(sheets), span, wide, words, source_seconds, frame_rate, context_seconds,
            max_seconds, source_phones,
        )  # fmt: skip
        if make.seconds > 0:
            pieces.append(make)
            sheets.append(sheet)
        at = wide.end
    if at < source_seconds:
        pieces.append(Keep(at, None))
    if not pieces:
        raise UsageError("the edit removes the whole recording; nothing would be left")
    return Layout(tuple(pieces), tuple(sheets))


def _check_spans(spans: Sequence[Span], new: Sequence[NewWords], total: Fraction) -> None:
    at = Fraction(0)
    for span, words in zip(spans, new, strict=True):
        if not at <= span.start <= span.end <= total:
            raise UsageError(
                f"spans must be in order and inside the recording of {float(total):.3f} s, but "
                f"one goes from {float(span.start):.3f} to {float(span.end):.3f} s"
            )
        if span.start == span.end and not words.frames:
            raise UsageError(
                f"the span at {float(span.start):.3f} s is empty and has no new words; it would "
                "change nothing"
            )
        at = span.end


def _widened(spans: Sequence[Span], total: Fraction) -> list[Span]:
    """Each span with its margins; where two spans are close, they share what is between them."""
    widened = []
    for i, span in enumerate(spans):
        before = spans[i - 1].end if i else Fraction(0)
        after = spans[i + 1].start if i + 1 < len(spans) else total
        left = min(MARGIN, (span.start - before) / (2 if i else 1))
        right = min(MARGIN, (after - span.end) / (2 if i + 1 < len(spans) else 1))
        widened.append(Span(span.start - left, span.end + right))
    return widened


def _sheet(
    item: int,
    span: Span,
    wide: Span,
    new: NewWords,
    total: Fraction,
    frame_rate: Fraction,
    context_seconds: float,
    max_seconds: float,
    source_phones: Sequence[tuple[str, Fraction, Fraction]],
) -> tuple[Sheet, Make]:
    made = Fraction(sum(new.frames)) / frame_rate
    inside = (span.start - wide.start) + made + (wide.end - span.end)
    room = (Fraction(max_seconds).limit_denominator(1000) - inside) / 2
    if room < Fraction(1, 2):
        raise UsageError(
            f"the new words last {float(made):.1f} s; at most {max_seconds - 1:g} s can take the "
            "place of one span: make the change in several edits"
        )
    context = min(Fraction(context_seconds).limit_denominator(1000), room)
    start = max(Fraction(0), wide.start - context)
    end = min(total, wide.end + context)
    shift = made - (span.end - span.start)
    known = (
        Copy(Fraction(0), start, wide.start - start),
        Copy(wide.end + shift - start, wide.end, end - wide.end),
    )
    told = (
        Copy(Fraction(0), start, span.start - start),
        Copy(span.end + shift - start, span.end, end - span.end),
    )
    phones, words = (
        timed(new.phones, new.frames, frame_rate, span.start - start) if new.phones else ((), ())
    )
    around = _around(source_phones, start, span, end, shift)
    in_order = tuple(sorted((*around, *phones), key=lambda phone: phone.start))
    sheet = Sheet(
        item,
        end - start + shift,
        tuple(c for c in known if c.seconds > 0),
        tuple(c for c in told if c.seconds > 0),
        in_order,
        words,
    )
    return sheet, Make(item, wide.start - start, wide.end + shift - start)


def _around(
    source_phones: Sequence[tuple[str, Fraction, Fraction]],
    start: Fraction,
    span: Span,
    end: Fraction,
    shift: Fraction,
) -> list[TimedPhone]:
    """The recording's own phones on the sheet, clipped to what stays."""
    kept = []
    for symbol, a, b in source_phones:
        for low, high, by in ((start, span.start, -start), (span.end, end, shift - start)):
            clipped_a, clipped_b = max(a, low), min(b, high)
            if clipped_a < clipped_b:
                kept.append(TimedPhone(symbol, clipped_a + by, clipped_b + by))
    return kept
