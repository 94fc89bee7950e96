"""Written English to spoken English: the text as a careful reader would say it."""

from __future__ import annotations

from speechloom_starter.english.lexicon import load_lexicon
from speechloom_starter.english.scanner import scan
from speechloom_starter.english.sentences import render

__all__ = ["normalize"]


def normalize(text: str) -> str:
    """Spell out numbers, dates, money, units, abbreviations, signs and acronyms.

    Args:
        text: English in the Latin script, any case; accents are folded, emoji and ornaments are
            dropped, the scheme of a URL is not said.

    Returns:
        Lower-case words, the marks ``, ; : . ? !`` after them, blank lines between paragraphs and
        ``[[...]]`` as given; empty if there is nothing to say. Normalizing that again changes
        nothing.

    Raises:
        TextError: letters of another script, or a wrong ``[[...]]``.

    >>> normalize("Dr. Smith paid $3.50 on Nov 20, 2026.")
    'doctor smith paid three dollars fifty cents on november twentieth, twenty twenty six.'
    """
    return render(scan(text, load_lexicon()))
