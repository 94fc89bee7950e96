"""What the scanner looks for, in order; every repetition is bounded or cannot backtrack far."""

from __future__ import annotations

import re
from collections.abc import Callable

from speechloom_starter.english import expand
from speechloom_starter.english.words import (
    ABBREVIATIONS,
    CAPITAL_ABBREVIATIONS,
    MONTHS,
    NUMBERED_ABBREVIATIONS,
    SCALES,
    UNITS,
)

__all__ = ["EXPANSIONS", "PATTERN"]

_START = r"(?<![A-Za-z0-9])"
_END = r"(?![A-Za-z0-9])"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_SIGNED = rf"(?:(?<![A-Za-z0-9)])-)?{_NUMBER}"
_YEAR = r"(?:1[0-9]|20)\d\d"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])"
_MONTH_OF_YEAR = r"(?:1[0-2]|0?[1-9])"
_DOMAINS = "com|org|net|edu|gov|mil|int|info|io|ai|co|uk|us|de|fr|eu|ca|au|jp|ch|dev|app|me|tv"


def _any(words: object) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))  # type: ignore[call-overload]


_MONTH = (
    "(?:"
    + "|".join(
        (name if len(name) < 5 else rf"{name[:3]}(?:{name[3:]}|t?\.?)").capitalize()
        for name in MONTHS
    )
    + ")"
)
_HALF = r"[AaPp](?:[Mm]|\.\s?[Mm])(?![A-Za-z])"
_SCALE = rf"(?:\s?(?P<{{}}>(?:{_any(s for s in SCALES if len(s) > 2)}|bn|[KkMmBT])){_END})?"

_Rule = tuple[str, str, Callable[["re.Match[str]"], str]]

_RULES: tuple[_Rule, ...] = (
    ("url", r"(?:https?://|www\.)[^\s<>\"\[\]]{0,2000}[A-Za-z0-9/]", expand.address),
    (
        "email",
        r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}",
        expand.address,
    ),
    (
        "domain",
        rf"(?:[A-Za-z0-9][A-Za-z0-9-]{{0,62}}\.){{1,5}}(?:{_DOMAINS}){_END}"
        r"(?:/[^\s<>\"\[\]]{0,2000}[A-Za-z0-9/])?",
        expand.address,
    ),
    (
        "date_iso",
        rf"(?P<iso_year>\d{{4}})-(?P<iso_month>0[1-9]|1[0-2])-(?P<iso_day>{_DAY}){_END}",
        expand.date_iso,
    ),
    (
        "date_us",
        rf"(?P<us_month>{_MONTH_OF_YEAR})/(?P<us_day>{_DAY})/(?P<us_year>\d{{4}}|\d\d){_END}",
        expand.date_us,
    ),
    (
        "date_eu",
        rf"(?P<eu_day>{_DAY})/(?P<eu_month>{_MONTH_OF_YEAR})/(?P<eu_year>\d{{4}}|\d\d){_END}",
        expand.date_eu,
    ),
    (
        "date_words",
        rf"(?P<md_month>{_MONTH})\s{{1,3}}(?P<md_day>{_DAY})(?:st|nd|rd|th)?{_END}(?!,\d{{3}}|[:%])"
        rf"(?:,?\s{{1,3}}(?P<md_year>{_YEAR}){_END})?",
        expand.date_words,
    ),
    (
        "date_day_first",
        rf"(?:[Tt]he\s)?(?P<dm_day>{_DAY})(?:st|nd|rd|th)?\s{{1,3}}(?:of\s{{1,3}})?"
        rf"(?P<dm_month>{_MONTH}){_END}(?:,?\s{{1,3}}(?P<dm_year>{_YEAR}){_END})?",
        expand.date_day_first,
    ),
    (
        "phone",
        r"(?:(?:\+?\d{1,3}[ .-])?(?:\(\d{3}\)\s?|\d{3}[.-])\d{3}[.-]\d{4}|\d{3}-\d{4}"
        rf"|\+\d{{1,4}}(?:[ .-]\d{{2,5}}){{1,5}}|\+\d{{8,15}}){_END}",
        expand.phone_number,
    ),
    (
        "clock",
        rf"(?:(?P<hour>[01]?\d|2[0-3])(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
        rf"(?:\s?(?P<half>{_HALF}))?|\s?(?P<half_only>{_HALF}))){_END}(?!:)",
        expand.clock,
    ),
    (
        "money",
        rf"-?(?P<country>US|AU|CA)?(?P<currency>[$\u00a3\u20ac\u00a5])\s?(?P<amount>{_NUMBER})"
        + _SCALE.format("scale")
        + rf"|(?P<amount_before>{_NUMBER})"
        + _SCALE.format("scale_before")
        + r"\s?(?P<currency_after>[$\u00a3\u20ac\u00a5])(?!\s?\d)",
        expand.money,
    ),
    ("decade", rf"'?(?P<tens>[12]\d\d0|[1-9]0)'?s{_END}", expand.decade),
    ("measure", rf"(?P<measured>{_SIGNED})\s?(?P<unit>{_any(UNITS)}){_END}", expand.measure),
    (
        "ordinal_number",
        rf"(?P<ordinal>\d{{1,3}}(?:,\d{{3}})+|\d+)(?:st|nd|rd|th){_END}",
        expand.ordinal_number,
    ),
    (
        "fraction",
        rf"(?:(?P<whole>\d{{1,9}})\s{{1,2}})?(?P<top>\d{{1,4}})/(?P<bottom>\d{{1,4}}){_END}(?!/)",
        expand.mixed_fraction,
    ),
    ("version", r"\d{1,15}(?:\.\d{1,15}){2,20}(?!\d)", expand.version),
    ("number", _SIGNED, expand.plain_number),
    ("firm", rf"[A-Z]{{1,3}}(?:&[A-Z]{{1,3}}){{1,3}}{_END}", expand.firm),
    (
        "numbered_word",
        rf"(?P<numbered>(?i:{_any(NUMBERED_ABBREVIATIONS)}))\.\s{{0,3}}(?=\d)",
        expand.numbered,
    ),
)

