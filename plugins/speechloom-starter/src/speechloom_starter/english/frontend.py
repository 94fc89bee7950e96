"""English text to phones."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speechloom.errors import TextError
from speechloom.values import Phones
from speechloom_starter.english.alphabet import ALPHABET, parse_phones
from speechloom_starter.english.g2p import derive_phones, guess_phones
from speechloom_starter.english.lexicon import WORD, load_lexicon
from speechloom_starter.english.scanner import Token, scan
from speechloom_starter.english.sentences import MAX_CHARS, group_tokens, render

__all__ = ["PAUSE", "Utterance", "Word", "phonemize"]

PAUSE = "pau"
"""The phone of silence."""
_VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())
_LETTER_A = ("ey",)
_ARTICLE_A = ("ax",)
_THE_BEFORE_VOWEL = ("dh", "iy")

_Lexicon = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Word:
    """A spoken word.

    Attributes:
        text: lower case, as normalized; with ``[[...]]`` where phones were given.
        phones: at least one, of the ``radio`` set.
        source_start: index of its first character in the text that was given.
        source_end: index after its last one. The words of one expression, such as "$3.50", share
            the place of the whole.
        pause_after: the voice pauses behind it, inside the sentence.
    """

    text: str
    phones: tuple[str, ...]
    source_start: int
    source_end: int
    pause_after: bool = False


@dataclass(frozen=True)
class Utterance:
    """A sentence ready to be spoken.

    Attributes:
        text: normalized, with punctuation.
        words: at least one.
    """

    text: str
    words: tuple[Word, ...]

    @property
    def phones(self) -> tuple[str, ...]:
        """All phones: a pause at both ends and behind each word that has one."""
        return self.to_phones().symbols

    def to_phones(self) -> Phones:
        """The core's value: phones, words, and where both stand."""
        symbols = [PAUSE]
        spans: list[tuple[int, int]] = []
        for word in self.words:
            start = len(symbols)
            symbols.extend(word.phones)
            spans.append((start, len(symbols)))
            if word.pause_after:
                symbols.append(PAUSE)
        return Phones(
            symbols=(*symbols, PAUSE),
            alphabet=ALPHABET,
            words=tuple(word.text for word in self.words),
            word_spans=tuple(spans),
            source_spans=tuple((word.source_start, word.source_end) for word in self.words),
        )


def phonemize(
    text: str,
    *,
    lexicon: Mapping[str, Sequence[str]] | None = None,
    max_chars: int = MAX_CHARS,
) -> tuple[Utterance, ...]:
    """Spell text in phones, sentence by sentence.

    Args:
        text: English in the Latin script. ``[[hh ax l ow]]`` stands for a word, or right behind
            one gives its pronunciation. Emoji and ornaments beside words are dropped.
        lexicon: pronunciations that go before the shipped ones: words of letters and apostrophes,
            phones of the ``radio`` set or ARPABET, as a string or one by one.
        max_chars: most characters, as spoken, in one utterance; a longer sentence is cut at its
            pauses, else between words.

    Returns:
        One for each sentence; nothing is left out.

    Raises:
        TextError: nothing to say, letters of another script, or an unknown phone.
    """
    given = _check_lexicon(lexicon or {})
    shipped = load_lexicon()
    known: _Lexicon = ChainMap(given, shipped) if given else shipped  # type: ignore[arg-type]
    groups = group_tokens(scan(text, known), max_chars)
    if not groups:
        what = "empty" if not text.strip() else f"{text.strip()[:40]!r}, which has no word"
        raise TextError(f"there is nothing to say: the text is {what}; give at least one word")
    return tuple(
        Utterance(text=render(group), words=_words(group, known, frozenset(given)))
        for group in groups
    )


def _check_lexicon(lexicon: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    checked: dict[str, tuple[str, ...]] = {}
    for word, phones in lexicon.items():
        if not WORD.fullmatch(word.lower()):
            raise TextError(
                f"a word of the lexicon has only letters a-z and apostrophes, but is {word!r}"
            )
        try:
            checked[word.lower()] = parse_phones(phones)
        except TextError as error:
            raise TextError(f"lexicon entry {word!r}: {error}") from error
    return checked


def _words(tokens: Sequence[Token], known: _Lexicon, fixed: frozenset[str]) -> tuple[Word, ...]:
    """Words with phones; built from the last one back, as "the" depends on what follows."""
    words: list[Word] = []
    following: tuple[str, ...] = ()
    pause = False
    for token in reversed(tokens):
        if token.kind != "word":
            following, pause = (), bool(words)
            continue
        phones = token.phones or _pronounce(token, known, fixed, following)
        words.append(Word(token.text, phones, token.start, token.end, pause))
        following, pause = phones, False
    return tuple(reversed(words))


def _pronounce(
    token: Token, known: _Lexicon, fixed: frozenset[str], following: tuple[str, ...]
) -> tuple[str, ...]:
    word = token.text
    if word not in fixed:
        if word == "a":
            return _ARTICLE_A if following and not token.letter else _LETTER_A
        if word == "the" and following and following[0] in _VOWELS:
            return _THE_BEFORE_VOWEL
    if word in known:
        return known[word]
    return derive_phones(word, known) or guess_phones(word)
