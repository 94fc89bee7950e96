"""Numbers as English words, in the American way: no "and" inside a number."""

from __future__ import annotations

__all__ = ["cardinal", "digits", "fraction", "number", "ordinal", "roman_value", "year"]

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (10**3, "thousand"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_MOST_DIGITS = 15
_ROMAN = (
    (1000, "M"),
    (900, "CM"),
    (500, "D"),
    (400, "CD"),
    (100, "C"),
    (90, "XC"),
    (50, "L"),
    (40, "XL"),
    (10, "X"),
    (9, "IX"),
    (5, "V"),
    (4, "IV"),
    (1, "I"),
)


def digits(text: str) -> str:
    """Digits one by one; other characters are left out."""
    return " ".join(_ONES[int(digit)] for digit in text if digit.isdigit())


def cardinal(value: int) -> str:
    """A whole number from 0 to below 10**15.

    >>> cardinal(1_234_005)
    'one million two hundred thirty four thousand five'
    """
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens, rest = divmod(value, 10)
        return _TENS[tens] + (f" {_ONES[rest]}" if rest else "")
    for size, name in (*_SCALES, (100, "hundred")):
        if value >= size:
            count, rest = divmod(value, size)
            return f"{cardinal(count)} {name}" + (f" {cardinal(rest)}" if rest else "")
    raise AssertionError(value)


def ordinal(value: int) -> str:
    """The place of a whole number.

    >>> ordinal(42)
    'forty second'
    """
    head, _, last = cardinal(value).rpartition(" ")
    if last in _ORDINALS:
        last = _ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return f"{head} {last}".strip()


def year(value: int) -> str:
    """A year from 1 to 9999.

    >>> year(1905), year(2000), year(2026)
    ('nineteen oh five', 'two thousand', 'twenty twenty six')
    """
    century, rest = divmod(value, 100)
    if value < 1000 or century % 10 == 0 and rest < 10:
        return cardinal(value)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def number(text: str) -> str:
    """A written number: commas and a decimal point allowed, no sign.

    Four digits without a comma from 1100 to 2099 are read as a year; a leading zero or more than 15
    digits make it digit by digit.

    >>> number("234.50"), number("007"), number("1999")
    ('two hundred thirty four point five zero', 'zero zero seven', 'nineteen ninety nine')
    """
    whole, point, decimals = text.replace(",", "").partition(".")
    if not whole:
        spoken = "" if point else "zero"
    elif len(whole) > _MOST_DIGITS or (whole[0] == "0" and len(whole) > 1):
        spoken = digits(whole)
    elif len(whole) == 4 and not point and "," not in text and "1100" <= whole <= "2099":
        spoken = year(int(whole))
    else:
        spoken = cardinal(int(whole))
    return f"{spoken} point {digits(decimals)}".strip() if decimals else spoken


def fraction(numerator: int, denominator: int) -> str:
    """A fraction; above 20 in the denominator it is read as "over".

    >>> fraction(3, 4), fraction(1, 2), fraction(22, 70)
    ('three quarters', 'one half', 'twenty two over seventy')
    """
    if not 2 <= denominator <= 20 or not 0 < numerator < denominator:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    if denominator == 2:
        return "one half"
    part = "quarter" if denominator == 4 else ordinal(denominator)
    return f"{cardinal(numerator)} {part}{'s' if numerator > 1 else ''}"


def roman_value(text: str) -> int | None:
    """Value of a well-formed capital Roman numeral, or None."""
    rest, value = text, 0
    for size, sign in _ROMAN:
        while rest.startswith(sign):
            rest, value = rest[len(sign) :], value + size
    return value if value and not rest and _to_roman(value) == text else None


def _to_roman(value: int) -> str:
    text = ""
    for size, sign in _ROMAN:
        count, value = divmod(value, size)
        text += sign * count
    return text
