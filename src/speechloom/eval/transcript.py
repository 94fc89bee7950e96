"""Words as a recogniser writes them: lower case, no punctuation, numbers spelled out."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["spoken_words"]

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_LARGEST = 10**12
_WORD = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\W\d_]+(?:'[^\W\d_]+)*")


def spoken_words(text: str) -> list[str]:
    """The words of English text, for counting errors.

    >>> spoken_words("Don't pay $1,250.5 - it's 21 too many!")
    ["don't", 'pay', 'one', 'thousand', 'two', 'hundred', 'fifty', 'point', 'five', "it's", \
'twenty', 'one', 'too', 'many']
    """
    decomposed = unicodedata.normalize("NFKD", text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    words: list[str] = []
    for word in _WORD.findall(plain.lower()):
        words += _spell_number(word) if word[0].isdigit() else [word]
    return words


def _spell_number(digits: str) -> list[str]:
    whole, _, decimals = digits.replace(",", "").partition(".")
    if int(whole) >= _LARGEST or (len(whole) > 1 and whole[0] == "0"):
        words = [_ONES[int(digit)] for digit in whole]
    else:
        words = _spell_integer(int(whole))
    if decimals:
        words += ["point", *(_ONES[int(digit)] for digit in decimals)]
    return words


def _spell_integer(value: int) -> list[str]:
    for scale, name in _SCALES:
        if value >= scale:
            rest = _spell_integer(value % scale) if value % scale else []
            return [*_spell_integer(value // scale), name, *rest]
    if value < 20:
        return [_ONES[value]]
    return [_TENS[value // 10 - 2], *([_ONES[value % 10]] if value % 10 else [])]
