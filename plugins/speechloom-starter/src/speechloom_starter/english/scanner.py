"""Text to tokens: words as they are spoken and pauses, each with its place in the text."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Literal

from speechloom_starter.english import expand
from speechloom_starter.english.alphabet import parse_phones
from speechloom_starter.english.characters import fold
from speechloom_starter.english.numbers import cardinal, ordinal, roman_value
from speechloom_starter.english.patterns import EXPANSIONS, PATTERN
from speechloom_starter.english.spelling import spoken_words
from speechloom_starter.english.words import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    HEADINGS,
    REGNAL_NAMES,
    SENTENCE_OPENERS,
    SIGNS,
    TITLES,
)

__all__ = ["LONGEST_WORD", "Token", "scan"]

Kind = Literal["word", "pause", "stop", "paragraph"]

LONGEST_WORD = 40
"""Letters; a longer run is read in pieces, so that no sentence grows without bound."""

_NEXT_WORD = re.compile(r"[\s\"'(\[]{0,8}([A-Za-z]+)")
_ENDS_HERE = re.compile(r"\.[\"')\]]{0,3}\s*\Z")
_ENDS_PARAGRAPH = re.compile(r"\.[\"')\]]{0,3}[ \t]{0,8}\n\s{0,8}\n")
_NEXT_INITIAL = re.compile(r"\.\s{0,2}[A-Z]\.")
_LOWER_FOLLOWS = re.compile(r"\s*[a-z]")
_DOT_INSIDE = re.compile(r"(?<=[A-Za-z0-9])\.[a-z0-9]")
_MAY_END_BEFORE_ANY_CAPITAL = frozenset(["etc", "clock"])
_EXTRA_SIGNS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "#": (
        (r"[A-Za-z]", r"(?![A-Za-z\d])", "sharp"),
        (r"", r"\s?\d", "number"),
        (r"", r"[A-Za-z]", "hashtag"),
    ),
    "*": ((r"[\d\s]", r"\s?\d", "times"),),
    "<": ((r"[\d\s]", r"\s?[\dA-Za-z]", "less than"),),
    ">": ((r"[\d\s]", r"\s?[\dA-Za-z]", "greater than"),),
    "~": ((r"", r"\s?\d", "about"),),
    "^": ((r"[A-Za-z\d)]", r"[A-Za-z\d(-]", "to the power of"),),
    "/": ((r"[A-Za-z\d]", r"[A-Za-z\d]", "slash"),),
    ".": ((r"", r"", "dot"),),
}


@dataclass(frozen=True)
class Token:
    """A spoken word or a pause.

    Attributes:
        kind: word, pause (inside a sentence), stop (its end) or paragraph.
        text: the word in lower case; the punctuation mark otherwise.
        start: index of its first character in the text that was given.
        end: index after its last one. Words of one expression share its place.
        phones: given with ``[[...]]``; None to look the word up.
        letter: it is the name of a letter, which matters for "a".
    """

    kind: Kind
    text: str
    start: int
    end: int
    phones: tuple[str, ...] | None = None
    letter: bool = False


def scan(text: str, known: Container[str]) -> list[Token]:
    """Read text from left to right, once.

    Args:
        text: anything.
        known: words that have a pronunciation, lower case: they are not spelled out.

    Raises:
        TextError: letters of another script, or a wrong ``[[...]]``.
    """
    folded = fold(text)
    state = _Scanner(folded.text, folded.origin, known)
    at = 0
    while at < len(folded.text):
        match = PATTERN.match(folded.text, at)
        assert match is not None  # the last alternative takes any character
        assert match.lastgroup is not None
        at = state.read(match.lastgroup, match)
    return state.tokens


@dataclass
class _Scanner:
    text: str
    origin: array[int]
    known: Container[str]
    tokens: list[Token] = field(default_factory=list)
    previous: str = ""
    """The last word as written, empty after punctuation."""

    def read(self, kind: str, match: re.Match[str]) -> int:
        """Take one match; returns where to go on."""
        if kind in EXPANSIONS:
            self._say(EXPANSIONS[kind](match), match)
            return self._skip_dot(match.end(), kind) if kind == "clock" else match.end()
        reader: Callable[[re.Match[str]], int] = getattr(self, f"_read_{kind}")
        return reader(match)

    def _add(self, kind: Kind, text: str, span: tuple[int, int], **more: object) -> None:
        start, end = self.origin[span[0]], self.origin[span[1] - 1] + 1
        self.tokens.append(Token(kind, text, start, end, **more))  # type: ignore[arg-type]

    def _say(self, spoken: str, match: re.Match[str], *, letters: bool = False) -> None:
        end = match.start() + len(match.group().rstrip())
        for part in re.findall(r"[^\s,]+|,", spoken):
            if part == ",":
                self._add("pause", ",", (match.start(), end))
            else:
                self._add("word", part, (match.start(), end), letter=letters or len(part) == 1)
        self.previous = ""

    def _skip_dot(self, at: int, kind: str) -> int:
        """Take the dot of an abbreviation, unless it ends the sentence as well."""
        if self.text[at : at + 1] != "." or self.text[at : at + 2] == "..":
            return at
        if _ENDS_HERE.match(self.text, at) or _ENDS_PARAGRAPH.match(self.text, at):
            return at
        following = _NEXT_WORD.match(self.text, at + 1)
        word = following[1] if following else ""
        if kind in TITLES or not word[:1].isupper():
            return at + 1
        opens = kind in _MAY_END_BEFORE_ANY_CAPITAL or word.lower() in SENTENCE_OPENERS
        return at if opens else at + 1

    def _read_phones(self, match: re.Match[str]) -> int:
        phones = parse_phones(match["phones"])
        spelled = f"[[{' '.join(phones)}]]"
        last = self.tokens[-1] if self.tokens else None
        if last and last.kind == "word" and last.end == self.origin[match.start()]:
            start = last.start
            while self.tokens and self.tokens[-1].start == start:
                self.tokens.pop()
            end = self.origin[match.end() - 1] + 1
            self.tokens.append(Token("word", last.text + spelled, start, end, phones))
        else:
            self._add("word", spelled, match.span(), phones=phones)
        self.previous = ""
        return match.end()

    def _read_space(self, match: re.Match[str]) -> int:
        blank = match.group()
        if blank.count("\n") > 1:
            first, last = blank.index("\n"), blank.rindex("\n")
            self._add("paragraph", "\n\n", (match.start() + first, match.start() + last + 1))
            self.previous = ""
        return match.end()

    def _read_to(self, match: re.Match[str]) -> int:
        self._say("to", match)
        return match.end()

    def _read_latin(self, match: re.Match[str]) -> int:
        self._say("for example" if match["eg"] else "that is", match)
        return match.end()

    def _read_bare(self, match: re.Match[str]) -> int:
        word = match.group().lower()
        self._say(ABBREVIATIONS[word], match)
        return self._skip_dot(match.end(), "Rev" if word in ("mr", "mrs", "vs") else word)

    def _read_capital(self, match: re.Match[str]) -> int:
        self._say(CAPITAL_ABBREVIATIONS[match.group()], match)
        return self._skip_dot(match.end(), match.group())

    def _read_saint(self, match: re.Match[str]) -> int:
        after_name = self.previous[:1].isupper() and self.previous.lower() not in SENTENCE_OPENERS
        before, after = {"St": ("saint", "street"), "Dr": ("doctor", "drive")}[match.group()]
        self._say(after if after_name else before, match)
        return self._skip_dot(match.end(), "street" if after_name else "Rev")

    def _read_dotted(self, match: re.Match[str]) -> int:
        letters = match.group().replace(".", "")
        self._say(expand.spell(letters), match, letters=True)
        return self._skip_dot(match.end(), "dotted")

    def _read_initial(self, match: re.Match[str]) -> int:
        self._say(match["initial"].lower(), match, letters=True)
        if _NEXT_INITIAL.match(self.text, match.end()):
            return match.end() + 1
        return self._skip_dot(match.end(), "initial")

    def _read_roman(self, match: re.Match[str]) -> int:
        word = match.group()
        value = roman_value(word)
        before = self.previous.lower()
        heading = before in HEADINGS and not re.match(r"\s+[a-z]", self.text[match.end() :][:8])
        clear = len(word) > 1 and not set(word) - set("IVX")
        if value is None or not (heading or clear):
            return self._read_word(match)
        self._say(ordinal(value) if before in REGNAL_NAMES else cardinal(value), match)
        if before in REGNAL_NAMES:
            self._insert_the()
        return match.end()

    def _insert_the(self) -> None:
        last = self.tokens[-1]
        self.tokens.insert(-1, Token("word", "the", last.start, last.end))

    def _read_word(self, match: re.Match[str]) -> int:
        start, end = match.span()
        word = match.group()
        if word.startswith("'") and word.lower() not in self.known:
            start, word = start + 1, word[1:]
        following = _NEXT_WORD.match(self.text, end)
        near = (self.previous, following[1] if following else "")
        shouted = any(len(other) > 1 and other.isupper() for other in near)
        for piece in spoken_words(word, self.known, shouted=shouted):
            place = start + piece.offset
            self._add_pieces(piece.text, (place, place + piece.length), letter=piece.letter)
        self.previous = word
        return end

    def _add_pieces(self, word: str, span: tuple[int, int], *, letter: bool) -> None:
        if len(word) <= LONGEST_WORD:
            self._add("word", word, span, letter=letter)
            return
        for at in range(0, len(word), LONGEST_WORD):
            piece = word[at : at + LONGEST_WORD]
            self._add("word", piece, (span[0] + at, span[0] + at + len(piece)))

    def _read_ellipsis(self, match: re.Match[str]) -> int:
        following = _LOWER_FOLLOWS.match(self.text, match.end())
        self._punctuate("pause" if following else "stop", "," if following else ".", match)
        return match.end()

    def _read_dash(self, match: re.Match[str]) -> int:
        self._punctuate("pause", ",", match)
        return match.end()

    def _read_stop(self, match: re.Match[str]) -> int:
        marks = match.group()
        if marks == "." and _DOT_INSIDE.match(self.text, match.start()):
            return self._read_sign(match)
        strongest = next(mark for mark in "?!." if mark in marks)
        self._punctuate("stop", strongest, match)
        return match.end()

    def _read_pause(self, match: re.Match[str]) -> int:
        self._punctuate("pause", match.group(), match)
        return match.end()

    def _punctuate(self, kind: Kind, text: str, match: re.Match[str]) -> None:
        self._add(kind, text, match.span())
        self.previous = ""

    def _read_sign(self, match: re.Match[str]) -> int:
        sign = match.group()
        spoken = SIGNS.get(sign) or self._sign_between(sign, match.start())
        if spoken:
            self._say(spoken, match)
        elif sign == "/" and not self._is_and_or(match.start()):
            self._punctuate("pause", ",", match)
        return match.end()

    def _sign_between(self, sign: str, at: int) -> str:
        before, after = self.text[max(at - 1, 0) : at], self.text[at + 1 : at + 3]
        if sign == "/" and self._is_and_or(at):
            return ""
        for left, right, spoken in _EXTRA_SIGNS.get(sign, ()):
            if (not left or re.fullmatch(left, before)) and re.match(right, after):
                return spoken
        return ""

    def _is_and_or(self, at: int) -> bool:
        return self.text[max(at - 3, 0) : at + 3].lower() == "and/or"
