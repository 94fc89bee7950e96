"""What to say when nothing has the name that was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from speechloom.records import PluginRecord
from speechloom.spec import Kind

__all__ = ["did_you_mean", "not_found"]

HOME_PLUGINS = ("starter", "speechsec", "dac", "hubert")
"""Plugins of this project; an id that begins with one of these names says what to install."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """The known name that is closest to a misspelt one, if any is close."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def not_found(kind: Kind, id: str, records: Sequence[PluginRecord]) -> str:
    """One sentence for an id that no component of the kind has."""
    elsewhere = sorted({r.kind for r in records if id in (r.id, r.full_id)})
    if elsewhere:
        return f"{id!r} is {_article(' and a '.join(elsewhere))}, not {_article(kind)}"
    ids = sorted({record.id for record in records if record.kind == kind})
    full_ids = {record.full_id for record in records if record.kind == kind}
    message = f"no {kind} has the id {id!r}"
    close = did_you_mean(id, [*ids, *full_ids])
    if close:
        message += f"; did you mean {close!r}?"
    elif ids:
        message += f"; installed are {', '.join(ids)}"
    else:
        message += f"; no {kind} is installed"
    return message + _install_hint(id)


def _install_hint(id: str) -> str:
    """Only names of our own are guessed: a guessed stranger could be anybody's package."""
    home = next((name for name in HOME_PLUGINS if id.startswith(name)), None)
    if home is not None:
        return f" (`pip install speechloom-{home}` may provide it)"
    return " (install the plugin that provides it; `speechloom plugins list` shows what is here)"


def _article(word: str) -> str:
    readable = word.replace("_", " ")
    return f"an {readable}" if readable[0] in "aeiou" else f"a {readable}"
