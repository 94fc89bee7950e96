"""Any Unicode text as the few characters that the rules know, each with its place of origin."""

from __future__ import annotations

import unicodedata
from array import array
from dataclasses import dataclass
from functools import lru_cache

from speechloom.errors import TextError

__all__ = ["Folded", "fold"]

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma "
    "sigma tau upsilon phi chi psi omega"
).split()
_GREEK_NAMES = frozenset(f" {name} " for name in _GREEK)
_FOLDED = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033\u2039\u203a", '"'),
    **dict.fromkeys("\u2010\u2011\u2212", "-"),
    **dict.fromkeys("\u2012\u2013", "\u2013"),
    **dict.fromkeys("\u2014\u2015\u2e3a\u2e3b", "\u2014"),
    **dict.fromkeys("\u00ad\u2122\u00ae", ""),
    "\u00e6": "ae",
    "\u00c6": "Ae",
    "\u0153": "oe",
    "\u0152": "Oe",
    "\u00f8": "o",
    "\u00d8": "O",
    "\u0142": "l",
    "\u0141": "L",
    "\u0111": "d",
    "\u0110": "D",
    "\u00f0": "th",
    "\u00d0": "Th",
    "\u00fe": "th",
    "\u00de": "Th",
    "\u00df": "ss",
    "\u1e9e": "SS",
    "\u0131": "i",
    "\u2044": "/",
    "\u2116": "No. ",
    "\u2028": "\n",
    "\u2029": "\n\n",
    "\u00bf": "",
    "\u00a1": "",
}
KEPT = "\u2013\u2014\u00a3\u20ac\u00a5\u00a2\u00b0\u00b2\u00b3\u00d7\u00f7\u00b1\u2248\u2264\u2265"
KEPT += "\u2260\u221a\u221e\u00a7\u00a9\u00b5"


@dataclass(frozen=True)
class Folded:
    """Text in ASCII and a few signs.

    Attributes:
        text: what the rules read.
        origin: for each character of `text`, the index of the original character.
    """

    text: str
    origin: array[int]


def fold(text: str) -> Folded:
    """Fold accents, ligatures, quotes, dashes and compatibility forms to plain characters.

    Emoji and unknown signs become a space; marks and invisible characters vanish. Greek letters
    standing for themselves are written out, as in formulas.

    Raises:
        TextError: there are letters of another script.
    """
    parts: list[str] = []
    origin = array("l")
    for index, character in enumerate(text):
        plain = character if character.isascii() else _fold_character(character)
        if plain is None or (plain in _GREEK_NAMES and _is_greek(text[max(index - 1, 0) : index])):
            raise TextError(_unknown(text))
        parts.append(plain)
        for _ in plain:
            origin.append(index)
    return Folded("".join(parts).replace("`", "'"), origin)


@lru_cache(maxsize=4096)
def _fold_character(character: str) -> str | None:
    if character in _FOLDED:
        return _FOLDED[character]
    if character in KEPT:
        return character
    if _is_greek(character):
        return f" {_GREEK[ord(character.lower()) - 0x3B1]} "
    plain = "".join(_FOLDED.get(part, part) for part in unicodedata.normalize("NFKD", character))
    plain = "".join(part for part in plain if unicodedata.category(part) not in ("Mn", "Me", "Cf"))
    if unicodedata.category(character) == "No" and "/" in plain:
        return f" {plain} "
    return "".join(_sign(part) for part in plain) if not _is_foreign(plain) else None


def _is_greek(character: str) -> bool:
    return bool(character) and "\u03b1" <= character.lower() <= "\u03c9"


def _is_foreign(plain: str) -> bool:
    return any(unicodedata.category(part)[0] in ("L", "M") and not part.isascii() for part in plain)


def _sign(part: str) -> str:
    if part.isascii() or part in KEPT:
        return part
    digit = unicodedata.digit(part, None)
    return " " if digit is None else str(digit)


def _unknown(text: str) -> str:
    foreign = dict.fromkeys(
        part
        for part in text
        if not part.isascii() and (_fold_character(part) is None or _is_greek(part))
    )
    shown = ", ".join(
        f"{part!r} ({unicodedata.name(part, '?').lower()})" for part in [*foreign][:5]
    )
    more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
    return (
        f"the English front end cannot speak {shown}{more}; it knows the Latin script only: "
        "write these words in it, or give their phones as [[hh ax l ow]]"
    )
