"""The front end of checkpoints that read characters: their alphabet, and nothing else."""

from __future__ import annotations

import importlib
import logging
import re
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from speechloom.errors import BackendUnavailable, TextError
from speechloom.spec import ComponentSpec, FrontendFacts
from speechloom.values import Phones
from speechloom.weightless import Weightless
from speechloom_vits.symbols import SPACE

__all__ = ["CharacterFrontend", "TextRules"]

_GIVEN = re.compile(r"\[\[([^\]]*)\]\]")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n+")
_WORD = re.compile(r"\[\[[^\]]*\]\]|\S+")
_LATIN = 0x24F
"""The last code point of the Latin blocks."""


class TextRules(BaseModel):
    """How a checkpoint wants its text, as its tokenizer's configuration states it.

    Attributes:
        add_blank: the first symbol of the alphabet stands between all characters.
        normalize: text is put in lower case, and signs outside of the alphabet are left out.
        is_uroman: text in other scripts is romanised by the package ``uroman`` first.
        phonemize: the alphabet is IPA; text goes through espeak (package ``phonemizer``).
        language: ISO 639-3 code.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    add_blank: bool = True
    normalize: bool = True
    is_uroman: bool = False
    phonemize: bool = False
    language: str | None = None


@dataclass(frozen=True)
class _Word:
    """A word and what of it is spoken.

    Attributes:
        text: as it was given.
        start: its place in the text, in characters.
        symbols: of the alphabet.
    """

    text: str
    start: int
    symbols: tuple[str, ...]


class CharacterFrontend(Weightless):
    """Text to the characters of a checkpoint's alphabet.

    The rules are those of transformers' ``VitsTokenizer``, with these differences: letters and
    digits that the alphabet does not have are refused instead of dropped, since a word would be
    said wrong without a sign of it (accents that it does not have are taken off first); sentences
    are spoken one by one.

    Args:
        spec: its options are `TextRules`.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__(spec)
        facts = spec.facts
        assert isinstance(facts, FrontendFacts)
        self._facts = facts
        self._rules = TextRules.model_validate(spec.options)
        self._phones = frozenset(facts.phones)

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """Split into sentences and spell each.

        Args:
            text: plain text; ``[[h e y]]`` gives characters directly.
            lexicon: spellings that go before the word's own, by lower-case word.

        Raises:
            TextError: there is nothing to say, or a letter or digit that the alphabet lacks.
            BackendUnavailable: the checkpoint's rules need a package that is not installed.
        """
        spoken = [
            phones
            for start, sentence in _sentences(text)
            if (phones := self._spelled(sentence, start, lexicon or {})) is not None
        ]
        if not spoken:
            raise TextError("there is nothing to say in the text; give it at least one word")
        return spoken

    # One sentence -------------------------------------------------------------------------

    def _spelled(
        self, sentence: str, start: int, lexicon: Mapping[str, Sequence[str]]
    ) -> Phones | None:
        words = [
            word
            for match in _WORD.finditer(sentence)
            if (word := self._word(match[0], start + match.start(), lexicon)).symbols
        ]
        if not any(symbol.isalnum() for word in words for symbol in word.symbols) and not any(
            word.text.startswith("[[") for word in words
        ):
            return None
        return self._joined(words)

    def _joined(self, words: Sequence[_Word]) -> Phones:
        """Words with spaces between them, and blanks everywhere where the checkpoint has them."""
        symbols: list[str] = []
        spans: list[tuple[int, int]] = []
        for word in words:
            if symbols and SPACE in self._phones:
                symbols.append(SPACE)
            spans.append((len(symbols), len(symbols) + len(word.symbols)))
            symbols += word.symbols
        if self._rules.add_blank:
            blank = self._facts.phones[0]
            symbols = [blank, *(one for symbol in symbols for one in (symbol, blank))]
            spans = [(2 * first + 1, 2 * last) for first, last in spans]
        return Phones(
            tuple(symbols),
            self._facts.alphabet,
            words=tuple(word.text for word in words),
            word_spans=tuple(spans),
            source_spans=tuple((word.start, word.start + len(word.text)) for word in words),
        )

    def _word(self, text: str, start: int, lexicon: Mapping[str, Sequence[str]]) -> _Word:
        if given := _GIVEN.fullmatch(text):
            return _Word(text, start, self._checked(given[1].split(), text))
        bare = text.strip('.,;:!?"()').lower()
        if bare in lexicon:
            return _Word(text, start, self._checked(lexicon[bare], text))
        return _Word(text, start, tuple(self._symbols(text)))

    def _checked(self, symbols: Sequence[str], text: str) -> tuple[str, ...]:
        unknown = [symbol for symbol in symbols if symbol not in self._phones]
        if unknown:
            raise TextError(
                f"{text}: {self._facts.alphabet} has no {', '.join(map(repr, unknown))}; its "
                f"symbols are {' '.join(self._facts.phones)}"
            )
        return tuple(symbols)

    def _symbols(self, word: str) -> Iterator[str]:
        """The characters of a word, in the alphabet."""
        text = self._prepared(word)
        for character in text:
            if character in self._phones:
                yield character
            elif character == " " and SPACE in self._phones:
                yield SPACE
            elif character.isalnum():
                yield from self._without_accent(character, word)

    def _prepared(self, word: str) -> str:
        rules = self._rules
        if rules.normalize:
            word = "".join(one if one in self._phones else one.lower() for one in word)
        if rules.language == "ron":
            word = word.replace("\u021b", "\u0163")
        if rules.is_uroman and any(ord(one) > _LATIN for one in word):
            word = _romaniser()(word)
        if rules.phonemize:
            foreign = [one for one in word if one.isalpha() and ord(one) > _LATIN]
            if foreign:
                # Espeak would name such letters instead of reading them.
                raise TextError(
                    f"{word!r} has the letter {foreign[0]!r}, which is not of the script of "
                    f"{', '.join(self._facts.languages)}; give text in its own script"
                )
            word = _phonemiser()(word)
        return word

    def _without_accent(self, character: str, word: str) -> Iterator[str]:
        plain = [one for one in unicodedata.normalize("NFKD", character) if one.isalnum()]
        if plain and all(one in self._phones for one in plain):
            yield from plain
            return
        what = "digit" if character.isdecimal() else "letter"
        hint = "write numbers in words" if what == "digit" else "give text in its own script"
        raise TextError(
            f"{word!r} has the {what} {character!r}, which {self._facts.alphabet} does not have; "
            f"{hint} ({', '.join(self._facts.languages)})"
        )


