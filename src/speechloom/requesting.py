"""From the arguments of a task to requests: every default filled in, every value checked.

What is wrong with a value is said here, before anything is loaded, in one sentence.
"""

from __future__ import annotations

import math
import numbers
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from speechloom.container import load_audio
from speechloom.errors import UsageError
from speechloom.spec import TASKS, Task
from speechloom.speech import Request
from speechloom.suggestions import did_you_mean

__all__ = ["STYLES", "Style", "check_request", "lexicon_of", "requests_of", "spans_of", "style_of"]

STYLES: Mapping[str, Mapping[str, float]] = {
    "normal": {},
    "slow": {"rate": 0.8},
    "fast": {"rate": 1.25},
}
"""Styles that have a name."""

Style = str | float | Mapping[str, float] | None
"""A named style, a speed factor, or controls by name."""

SLOWEST, FASTEST = 0.25, 4.0
"""Speed factors within which speech is still speech."""

SEEDS = 2**63
"""Seeds are int64 and not negative."""


def requests_of(
    task: Task, each: dict[str, Any], shared: dict[str, Any]
) -> tuple[list[Request], bool]:
    """One request per item of the lists among `each`; a single value goes to all.

    Args:
        task: which of the four.
        each: fields that may be lists; the first one says how many requests there are.
        shared: fields that are the same for all.

    Returns:
        The requests, and whether a list was given.

    Raises:
        UsageError: an empty list, lists of different lengths, or a seed that is none.
    """
    leading = next(iter(each))
    many = _is_list(each[leading])
    count = len(each[leading]) if many else 1
    if count == 0:
        raise UsageError(f"{leading} is an empty list; there is nothing to do")
    columns = {name: _column(name, value, count, many) for name, value in each.items()}
    columns["seed"] = [_seed(seed) for seed in columns["seed"]]
    for name in ("audio", "voice"):
        if name in columns:
            columns[name] = _readable_again(columns[name])
    rows = [{name: column[i] for name, column in columns.items()} for i in range(count)]
    return [Request(task=task, **row, **shared) for row in rows], many


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, tuple))


def _column(name: str, value: Any, count: int, many: bool) -> list[Any]:
    """The value of each request; a list of numbers is one voice, not many."""
    one_voice = name == "voice" and _is_list(value) and all(map(_is_number, value))
    if not many or one_voice or not _is_list(value):
        return [value] * count
    if len(value) != count:
        raise UsageError(f"{name} has {len(value)} items for {count} requests; give one each")
    return list(value)


def _seed(seed: Any) -> int:
    if seed is None:
        return secrets.randbelow(2**31)
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise UsageError(f"seed must be a whole number, but is {seed!r:.80}")
    return int(seed)


def _readable_again(sources: list[Any]) -> list[Any]:
    """Streams can be read once, and a request is read again for its record."""
    read: dict[int, Any] = {}
    for source in sources:
        is_stream = hasattr(source, "read") or (isinstance(source, str) and source == "-")
        if id(source) not in read:
            read[id(source)] = load_audio(source) if is_stream else source
    return [read[id(source)] for source in sources]


def style_of(style: Style) -> dict[str, float]:
    """Style controls by name.

    Raises:
        UsageError: no such style, or a control that is not a number.
    """
    if style is None:
        return {}
    if isinstance(style, str):
        if style not in STYLES:
            close = did_you_mean(style, STYLES)
            hint = f"; did you mean {close}?" if close else ""
            raise UsageError(
                f"no style is called {style!r}; the styles are {', '.join(STYLES)}{hint}"
            )
        return dict(STYLES[style])
    controls: Any = {"rate": style} if _is_number(style) else style
    if not isinstance(controls, Mapping):
        raise UsageError(
            f"style must be a name, a speed factor or controls by name, not {style!r:.80}"
        )
    for name, value in controls.items():
        if not _is_finite(value):
            raise UsageError(f"style {name} must be a number, but is {value!r:.80}")
    return {str(name): float(value) for name, value in controls.items()}


