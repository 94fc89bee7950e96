"""How each kind of written expression is said: one small function for each rule of the scanner.

Every function takes the match of its pattern in `patterns` and returns lower-case words with
commas where the voice pauses.
"""

from __future__ import annotations

import re

from speechloom_starter.english.numbers import (
    cardinal,
    digits,
    fraction,
    number,
    ordinal,
    year,
)
from speechloom_starter.english.words import (
    ABBREVIATIONS,
    CURRENCIES,
    MONTHS,
    NUMBERED_ABBREVIATIONS,
    SCALES,
    UNITS,
)

Match = re.Match[str]

_ADDRESS_SIGNS = {
    ".": "dot",
    "@": "at",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    ":": "colon",
    "?": "question mark",
    "&": "and",
    "=": "equals",
    "#": "hash",
    "%": "percent",
    "+": "plus",
    "~": "tilde",
}


def spell(letters: str) -> str:
    """Letters one by one, digits too."""
    return " ".join(digits(letter) if letter.isdigit() else letter for letter in letters.lower())


def address(match: Match) -> str:
    """URL, domain or e-mail: its scheme is left unsaid, "www" is spelled."""
    text = re.sub(r"^[a-z]+://", "", match.group(), flags=re.IGNORECASE)
    parts = re.findall(r"[A-Za-z]+|\d+|[^A-Za-z\d]", text)
    spoken = (_address_part(part) for part in parts)
    return " ".join(part for part in spoken if part)


def _address_part(part: str) -> str:
    if part.isdigit():
        return digits(part) if len(part) > 4 else number(part)
    if part.isalpha():
        unsaid = part.lower() in ABBREVIATIONS or not re.search("[aeiouy]", part.lower())
        return spell(part) if unsaid else part.lower()
    return _ADDRESS_SIGNS.get(part, "")


def date_iso(match: Match) -> str:
    """2026-11-20."""
    return _date(match["iso_year"], int(match["iso_month"]), int(match["iso_day"]))


def date_us(match: Match) -> str:
    """11/20/2026, month first."""
    return _date(match["us_year"], int(match["us_month"]), int(match["us_day"]))


def date_eu(match: Match) -> str:
    """20/11/2026, which cannot be month first."""
    return _date(match["eu_year"], int(match["eu_month"]), int(match["eu_day"]))


def date_words(match: Match) -> str:
    """Nov 20, 2026."""
    return _date(match["md_year"] or "", month_number(match["md_month"]), int(match["md_day"]))


def date_day_first(match: Match) -> str:
    """20 November 2026."""
    month = MONTHS[month_number(match["dm_month"]) - 1]
    tail = f" {_year(match['dm_year'])}" if match["dm_year"] else ""
    return f"the {ordinal(int(match['dm_day']))} of {month}{tail}"


def month_number(text: str) -> int:
    """1 to 12 for a month's name or its first three letters."""
    return [name[:3] for name in MONTHS].index(text[:3].lower()) + 1


def _date(written_year: str, month: int, day: int) -> str:
    tail = f", {_year(written_year)}" if written_year else ""
    return f"{MONTHS[month - 1]} {ordinal(day)}{tail}"


def _year(text: str) -> str:
    if len(text) == 2:
        return f"oh {digits(text[1])}" if text[0] == "0" else number(text)
    return year(int(text)) if text[0] != "0" else digits(text)


def phone_number(match: Match) -> str:
    """Digit by digit, a pause between groups."""
    plus = "plus " if match.group().startswith("+") else ""
    return plus + ", ".join(digits(group) for group in re.findall(r"\d+", match.group()))


def clock(match: Match) -> str:
    """10:30, 10:30:15, 5 pm."""
    hour = int(match["hour"])
    minute = match["minute"] or ""
    half = match["half"] or match["half_only"] or ""
    spoken = cardinal(hour)
    if minute and minute != "00":
        spoken += " oh" if minute[0] == "0" else ""
        spoken += f" {cardinal(int(minute))}"
    elif minute and not half:
        spoken += " o'clock" if 1 <= hour <= 12 else " hundred"
    if match["second"]:
        spoken += f" and {_count(int(match['second']), 'second')}"
    return f"{spoken} {half[0].lower()} m" if half else spoken


def money(match: Match) -> str:
    """$3.50, 5 EUR signs, $2 million."""
    sign = match["currency"] or match["currency_after"]
    amount = match["amount"] or match["amount_before"]
    scale = match["scale"] or match["scale_before"]
    one, many, small_one, small_many = CURRENCIES[sign]
    if match["country"]:
        one, many = (f"{spell(match['country'])} {name}" for name in (one, many))
    minus = "minus " if match.group().startswith("-") else ""
    if scale:
        return f"{minus}{quantity(amount)} {SCALES.get(scale, scale.lower())} {many}"
    whole, _, rest = amount.partition(".")
    if len(rest) != 2:
        return f"{minus}{quantity(amount)} {one if amount == '1' else many}"
    parts = (
        [] if whole.strip("0,") == "" else [f"{quantity(whole)} {one if whole == '1' else many}"]
    )
    if rest != "00" or not parts:
        parts.append(f"{cardinal(int(rest))} {small_one if rest == '01' else small_many}")
    return minus + " ".join(parts)


def quantity(text: str) -> str:
    """A number that is no year: 1500 is one thousand five hundred."""
    plain = text.replace(",", "")
    return (
        cardinal(int(plain))
        if len(plain) == 4 and plain[0] != "0" and plain.isdigit()
        else number(text)
    )


def measure(match: Match) -> str:
    """5 km, 20 degrees, 3.5 %."""
    one, many = UNITS[match["unit"]]
    value = match["measured"]
    return f"{signed(value, as_year=False)} {one if value in ('1', '-1') else many}"


def signed(text: str, *, as_year: bool = True) -> str:
    """A number with or without a minus."""
    plain = text.lstrip("-")
    spoken = number(plain) if as_year else quantity(plain)
    return f"minus {spoken}" if text.startswith("-") else spoken


def plain_number(match: Match) -> str:
    """-5, 1,234, .5."""
    return signed(match.group())


def version(match: Match) -> str:
    """1.2.3."""
    return " point ".join(number(part) for part in match.group().split("."))


def ordinal_number(match: Match) -> str:
    """21st; past 15 digits the ending is spelled."""
    text = match["ordinal"].replace(",", "")
    return ordinal(int(text)) if len(text) <= 15 else f"{digits(text)} {spell(match.group()[-2:])}"


def decade(match: Match) -> str:
    """1990s, '80s."""
    text = match["tens"]
    spoken = year(int(text)) if len(text) == 4 else cardinal(int(text))
    return spoken[:-1] + "ies" if spoken.endswith("y") else spoken + "s"


def mixed_fraction(match: Match) -> str:
    """3/4, 2 1/2."""
    whole, top, bottom = match["whole"], match["top"], match["bottom"]
    part = fraction(int(top), int(bottom))
    if not whole:
        return part
    return f"{number(whole)} and {'a half' if part == 'one half' else part}"


def numbered(match: Match) -> str:
    """The "No." of "No. 5"."""
    return NUMBERED_ABBREVIATIONS[match["numbered"].lower()]


def firm(match: Match) -> str:
    """AT&T, R&D."""
    return " and ".join(spell(letters) for letters in match.group().split("&"))


def _count(value: int, name: str) -> str:
    return f"{cardinal(value)} {name}{'' if value == 1 else 's'}"
