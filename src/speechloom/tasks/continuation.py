"""continue: the recording is known, what follows is made.

The module is not called ``continue`` because that is a Python keyword.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from speechloom.errors import UsageError
from speechloom.layout import Copy, Keep, Layout, Make, Sheet, timed
from speechloom.tasks.synthesize import split_phones
from speechloom.values import Phones

__all__ = ["plan_seconds", "plan_text"]


def plan_seconds(
    source_seconds: Fraction, seconds: Fraction, *, context_seconds: float, max_seconds: float
) -> Layout:
    """Continue for so many seconds, with no words given.

    Args:
        source_seconds: length of the recording.
        seconds: how much to add.
        context_seconds: how much of its end the generator sees.
        max_seconds: the longest sheet.

    Raises:
        UsageError: not a positive length, or more than one sheet can hold.
    """
    if seconds <= 0:
        raise UsageError(f"seconds must be more than 0, but is {float(seconds):g}")
    context = _context(source_seconds, context_seconds)
    longest = max_seconds - float(min(context, Fraction(3)))
    if seconds > longest:
        raise UsageError(
            f"at most {longest:g} seconds can be continued at once, but {float(seconds):g} were "
            "asked for; continue the result again, or give the text"
        )
    context = min(context, Fraction(max_seconds).limit_denominator(1000) - seconds)
    return _layout(source_seconds, context, [Sheet(0, context + seconds)])


def plan_text(
    source_seconds: Fraction,
    sentences: Sequence[Phones],
    durations: Sequence[Sequence[int]],
    *,
    frame_rate: Fraction,
    context_seconds: float,
    max_seconds: float,
) -> Layout:
    """Continue with the given words; every sentence has the end of the recording before it.

    Args:
        source_seconds: length of the recording.
        sentences: what to say.
        durations: frames per phone of each sentence.
        frame_rate: of the durations, Hz.
        context_seconds: how much of its end the generator sees.
        max_seconds: the longest sheet.
    """
    context = min(_context(source_seconds, context_seconds), Fraction(max_seconds) / 2)
    limit = int((max_seconds - float(context)) * frame_rate)
    sheets: list[Sheet] = []
    for phones, frames in zip(sentences, durations, strict=True):
        for part, part_frames in split_phones(phones, list(frames), limit):
            in_time, words = timed(part, part_frames, frame_rate, context)
            total = context + Fraction(sum(part_frames)) / frame_rate
            sheets.append(Sheet(len(sheets), total, phones=in_time, words=words))
    return _layout(source_seconds, context, sheets)


def _context(source_seconds: Fraction, context_seconds: float) -> Fraction:
    return min(source_seconds, Fraction(context_seconds).limit_denominator(1000))


def _layout(source_seconds: Fraction, context: Fraction, sheets: Sequence[Sheet]) -> Layout:
    prompt = (Copy(Fraction(0), source_seconds - context, context),)
    with_prompt = tuple(Sheet(s.item, s.seconds, prompt, prompt, s.phones, s.words) for s in sheets)
    made = tuple(Make(i, context, sheet.seconds) for i, sheet in enumerate(with_prompt))
    return Layout((Keep(Fraction(0), None), *made), with_prompt)