def lexicon_of(
    lexicon: Mapping[str, Sequence[str]] | None,
) -> Mapping[str, tuple[str, ...]] | None:
    """Pronunciations by lower-case word; phones may stand in one string, apart by spaces.

    Raises:
        UsageError: it is not of that form.
    """
    if lexicon is None:
        return None
    if not isinstance(lexicon, Mapping):
        raise UsageError(f"lexicon must map words to their phones, but is {lexicon!r:.80}")
    spelled = {}
    for word, phones in lexicon.items():
        listed = phones.split() if isinstance(phones, str) else phones
        if not isinstance(word, str) or not _are_words(listed):
            raise UsageError(f"lexicon entry {word!r:.40} must be a list of phones, not {phones!r}")
        spelled[word.lower()] = tuple(listed)
    return spelled


def _are_words(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(v, str) for v in value)


def spans_of(spans: Any) -> tuple[tuple[float, float, str], ...]:
    """Spans as (start, end, new words).

    Raises:
        UsageError: one is not of that form.
    """
    checked = []
    if not isinstance(spans, Iterable):
        raise UsageError(f"spans must be a list of (start, end, new words), not {spans!r:.80}")
    for span in spans:
        whole = isinstance(span, (tuple, list)) and len(span) == 3
        if not whole or not _is_finite(span[0]) or not _is_finite(span[1]):
            raise UsageError(
                f"a span must be (start, end, new words) with times in seconds, not {span!r:.80}"
            )
        if not isinstance(span[2], str):
            raise UsageError(f"the new words of a span must be text, but are {span[2]!r:.80}")
        checked.append((float(span[0]), float(span[1]), span[2]))
    return tuple(checked)


def _is_number(value: Any) -> bool:
    return isinstance(value, (numbers.Real, np.number)) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return _is_number(value) and math.isfinite(value)
    except OverflowError:  # an integer that no float holds
        return False


# What goes together -----------------------------------------------------------------------


def check_request(request: Request) -> None:
    """Refuse a request that lacks what its task needs, before anything is loaded.

    Raises:
        UsageError: what is missing, out of range or does not go together.
    """
    if request.task not in TASKS:
        raise UsageError(f"no task is called {request.task!r}; the tasks are {', '.join(TASKS)}")
    _check_texts(request)
    _check_what_is_there(request)
    if request.task == "edit":
        _check_edit(request)
    _check_numbers(request)


def _check_texts(request: Request) -> None:
    for name in ("text", "new_text"):
        value = getattr(request, name)
        if value is not None and not isinstance(value, str):
            raise UsageError(f"{name} must be text, but is {value!r:.80}")


def _check_what_is_there(request: Request) -> None:
    task = request.task
    if task == "synthesize" and request.text is None:
        raise UsageError("synthesize needs a text")
    if task == "synthesize" and request.audio is not None:
        raise UsageError("synthesize takes no recording; give it as voice= to speak like it")
    if task != "synthesize" and request.audio is None:
        raise UsageError(f"{task} needs a recording")


def _check_edit(request: Request) -> None:
    has_texts = request.text is not None or request.new_text is not None
    if bool(request.spans) == has_texts:
        raise UsageError(
            "edit needs either the transcript as it is and as it should be (text, new_text), or "
            "spans in seconds with their new words"
        )
    if has_texts and request.text is None:
        raise UsageError("edit needs the transcript of the recording as it is (text)")
    if has_texts and request.new_text is None:
        raise UsageError("edit needs the transcript as it should be (new_text)")
    spans_of(request.spans)


def _check_numbers(request: Request) -> None:
    if not isinstance(request.seed, numbers.Integral) or not 0 <= request.seed < SEEDS:
        raise UsageError(f"seed must be a whole number from 0 to 2**63 - 1, not {request.seed!r}")
    if not isinstance(request.style, Mapping):
        raise UsageError(f"style of a request must be controls by name, not {request.style!r:.80}")
    rate = style_of(request.style).get("rate", 1.0)
    if not SLOWEST <= rate <= FASTEST:
        raise UsageError(f"rate must lie between {SLOWEST:g} and {FASTEST:g}, but is {rate:g}")
    if not _is_finite(request.temperature) or request.temperature < 0:
        raise UsageError(f"temperature must be 0 or more, but is {request.temperature!r:.80}")
    if request.seconds is None:
        return
    if not _is_finite(request.seconds) or request.seconds <= 0:
        raise UsageError(f"seconds must be more than 0, but is {request.seconds!r:.80}")
