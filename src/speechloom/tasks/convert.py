"""convert: nothing is known, the content is the recording's, the voice another's.

The content is read off the recording; or, where its transcript is given, it is the transcript's
phones in the timing of the recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from speechloom.layout import Copy, Layout, Make, Sheet, TimedPhone

__all__ = ["plan"]


def plan(
    source_seconds: Fraction,
    *,
    max_seconds: float,
    quiet: Sequence[Fraction] = (),
    phones: Sequence[TimedPhone] = (),
    words: Sequence[tuple[str, Fraction, Fraction]] = (),
) -> Layout:
    """As many sheets as the length needs, parted where the recording is quiet.

    Args:
        source_seconds: length of the recording.
        max_seconds: the longest sheet.
        quiet: moments at which a cut would not be heard, ascending, seconds.
        phones: what is said when, where a transcript tells.
        words: spelling, start and end of its words; one that a cut goes through belongs to the
            sheet in which it begins.

    Returns:
        A layout as long as the recording that makes everything.
    """
    cuts = _cuts(source_seconds, Fraction(max_seconds).limit_denominator(1000), quiet)
    sheets: list[Sheet] = []
    for item, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
        whole = (Copy(Fraction(0), start, stop - start),)
        said = tuple(
            TimedPhone(one.symbol, max(one.start, start) - start, min(one.end, stop) - start)
            for one in phones
            if one.start < stop and one.end > start
        )
        spelled = tuple(
            (word, first - start, min(last, stop) - start)
            for word, first, last in words
            if start <= first < stop
        )
        sheets.append(Sheet(item, stop - start, told=whole, phones=said, words=spelled))
    pieces = tuple(Make(i, Fraction(0), sheet.seconds) for i, sheet in enumerate(sheets))
    return Layout(pieces, tuple(sheets))


def _cuts(total: Fraction, limit: Fraction, quiet: Sequence[Fraction]) -> list[Fraction]:
    cuts = [Fraction(0)]
    while total - cuts[-1] > limit:
        latest = cuts[-1] + limit
        choices = [at for at in quiet if cuts[-1] + limit / 2 < at <= latest]
        cuts.append(choices[-1] if choices else latest)
    return [*cuts, total]
