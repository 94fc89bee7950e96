"""Phones as users write them: the ``radio`` set of the starter, or ARPABET of any spelling."""

from __future__ import annotations

from collections.abc import Sequence

from speechloom.errors import TextError
from speechloom_starter.phones import PHONES

__all__ = ["ALPHABET", "SPOKEN_PHONES", "parse_phones"]

ALPHABET = "radio"
"""Name of the phones."""
SPOKEN_PHONES: tuple[str, ...] = PHONES[1:]
"""The alphabet without the pause."""

_STRESSLESS = {"ah0": "ax"}
"""The only ARPABET vowel that changes with stress; every other digit is dropped."""


def parse_phones(phones: str | Sequence[str]) -> tuple[str, ...]:
    """Read phones in the ``radio`` set or in ARPABET, upper or lower case, with or without stress.

    Args:
        phones: symbols separated by spaces, or one by one.

    Returns:
        Phones of the ``radio`` set.

    Raises:
        TextError: there is none, or one is unknown.
    """
    symbols = phones.split() if isinstance(phones, str) else list(phones)
    if not symbols:
        raise TextError(f"a pronunciation needs at least one phone of {_valid()}, but is empty")
    return tuple(_parse_phone(symbol) for symbol in symbols)


def _parse_phone(symbol: str) -> str:
    lower = symbol.lower()
    phone = _STRESSLESS.get(lower, lower.rstrip("012") if lower[:-1].isalpha() else lower)
    if phone not in SPOKEN_PHONES:
        raise TextError(f"{symbol!r} is not a phone; use {_valid()}, or ARPABET such as AH0")
    return phone


def _valid() -> str:
    return " ".join(SPOKEN_PHONES)
