"""Symbols of text and how they are called among phones. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ORIGINAL_SYMBOLS", "SPACE", "distinct"]

SPACE = "\N{OPEN BOX}"
"""How the space of an alphabet is called among its phones, so that it can be seen."""

ORIGINAL_SYMBOLS: tuple[str, ...] = (
    "_",
    *';:,.!?¡¿—…"«»“” ',
    *"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    *"ɑɐɒæɓʙβɔɕçɗɖðʤəɘɚɛɜɝɞɟʄɡɠɢʛɦɧħɥʜɨɪʝɭɬɫɮʟɱɯɰŋɳɲɴøɵɸθœɶʘɹɺɾɻʀʁɽʂʃʈʧʉʊʋⱱʌɣɤʍχʎʏʑʐʒʔʡʕʢǀǁǂǃ",
    *"ˈˌːˑʼʴʰʱʲʷˠˤ˞↓↑→↗↘'\N{COMBINING VERTICAL LINE BELOW}'ᵻ",
)
"""Ids of the original's text: pad, punctuation, letters, IPA. The apostrophe has two ids, of which
the later is the one that text gets."""


def distinct(symbols: Sequence[str]) -> tuple[str, ...]:
    """Symbols as phones: the space is made visible, and of two of one name the later keeps it."""
    named = [SPACE if symbol == " " else symbol for symbol in symbols]
    last = {symbol: number for number, symbol in enumerate(named)}
    return tuple(
        symbol if last[symbol] == number else f"<{number}>" for number, symbol in enumerate(named)
    )
