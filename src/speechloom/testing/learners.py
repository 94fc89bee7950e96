"""Running the checks of a learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from speechloom.container import save_audio
from speechloom.discovery import installed_entry_points
from speechloom.errors import UsageError
from speechloom.testing.checks.learning import LEARNER_CHECKS, LearnerSubject
from speechloom.testing.inputs import made_audio
from speechloom.testing.kit import CheckResult, reported, run_checks
from speechloom.training.example import Example
from speechloom.training.learner import Learner
from speechloom.training.learners import find_learner, find_learners, learner_class
from speechloom.training.spec import GROUP

__all__ = ["check_learner", "made_examples"]


def check_learner(
    target: str | type[Learner],
    examples: Sequence[Example],
    *,
    settings: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_fail: Literal["raise", "return"] = "raise",
) -> list[CheckResult]:
    """Run every check of a learner: a few steps, on the CPU, offline.

    Args:
        target: the id of an installed learner, or a class.
        examples: at least two, of different lengths; `made_examples` makes some.
        settings: of the recipe, such that the network is tiny.
        expected_failures: as `speechloom.testing.check_plugin` takes them.
        on_fail: ``raise``, or ``return`` the results without raising.

    Returns:
        One result for each check.

    Raises:
        ConformanceError: a check failed.
        PluginError: there is no such learner, or it cannot be imported.
        UsageError: the target is neither an id nor a learner's class, there are too few examples,
            or `expected_failures` names no check.
        pydantic.ValidationError: the settings are wrong.
    """
    if len(examples) < 2:
        raise UsageError(f"give at least two examples, of different lengths, not {len(examples)}")
    subject = _subject(target, tuple(examples), settings or {})
    results = run_checks(LEARNER_CHECKS, subject, expected_failures or {})
    name = target if isinstance(target, str) else subject.learner.__name__
    return reported(f"learner/{name}", results, on_fail)


def made_examples(folder: Path, count: int = 3, *, sample_rate: int = 16_000) -> list[Example]:
    """Write recordings of a second and more, and say what they are: two speakers of English.

    Give a learner that needs more what it needs, by `dataclasses.replace`: an ``alignment``, other
    texts, ``tags``.

    Args:
        folder: where the files go; it exists.
        count: how many.
        sample_rate: Hz.
    """
    examples = []
    for number in range(count):
        path = folder / f"made-{number}.wav"
        length = round((1.0 + 0.3 * number) * sample_rate)
        save_audio(made_audio(length, sample_rate, number=number), path)
        speaker = "bert" if number % 2 else "anna"
        text = TEXTS[number % len(TEXTS)]
        examples.append(Example(path, f"made-{number}", text, speaker, "en"))
    return examples


TEXTS = ("a bee", "sea and sand", "yes")


def _subject(
    target: str | type[Learner], examples: tuple[Example, ...], settings: Mapping[str, Any]
) -> LearnerSubject:
    if isinstance(target, type) and issubclass(target, Learner):
        return LearnerSubject(target, target.settings_type.model_validate(settings), examples)
    if not isinstance(target, str):
        raise UsageError(f"give the id of a learner, such as 'vits', or its class, not {target!r}")
    record = find_learner(target, find_learners())
    cls = learner_class(record)
    checked = cls.settings_type.model_validate(settings)
    return LearnerSubject(cls, checked, examples, record.spec, _module_of(target))


def _module_of(id: str) -> str:
    """The module that the entry point of an installed learner names."""
    points = installed_entry_points()
    (first, *_) = (point for point in points if point.group == GROUP and point.name == id)
    return first.value.partition(":")[0]