EXPANSIONS: dict[str, Callable[[re.Match[str]], str]] = {name: say for name, _, say in _RULES}
"""Rules whose words depend on the match alone."""

_STRUCTURE = (
    r"\[\[(?P<phones>[^\[\]]*)\]\]",
    r"(?P<space>\s+)",
    *(
        f"(?P<{name}>{'' if name == 'number' else _START}(?:{pattern}))"
        for name, pattern, _ in _RULES
    ),
    r"(?P<to>(?<=\d)(?:-|\s?\u2013\s?)(?=\d))",
    r"(?P<latin>(?<![A-Za-z])(?i:(?P<eg>e\.g)|i\.e)(?:\.|(?![A-Za-z])))",
    rf"(?P<bare>{_START}(?i:{_any(ABBREVIATIONS)}){_END}(?!'))",
    rf"(?P<capital>{_START}(?:{_any(CAPITAL_ABBREVIATIONS)})(?=\.))",
    rf"(?P<saint>{_START}(?:St(?=\.?\s+[A-Z])|Dr(?=\.?\s+[A-Z]|\.)|St(?=\.)){_END})",
    r"(?P<dotted>(?<![A-Za-z0-9.])[A-Za-z](?:\.[A-Za-z]){1,9}(?![A-Za-z]))",
    r"(?P<initial>(?<![A-Za-z'])[A-Z])(?=\.\s{0,2}[A-Za-z])",
    rf"(?P<roman>{_START}[IVXLC]{{1,8}}{_END}(?!'))",
    r"(?P<word>'?[A-Za-z]+(?:'[A-Za-z]+)*)",
    r"(?P<ellipsis>\.{2,}|\.(?:\s\.){1,20})",
    r"(?P<dash>-{2,}|(?<=\s)-(?=\s)|\u2014|\s\u2013\s|[()\[\]{}|])",
    r"(?P<stop>[.?!]+)",
    r"(?P<pause>[,;:])",
    r"(?P<sign>.)",
)
PATTERN = re.compile("|".join(_STRUCTURE), re.DOTALL)
"""One alternative for each kind of token; `re.Match.lastgroup` names the kind (it closes last)."""
