"""How a written word is said: as a word, letter by letter, or in parts."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass

from speechloom_starter.english.words import ABBREVIATIONS

__all__ = ["Piece", "spoken_words"]

_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:'[a-z]+)*|'[a-z]*")
_CAMEL = re.compile(r"[a-z][A-Z]|^[A-Z]{2,30}[a-z]{2}")
_ACRONYM = re.compile(r"([A-Z]{2,})('?s)?")
_SYLLABLES = re.compile(r"[^aeiouy]{0,2}(?:[aeiouy]{1,2}[^aeiouy]{1,2})+[aeiouy]?")
_VOWELS = frozenset("aeiouy")
_LONGEST_ACRONYM = 5


@dataclass(frozen=True)
class Piece:
    """A part of a written word that is said as one word.

    Attributes:
        text: lower case.
        offset: where it begins in the word.
        length: letters of the word that it covers.
        letter: it is the name of a letter.
    """

    text: str
    offset: int
    length: int
    letter: bool = False


def spoken_words(word: str, known: Container[str], *, shouted: bool) -> Iterator[Piece]:
    """Split a written word into what is said.

    Args:
        word: letters and inner apostrophes, case as written.
        known: words with a pronunciation.
        shouted: its neighbours are in capitals too, so capitals say nothing.
    """
    lower = word.lower()
    acronym = _ACRONYM.fullmatch(word)
    if lower in ABBREVIATIONS or (word == "US" and not shouted):
        yield from _letters(word, 0)
    elif lower in known or (acronym and acronym[1].lower() in known):
        yield Piece(lower, 0, len(word), letter=len(word) == 1 and lower != "a")
    elif acronym and _is_spelled(acronym[1], shouted):
        yield from _letters(acronym[1], 0, ending=acronym[2] or "")
    elif _CAMEL.search(word) and not acronym:
        for part in _PARTS.finditer(word):
            yield from _part(part.group(), part.start(), known)
    else:
        yield from _part(word, 0, known)


def _part(text: str, offset: int, known: Container[str]) -> Iterator[Piece]:
    if text.startswith("'") and text.lower() not in known:
        text, offset = text[1:], offset + 1
    lower = text.lower()
    vowelless = len(text) <= _LONGEST_ACRONYM and not _VOWELS & set(lower)
    capitals = len(text) > 1 and text.isupper() and _is_spelled(text, shouted=False)
    unknown = lower not in known and text.isalpha() and (vowelless or capitals)
    if unknown or lower in ABBREVIATIONS:
        yield from _letters(text, offset)
    elif text:
        yield Piece(lower, offset, len(text), letter=len(text) == 1 and lower != "a")


def _is_spelled(capitals: str, shouted: bool) -> bool:
    lower = capitals.lower()
    if not _VOWELS & set(lower):
        return True
    pronounceable = len(capitals) > 3 and _SYLLABLES.fullmatch(lower)
    return len(capitals) <= _LONGEST_ACRONYM and not shouted and not pronounceable


def _letters(letters: str, offset: int, *, ending: str = "") -> Iterator[Piece]:
    last = len(letters) - 1
    for index, letter in enumerate(letters.lower()):
        if ending and index == last:
            yield Piece(f"{letter}'s", offset + index, 1 + len(ending))
        else:
            yield Piece(letter, offset + index, 1, letter=True)
