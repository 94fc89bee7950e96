"""The pronunciation dictionary: the shipped one, and one that a user writes.

The shipped file holds the words of the CMU Pronouncing Dictionary in the ``radio`` phones; see
``data/NOTICE.txt`` for its sources and `speechloom_starter.english.build_lexicon` for its making.
"""

from __future__ import annotations

import lzma
import re
import string
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from speechloom.errors import TextError
from speechloom_starter.english.alphabet import parse_phones
from speechloom_starter.phones import PHONES

__all__ = [
    "Lexicon",
    "decode_phones",
    "encode_phones",
    "load_lexicon",
    "parse_lexicon",
    "read_lexicon",
]

WORD = re.compile(r"[a-z']*[a-z][a-z']*")
_CODES = dict(zip(PHONES, string.ascii_letters, strict=False))
_DECODED = {code: phone for phone, code in _CODES.items()}


def encode_phones(phones: tuple[str, ...]) -> str:
    """Write phones as one letter each, which halves the file and the memory."""
    return "".join(_CODES[phone] for phone in phones)


def decode_phones(codes: str) -> tuple[str, ...]:
    """Undo `encode_phones`."""
    return tuple(_DECODED[code] for code in codes)


class Lexicon(Mapping[str, tuple[str, ...]]):
    """Lower-case words to phones, kept packed: 125 000 words take 20 MB instead of 80.

    Args:
        packed: word to the phones of `encode_phones`.
    """

    def __init__(self, packed: Mapping[str, str]) -> None:
        self._packed = packed

    def __getitem__(self, word: str) -> tuple[str, ...]:
        return decode_phones(self._packed[word])

    def __contains__(self, word: object) -> bool:
        return word in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


@cache
def load_lexicon() -> Lexicon:
    """Read the shipped dictionary, once for each process (about 0.1 s)."""
    data = files("speechloom_starter.english").joinpath("data/lexicon.txt.xz").read_bytes()
    lines = lzma.decompress(data).decode("ascii").splitlines()
    return Lexicon(dict(line.split(" ", 1) for line in lines))


def read_lexicon(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a user's dictionary file; see `parse_lexicon`.

    Raises:
        TextError: it cannot be read, or a line is wrong; the message names file and line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"cannot read the lexicon {path}: {error}") from error
    return parse_lexicon(text, name=str(path))


def parse_lexicon(text: str, *, name: str = "lexicon") -> dict[str, tuple[str, ...]]:
    """Parse a user's dictionary: one ``word phones`` a line; ``#`` begins a comment.

    Args:
        text: words of letters and apostrophes, any case; phones as `parse_phones` takes them.
            Of several lines for one word the first counts.
        name: of the file, for messages.

    Raises:
        TextError: a line is wrong; the message names file and line.
    """
    entries: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        word = fields[0].lower()
        if not WORD.fullmatch(word):
            raise TextError(
                f"{name}, line {number}: a word has only letters a-z and apostrophes, "
                f"but is {fields[0]!r}"
            )
        try:
            entries.setdefault(word, parse_phones(fields[1:]))
        except TextError as error:
            raise TextError(f"{name}, line {number}: {error}") from error
    return entries
