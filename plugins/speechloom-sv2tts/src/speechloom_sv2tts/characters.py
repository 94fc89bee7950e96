"""The front end ``tacotron2-characters``: English text to the characters that Tacotron 2 reads.

Numbers are spelled out and the common abbreviations of titles, as the text rules of NVIDIA's
published checkpoint do; the full stop of an abbreviation ends no sentence unless nothing follows.
Accents are dropped. Each character is a phone of its own, and a space is the pause ``|``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from speechloom.errors import TextError
from speechloom.spec import FrontendFacts
from speechloom.values import Phones
from speechloom.weightless import Weightless
from speechloom_sv2tts.symbols import PAUSE

__all__ = ["CharacterFrontend", "in_words"]

_TITLES = {
    "mr": "mister", "mrs": "misses", "dr": "doctor", "st": "saint", "co": "company",
    "jr": "junior", "maj": "major", "gen": "general", "drs": "doctors", "rev": "reverend",
    "lt": "lieutenant", "hon": "honorable", "sgt": "sergeant", "capt": "captain",
    "esq": "esquire", "ltd": "limited", "col": "colonel", "ft": "fort",
}  # fmt: skip
_PIECE = re.compile(
    rf"""\[\[(?P<given>[^\]]*)\]\] | (?P<number>\d+(?:,\d{{3}})*(?:\.\d+)?)
      | (?P<title>(?:{"|".join(_TITLES)})(?=\.\s+\w))\.
      | (?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": "", "”": "", '"': "", "–": "-", "—": "-"})
_MARKS = "!'(),-.:;?"
_ENDS = ".!?"
_SIGNS = {"&": "and", "%": "percent", "+": "plus", "=": "equals", "$": "dollar", "@": "at"}


@dataclass(frozen=True)
class _Token:
    """A word with its spelling and place, or a mark without."""

    symbols: tuple[str, ...]
    word: str = ""
    place: tuple[int, int] = (0, 0)

    @property
    def is_said(self) -> bool:
        """Whether it is a word that has any characters; ``[[]]`` has none."""
        return bool(self.word and self.symbols)


class CharacterFrontend(Weightless):
    """English text to characters, a `Phones` per sentence."""

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """Split into sentences and spell each.

        Args:
            text: English; ``[[h e l l o]]`` gives characters directly.
            lexicon: characters that go before the word's own, by lower-case word.

        Raises:
            TextError: there is nothing to say, or a letter that it does not know.
        """
        facts = cast(FrontendFacts, self._spec.facts)
        known = frozenset(facts.phones)
        sentences: list[list[_Token]] = [[]]
        for token in _tokens(text, lexicon or {}, known):
            sentences[-1].append(token)
            ends = not token.word and token.symbols[0] in _ENDS
            if ends and any(one.is_said for one in sentences[-1]):
                sentences.append([])
        spoken = [one for one in sentences if any(token.is_said for token in one)]
        said = [_assembled(one, facts.alphabet) for one in spoken]
        if not said:
            raise TextError("there is nothing to say in the text; give it at least one word")
        return said


def _tokens(
    text: str, lexicon: Mapping[str, Sequence[str]], known: frozenset[str]
) -> Iterator[_Token]:
    for match in _PIECE.finditer(text):
        whole, place = match.group(), match.span()
        if match["given"] is not None:
            yield _Token(_checked(match["given"].split(), whole, known), whole, place)
        elif match["number"]:
            yield _Token(_spelled(_number(whole), known), whole, place)
        elif word := match["title"] or match["word"]:
            given = lexicon.get(word.lower())
            spelled = _spelled(_TITLES.get(word.lower(), word), known)
            own = place[0], place[0] + len(word)
            yield _Token(_checked(given, word, known) if given else spelled, word, own)
        elif whole.isdigit():
            yield _Token(_spelled(in_words(int(unicodedata.digit(whole))), known), whole, place)
        elif whole in _SIGNS:
            yield _Token(_spelled(_SIGNS[whole], known), whole, place)
        elif (mark := whole.translate(_QUOTES)) and mark in _MARKS:
            yield _Token((mark,))
        elif unicodedata.category(whole)[0] in "SLN":
            raise TextError(f"the sign {whole!r} cannot be spoken; write it as an English word")


def _spelled(word: str, known: frozenset[str]) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKD", word.lower().translate(_QUOTES))
    letters = [c for c in plain if not unicodedata.combining(c)]
    symbols = tuple(PAUSE if c == " " else c for c in letters)
    unknown = [symbol for symbol in symbols if symbol not in known]
    if unknown:
        raise TextError(
            f"{word!r} has the letter {unknown[0]!r}; only English is read: write it in Latin "
            "letters, or use a front end and a generator of its language"
        )
    return symbols


def _checked(symbols: Sequence[str], where: str, known: frozenset[str]) -> tuple[str, ...]:
    unknown = [symbol for symbol in symbols if symbol not in known]
    if unknown:
        raise TextError(
            f"{where!r} is given as {' '.join(symbols)}, but {unknown[0]!r} is no character of "
            f"{' '.join(sorted(known))}"
        )
    return tuple(symbols)


def _assembled(tokens: Sequence[_Token], alphabet: str) -> Phones:
    """Characters with a pause between words; marks stand at the word before them."""
    symbols: list[str] = []
    words = [token for token in tokens if token.is_said]
    spans = []
    for token in tokens:
        if not token.symbols:
            continue
        if token.word and symbols:
            symbols.append(PAUSE)
        if token.word:
            spans.append((len(symbols), len(symbols) + len(token.symbols)))
        symbols.extend(token.symbols)
    if symbols[-1] not in _MARKS:
        symbols.append(PAUSE)
    return Phones(
        tuple(symbols),
        alphabet,
        words=tuple(token.word for token in words),
        word_spans=tuple(spans),
        source_spans=tuple(token.place for token in words),
    )


# Numbers ----------------------------------------------------------------------------------

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_GROUPS = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))


def in_words(number: int) -> str:
    """A whole number in English words.

    >>> in_words(1_204)
    'one thousand two hundred four'
    """
    for size, name in _GROUPS:
        if number >= size:
            rest = "" if number % size == 0 else f" {in_words(number % size)}"
            return f"{in_words(number // size)} {name}{rest}"
    if number < 20:
        return _ONES[number]
    rest = "" if number % 10 == 0 else f" {_ONES[number % 10]}"
    return _TENS[number // 10] + rest


def _number(written: str) -> str:
    whole, point, decimals = written.replace(",", "").partition(".")
    # Longer ones are codes, and are read digit by digit.
    long = len(whole) > 12
    said = " ".join(_ONES[int(d)] for d in whole) if long else in_words(int(whole))
    return said + (" point " + " ".join(_ONES[int(d)] for d in decimals) if point else "")
