"""Tokens to sentences of a bounded length; nothing is ever left out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from speechloom.errors import TextError
from speechloom_starter.english.lexicon import load_lexicon
from speechloom_starter.english.scanner import Token, scan

__all__ = ["MAX_CHARS", "group_tokens", "render", "split_sentences"]

MAX_CHARS = 200
"""Of spoken text in one sentence: about 13 seconds."""

_STRENGTH = {",": 1, ":": 2, ";": 3, ".": 4, "!": 5, "?": 6}
_CLOSING = re.compile("[\"')\\]}\u2019\u201d\u00bb]*")


def split_sentences(text: str, *, max_chars: int = MAX_CHARS) -> tuple[str, ...]:
    """Split text where a voice would stop.

    Args:
        text: as written; abbreviations and numbers do not end a sentence.
        max_chars: most characters, as spoken, in one piece. A longer sentence is cut at its pauses,
            else between words; a single expression, such as a long number, stays whole.

    Returns:
        Pieces of `text` in order; empty when there is nothing to say.

    Raises:
        TextError: letters of another script, a wrong ``[[...]]``, or `max_chars` below 1.
    """
    pieces: list[str] = []
    begin = 0
    for group in group_tokens(scan(text, load_lexicon()), max_chars):
        end = group[-1].end
        closing = _CLOSING.match(text, end)
        end = closing.end() if closing and group[-1].kind == "stop" else end
        if text[begin:end].strip():
            pieces.append(text[begin:end].strip())
        begin = max(begin, end)
    if pieces and text[begin:].strip():
        pieces[-1] += text[begin:].rstrip()
    return tuple(pieces)


def group_tokens(tokens: Iterable[Token], max_chars: int) -> list[list[Token]]:
    """Sentences with at least one word each; paragraph marks are spent.

    Raises:
        TextError: `max_chars` is below 1.
    """
    if max_chars < 1:
        raise TextError(f"`max_chars` must be at least 1, but is {max_chars}")
    return [piece for sentence in _sentences(tokens) for piece in _cut_long(sentence, max_chars)]


def _sentences(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    sentence: list[Token] = []
    ended = False
    for token in tokens:
        ends = token.kind in ("stop", "paragraph")
        if token.kind == "word":
            if ended:
                yield sentence
                sentence = []
            ended = False
        ended = ended or (ends and bool(sentence))
        if token.kind != "paragraph" and (sentence or token.kind == "word"):
            sentence.append(token)
    if sentence:
        yield sentence


def _cut_long(sentence: list[Token], max_chars: int) -> Iterator[list[Token]]:
    """Cut at the last pause that fits, else at the last word that fits."""
    piece: list[Token] = []
    size = pause = 0
    for token in sentence:
        size += len(token.text) + 1
        if token.kind == "word" and piece and size > max_chars:
            cut = pause or len(piece)
            yield piece[:cut]
            piece, pause = piece[cut:], 0
            size = sum(len(rest.text) + 1 for rest in piece) + len(token.text) + 1
        piece.append(token)
        if token.kind != "word":
            pause = len(piece)
    yield piece


def render(tokens: Sequence[Token]) -> str:
    """Tokens as text: marks next to each other become the strongest, leading ones vanish."""
    parts: list[str] = []
    marks: list[str] = []
    for token in tokens:
        if token.kind != "word":
            marks.append(token.text)
            continue
        if parts:
            parts.append(_strongest(marks) + ("\n\n" if "\n\n" in marks else " "))
        parts.append(token.text)
        marks = []
    return "".join(parts) + (_strongest(marks) if parts else "")


def _strongest(marks: Sequence[str]) -> str:
    return max((mark for mark in marks if mark in _STRENGTH), key=_STRENGTH.__getitem__, default="")
