"""synthesize: nothing is known, everything is said from text."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from speechloom.layout import Layout, Make, Sheet, timed
from speechloom.values import Phones

__all__ = ["plan", "split_phones"]


def plan(
    sentences: Sequence[Phones],
    durations: Sequence[Sequence[int]],
    *,
    frame_rate: Fraction,
    max_seconds: float,
) -> Layout:
    """One sheet per sentence; a sentence that is too long is parted at a pause or between words.

    Args:
        sentences: what to say.
        durations: frames per phone of each.
        frame_rate: of the durations, Hz.
        max_seconds: the longest sheet.

    Returns:
        A layout that makes everything and keeps nothing.
    """
    limit = int(max_seconds * frame_rate)
    sheets: list[Sheet] = []
    for phones, frames in zip(sentences, durations, strict=True):
        for part, part_frames in split_phones(phones, list(frames), limit):
            in_time, words = timed(part, part_frames, frame_rate)
            seconds = Fraction(sum(part_frames)) / frame_rate
            sheets.append(Sheet(len(sheets), seconds, phones=in_time, words=words))
    pieces = tuple(Make(i, Fraction(0), sheet.seconds) for i, sheet in enumerate(sheets))
    return Layout(pieces, tuple(sheets))


def split_phones(phones: Phones, frames: list[int], limit: int) -> list[tuple[Phones, list[int]]]:
    """Part an utterance so that no part lasts longer than `limit` frames where that can be.

    Cuts fall before a pause where there is one in the second half of what fits, else between two
    words, else (one endless word) between two phones.

    Returns:
        Parts in order; joined they are the whole.
    """
    parts = []
    first = 0
    while first < len(frames):
        stop = _furthest(frames, first, limit)
        if stop < len(frames):
            stop = _good_cut(phones, first, stop)
        parts.append((_part(phones, first, stop), frames[first:stop]))
        first = stop
    return parts


def _furthest(frames: Sequence[int], first: int, limit: int) -> int:
    """One past the last phone that fits; at least one phone."""
    total, at = frames[first], first + 1
    while at < len(frames) and total + frames[at] <= limit:
        total += frames[at]
        at += 1
    return at


def _good_cut(phones: Phones, first: int, stop: int) -> int:
    inside = _inside_words(phones)
    half = first + (stop - first) // 2
    in_word = [at in inside for at in range(len(phones.symbols) + 1)]
    belongs = _belongs(phones)
    for at in range(stop, half, -1):
        if not in_word[at] and not belongs[at]:
            return at
    for at in range(stop, first, -1):
        if not in_word[at]:
            return at
    return stop


def _inside_words(phones: Phones) -> set[int]:
    """Positions between two phones of one word."""
    return {at for start, end in phones.word_spans for at in range(start + 1, end)}


def _belongs(phones: Phones) -> list[bool]:
    """Whether a phone is part of a word (and not a pause); one more entry for the end."""
    belongs = [False] * (len(phones.symbols) + 1)
    for start, end in phones.word_spans:
        belongs[start:end] = [True] * (end - start)
    return belongs


def _part(phones: Phones, first: int, stop: int) -> Phones:
    kept = [
        (i, max(a, first) - first, min(b, stop) - first)
        for i, (a, b) in enumerate(phones.word_spans)
        if a < stop and b > first
    ]
    return Phones(
        phones.symbols[first:stop],
        phones.alphabet,
        tuple(phones.words[i] for i, _, _ in kept),
        tuple((a, b) for _, a, b in kept),
        tuple(phones.source_spans[i] for i, _, _ in kept) if phones.source_spans else (),
    )
