"""Tables of what written English leaves unsaid: abbreviations, units, signs, names of months."""

from __future__ import annotations

__all__ = [
    "ABBREVIATIONS",
    "CAPITAL_ABBREVIATIONS",
    "CURRENCIES",
    "HEADINGS",
    "MONTHS",
    "NUMBERED_ABBREVIATIONS",
    "REGNAL_NAMES",
    "SCALES",
    "SENTENCE_OPENERS",
    "SIGNS",
    "TITLES",
    "UNITS",
]


def _table(text: str) -> dict[str, str]:
    return dict(part.strip().split(" ", 1) for part in text.split(",") if part.strip())


MONTHS = (
    "january february march april may june july august september october november december"
).split()
"""Names of the months."""

ABBREVIATIONS = _table(
    "mr mister, mrs missus, messrs messieurs, etc et cetera, vs versus, ltd limited, "
    "dept department, approx approximately, esq esquire, jr junior, sr senior, blvd boulevard, "
    "hwy highway, bros brothers, assn association, viz namely, inc incorporated, corp corporation"
)
"""Never words themselves: read out in any case, with or without the dot."""

CAPITAL_ABBREVIATIONS = _table(
    "Co company, Ave avenue, Mt mount, Ft fort, Rd road, Gen general, Col colonel, Capt captain, "
    "Lt lieutenant, Sgt sergeant, Cpl corporal, Maj major, Adm admiral, Cmdr commander, "
    "Rev reverend, Hon honorable, Gov governor, Sen senator, Rep representative, Prof professor, "
    "Pres president, Supt superintendent, Jan january, Feb february, Apr april, Aug august, "
    "Sept september, Oct october, Nov november, Dec december, Mon monday, Tues tuesday, "
    "Tue tuesday, Wed wednesday, Thurs thursday, Thur thursday, Thu thursday, Fri friday, "
    "Univ university"
)
"""Read out when written with a capital letter and a dot."""

TITLES = frozenset(
    "Mt Ft Gen Col Capt Lt Sgt Cpl Maj Adm Cmdr Rev Hon Gov Sen Rep Prof Pres Supt".split()
)
"""Capital abbreviations that a name follows: their dot never ends a sentence."""

NUMBERED_ABBREVIATIONS = _table(
    "no number, nos numbers, fig figure, figs figures, vol volume, vols volumes, ch chapter, "
    "pp pages, p page, sec section, art article, eq equation"
)
"""Read out when a dot and a number follow."""

HEADINGS = frozenset(
    "chapter part book volume act scene section appendix war phase type class grade level stage "
    "figure table article title lesson unit verse canto episode season psalm".split()
)
"""Words after which capital I, V, X and so on are numbers."""

REGNAL_NAMES = frozenset(
    "henry edward george william james charles louis philip richard elizabeth john paul benedict "
    "pius leo gregory catherine nicholas alexander frederick ferdinand francis napoleon peter ivan "
    "ptolemy ramses boniface innocent clement urban mary".split()
)
"""Names behind which a Roman number is an ordinal one."""

SENTENCE_OPENERS = frozenset(
    "the a an he she it they we you i this that these those there here but and so if when while "
    "what who how why where his her their our my its in on at as for after before then not no yes"
    "".split()
)
"""With a capital letter after "Inc." or "U.S.", these begin a new sentence."""

SCALES = {
    **{name: name for name in ("hundred", "thousand", "million", "billion", "trillion")},
    **_table("k thousand, K thousand, m million, M million, bn billion, B billion, T trillion"),
}
"""What stands behind a number to make it larger, and how it is said."""

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "\u00a3": ("pound", "pounds", "penny", "pence"),
    "\u20ac": ("euro", "euros", "cent", "cents"),
    "\u00a5": ("yen", "yen", "sen", "sen"),
}
"""One and several of each currency, and of its hundredth part."""

_UNIT_TEXT = (
    "m meter, km kilometer, cm centimeter, mm millimeter, nm nanometer, \u00b5m micrometer, "
    "g gram, kg kilogram, mg milligram, \u00b5g microgram, l liter, L liter, ml milliliter, "
    "mL milliliter, s second, sec second, secs second, ms millisecond, \u00b5s microsecond, "
    "min minute, mins minute, h hour, hr hour, hrs hour, V volt, mV millivolt, W watt, "
    "kW kilowatt, MW megawatt, kWh kilowatt hour, dB decibel, J joule, kJ kilojoule, Pa pascal, "
    "kPa kilopascal, cal calorie, kcal kilocalorie, B byte, KB kilobyte, kB kilobyte, "
    "MB megabyte, GB gigabyte, TB terabyte, kbps kilobit per second, Mbps megabit per second, "
    "Gbps gigabit per second, yd yard, yds yard, lb pound, lbs pound, oz ounce, px pixel, "
    "mi mile, ha hectare, t ton"
)
_FIXED_UNITS = _table(
    "Hz hertz, kHz kilohertz, MHz megahertz, GHz gigahertz, mph miles per hour, "
    "kph kilometers per hour, rpm revolutions per minute, fps frames per second, dpi dots per inch"
)


def _units() -> dict[str, tuple[str, str]]:
    units = {sign: (name, name) for sign, name in _FIXED_UNITS.items()}
    units |= {"ft": ("foot", "feet"), "\u00b0": ("degree", "degrees")}
    for sign, name in _table(_UNIT_TEXT).items():
        head, _, tail = name.partition(" per ")
        units[sign] = (name, f"{head}s per {tail}" if tail else f"{head}s")
    for sign, name in (("\u00b0C", "Celsius"), ("\u00b0F", "Fahrenheit")):
        units[sign] = (f"degree {name.lower()}", f"degrees {name.lower()}")
    for sign, per in (("/h", "hour"), ("/s", "second"), ("/min", "minute")):
        for base in ("km", "m", "mi", "ft", "l", "L", "MB", "GB", "kB", "g", "kg"):
            units[base + sign] = tuple(f"{name} per {per}" for name in units[base])  # type: ignore[assignment]
    for base in ("m", "km", "cm", "mm", "ft"):
        units[base + "\u00b2"] = tuple(f"square {name}" for name in units[base])  # type: ignore[assignment]
        units[base + "\u00b3"] = tuple(f"cubic {name}" for name in units[base])  # type: ignore[assignment]
    return units


UNITS: dict[str, tuple[str, str]] = _units()
"""Sign after a number to its name for one and for many."""

SIGNS = {
    "&": "and",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "%": "percent",
    "\u00b0": "degrees",
    "\u00b2": "squared",
    "\u00b3": "cubed",
    "\u00d7": "times",
    "\u00f7": "divided by",
    "\u00b1": "plus or minus",
    "\u2248": "approximately",
    "\u2264": "less than or equal to",
    "\u2265": "greater than or equal to",
    "\u2260": "is not equal to",
    "\u221a": "square root of",
    "\u221e": "infinity",
    "\u00a7": "section",
    "\u00a9": "copyright",
    "\u00b5": "micro",
    "$": "dollars",
    "\u00a3": "pounds",
    "\u20ac": "euros",
    "\u00a5": "yen",
    "\u00a2": "cents",
    "\\": "backslash",
}
"""Signs with one reading wherever they stand."""