def _sentences(text: str) -> Iterator[tuple[int, str]]:
    """Sentences with their place."""
    at = 0
    for match in _SENTENCE_END.finditer(text):
        yield at, text[at : match.start()]
        at = match.end()
    yield at, text[at:]


@cache
def _romaniser() -> Callable[[str], str]:
    """Text of any script in Latin letters, by uroman."""
    uroman: Any = _needed("uroman", "pip install 'speechloom-vits[uroman]'")
    tables = uroman.Uroman()
    return lambda text: str(tables.romanize_string(text)).lower()


@cache
def _phonemiser() -> Callable[[str], str]:
    """American English in IPA, by espeak, as the published checkpoints were trained."""
    backend: Any = _needed(
        "phonemizer.backend",
        "pip install 'speechloom-vits[ipa]' and install the program espeak-ng",
    )
    quiet = logging.getLogger(f"{__name__}.espeak")
    quiet.setLevel(logging.ERROR)  # it warns of every word that is read as two
    try:
        espeak = backend.EspeakBackend(
            "en-us", preserve_punctuation=True, with_stress=True, logger=quiet
        )
    except RuntimeError as error:
        raise BackendUnavailable(
            f"espeak cannot be used ({error}); install the program espeak-ng",
            plugin="speechloom-vits",
        ) from error
    one_at_a_time = threading.Lock()  # espeak is one C library with one state

    def read(text: str) -> str:
        with one_at_a_time:
            return str(espeak.phonemize([text], strip=True)[0])

    return read


def _needed(module: str, install: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(
            f"the text rules of this checkpoint need {module.partition('.')[0]}, which is not "
            f"installed; run `{install}`",
            plugin="speechloom-vits",
        ) from error
