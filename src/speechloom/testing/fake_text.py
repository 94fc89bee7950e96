"""A fake front end: one phone per letter, sentences, words and where they stand in the text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from speechloom.errors import TextError
from speechloom.spec import ComponentSpec
from speechloom.testing.fake_base import Fake
from speechloom.testing.fake_specs import FRONTEND, PAUSE, PHONES
from speechloom.values import Phones

__all__ = ["FakeFrontend"]

_PIECE = re.compile(
    r"""\[\[(?P<phones>[^\]]*)\]\] | (?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_Word = tuple[str, tuple[str, ...], tuple[int, int]]


class FakeFrontend(Fake):
    """Spells text letter by letter; digits are spelled as words, accents are dropped."""

    default_spec: ClassVar[ComponentSpec] = FRONTEND

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """One `Phones` per sentence, with a pause before, after and at commas."""
        sentences: list[list[_Word | None]] = [[]]
        for piece in _pieces(text, lexicon or {}):
            if piece == ".":
                sentences.append([])
            else:
                sentences[-1].append(None if isinstance(piece, str) else piece)
        spoken = [_assembled(words) for words in sentences if any(words)]
        if not spoken:
            raise TextError("there is nothing to say in the text; give it at least one word")
        return spoken


def _pieces(text: str, lexicon: Mapping[str, Sequence[str]]) -> Iterator[_Word | str]:
    """Words with their phones, ``.`` at the end of a sentence and ``,`` at a pause."""
    for match in _PIECE.finditer(text):
        span, whole = match.span(), match.group()
        if match["phones"] is not None:
            yield whole, _given(match["phones"]), span
        elif match["word"]:
            given = lexicon.get(whole.lower())
            yield whole, tuple(given) if given else _letters(whole), span
        elif whole.isdecimal():
            yield whole, tuple(_DIGITS[int(whole)]), span
        elif whole in ".!?" and text[span[1] : span[1] + 1].strip() == "":
            yield "."
        elif whole in ",;:":
            yield ","
        elif unicodedata.category(whole)[0] == "S":
            raise TextError(f"the sign {whole!r} cannot be spoken; write it as a word")


def _given(phones: str) -> tuple[str, ...]:
    symbols = tuple(phones.split())
    unknown = [symbol for symbol in symbols if symbol not in PHONES]
    if unknown or not symbols:
        raise TextError(f"[[{phones}]] must hold phones of the alphabet {' '.join(PHONES)}")
    return symbols


def _letters(word: str) -> tuple[str, ...]:
    letters = [c for c in unicodedata.normalize("NFKD", word.lower()) if c.isalpha()]
    unknown = [letter for letter in letters if letter not in PHONES]
    if unknown:
        raise TextError(f"{word!r} has the letter {unknown[0]!r}; only Latin letters are known")
    return tuple(letters)


def _assembled(pieces: Sequence[_Word | None]) -> Phones:
    symbols: list[str] = [PAUSE]
    words: list[_Word] = []
    spans: list[tuple[int, int]] = []
    for piece in pieces:
        if piece is None:
            if symbols[-1] != PAUSE:
                symbols.append(PAUSE)
            continue
        words.append(piece)
        spans.append((len(symbols), len(symbols) + len(piece[1])))
        symbols.extend(piece[1])
    if symbols[-1] != PAUSE:
        symbols.append(PAUSE)
    return Phones(
        tuple(symbols),
        "letters",
        words=tuple(word[0] for word in words),
        word_spans=tuple(spans),
        source_spans=tuple(word[2] for word in words),
    )
