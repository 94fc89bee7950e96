"""Mandarin text to pinyin with tones, letter by letter."""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from speechloom.errors import BackendUnavailable, TextError
from speechloom.spec import ComponentSpec, FrontendFacts
from speechloom.values import Phones
from speechloom.weightless import Weightless

__all__ = ["PinyinFrontend"]

_PIECE = re.compile(
    r"\[\[(?P<given>[^\]]*)\]\]|(?P<han>[\u3400-\u9fff]+)|(?P<end>[。！？.!?\n])"
    r"|(?P<comma>[，、；：,;:])|(?P<other>\S)"
)
_Word = tuple[str, int, tuple[str, ...]]


class PinyinFrontend(Weightless):
    """Characters to pinyin: jieba finds the words, pypinyin reads them.

    A syllable is its letters and the digit of its tone, 5 for the neutral one; as in X-E-Speech.
    Between words stands ``-``, at commas the pause.

    Args:
        spec: names the alphabet.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        super().__init__(spec)
        facts = spec.facts
        assert isinstance(facts, FrontendFacts)
        self._facts = facts

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """Split into sentences and read each.

        Args:
            text: Chinese characters; ``[[n i 3]]`` gives letters and tones directly.
            lexicon: readings that go before the dictionary's, by word.

        Raises:
            TextError: there is nothing to say, or something that is no Chinese character.
            BackendUnavailable: pypinyin or jieba is not installed.
        """
        sentences: list[list[_Word | None]] = [[]]
        for piece in self._pieces(text, lexicon or {}):
            if piece == "end":
                sentences.append([])
            else:
                sentences[-1].append(None if isinstance(piece, str) else piece)
        spoken = [self._joined(words) for words in sentences if any(words)]
        if not spoken:
            raise TextError("there is nothing to say in the text; give it at least one word")
        return spoken

    def _pieces(self, text: str, lexicon: Mapping[str, Sequence[str]]) -> Iterator[_Word | str]:
        for match in _PIECE.finditer(text):
            if match["given"] is not None:
                if not match["given"].split():
                    continue
                yield match[0], match.start(), self._checked(match["given"].split(), match[0])
            elif match["han"]:
                yield from self._words(match["han"], match.start(), lexicon)
            elif match["end"]:
                yield "end"
            elif match["comma"]:
                yield "comma"
            elif match["other"].isalnum():
                raise TextError(
                    f"{match['other']!r} is no Chinese character; write numbers and foreign words "
                    "in characters, or use the front end of their language"
                )

    def _words(self, han: str, start: int, lexicon: Mapping[str, Sequence[str]]) -> Iterator[_Word]:
        at = start
        for word in [han] if han in lexicon else _jieba().lcut(han):
            given = lexicon.get(word)
            symbols = self._checked(given, word) if given else self._read(word)
            yield word, at, symbols
            at += len(word)

    def _read(self, word: str) -> tuple[str, ...]:
        pypinyin = _needed("pypinyin")
        syllables = pypinyin.lazy_pinyin(
            word, style=pypinyin.Style.TONE3, neutral_tone_with_five=True
        )
        return self._checked([sign for one in syllables for sign in one], word)

    def _checked(self, symbols: Sequence[str], word: str) -> tuple[str, ...]:
        unknown = [one for one in symbols if one not in self._facts.phones]
        if unknown:
            raise TextError(
                f"{word}: {self._facts.alphabet} has no {', '.join(map(repr, unknown))}; its "
                f"symbols are {' '.join(self._facts.phones)}"
            )
        return tuple(symbols)

    def _joined(self, words: Sequence[_Word | None]) -> Phones:
        pause = self._facts.pause
        symbols: list[str] = [pause]
        said: list[_Word] = []
        spans: list[tuple[int, int]] = []
        for word in words:
            if word is None:
                if symbols[-1] != pause:
                    symbols.append(pause)
                continue
            if symbols[-1] != pause:
                symbols.append("-")
            said.append(word)
            spans.append((len(symbols), len(symbols) + len(word[2])))
            symbols += word[2]
        if symbols[-1] != pause:
            symbols.append(pause)
        return Phones(
            tuple(symbols),
            self._facts.alphabet,
            words=tuple(word[0] for word in said),
            word_spans=tuple(spans),
            source_spans=tuple((word[1], word[1] + len(word[0])) for word in said),
        )


def _jieba() -> Any:
    jieba = _needed("jieba")
    jieba.setLogLevel("ERROR")
    return jieba


def _needed(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            # jieba warns of setuptools when it is imported; nothing depends on it.
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailable(
            f"pinyin needs {module}, which is not installed; run "
            "`pip install 'speechloom-vits[pinyin]'`",
            plugin="frontend/x-e-pinyin",
        ) from error
