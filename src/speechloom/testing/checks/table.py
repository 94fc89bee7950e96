"""The table of checks, and what a check is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from speechloom.errors import SpeechloomError
from speechloom.spec import ComponentSpec, Kind
from speechloom.testing.inputs import Inputs

__all__ = ["Check", "NotApplicable", "Subject", "check", "checks_of", "refuses", "require"]

T = TypeVar("T")

TABLE: dict[str, Check] = {}


class NotApplicable(Exception):  # noqa: N818 - it is no error: the check has nothing to say
    """Raised by a check that does not apply; the message says why."""


@dataclass(frozen=True)
class Subject:
    """The component that is checked, and what to feed it.

    Attributes:
        component: an instance, as ``from_random`` or ``from_pretrained`` made it.
        inputs: where audio, phones and texts come from.
        spec_module: module whose import must be light; None when it is not known.
    """

    component: Any
    inputs: Inputs = field(default_factory=Inputs)
    spec_module: str | None = None

    @property
    def spec(self) -> ComponentSpec:
        """Its spec."""
        spec: ComponentSpec = self.component.spec
        return spec

    @property
    def facts(self) -> Any:
        """Its facts, of the type of its kind."""
        return self.spec.facts


@dataclass(frozen=True)
class Check:
    """One thing that a component must do.

    Attributes:
        name: public; it stays when the check is improved.
        kinds: kinds of component that it is for; empty for all.
        function: raises AssertionError when the component fails, `NotApplicable` when there is
            nothing to check.
    """

    name: str
    kinds: tuple[Kind, ...]
    function: Callable[[Any], None]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    def applies_to(self, kind: Kind) -> bool:
        """Whether it is for components of this kind."""
        return not self.kinds or kind in self.kinds

    def __call__(self, subject: Any) -> None:
        """Run it on a `Subject`, or on what the function takes in its place."""
        self.function(subject)


def check(*kinds: Kind) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Enter a function ``check_<name>`` in the table.

    Args:
        kinds: kinds that it is for; none means all.
    """

    def enter(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = function.__name__.removeprefix("check_")
        assert name not in TABLE, f"two checks are named {name}"
        TABLE[name] = Check(name, kinds, function)
        return function

    return enter


def checks_of(kind: Kind) -> tuple[Check, ...]:
    """The checks for components of one kind, those for every component first."""
    return tuple(entry for entry in TABLE.values() if entry.applies_to(kind))


def refuses(
    call: Callable[[], object], error: type[SpeechloomError], what: str, *parts: str
) -> None:
    """Assert that a call raises this error, with a message that names some things.

    Args:
        call: what must be refused.
        error: the error; a subclass of it is as good, anything else is not.
        what: what was asked, to complete "the component accepts ...".
        parts: what the message must contain.
    """
    try:
        call()
    except error as problem:
        message = str(problem)
    except Exception as problem:
        raise AssertionError(
            f"{what} must be refused with {error.__name__}, but raises "
            f"{type(problem).__name__}: {problem}"
        ) from problem
    else:
        raise AssertionError(f"{what} must be refused with {error.__name__}, but is accepted")
    missing = [part for part in parts if part not in message]
    assert not missing, f"the refusal of {what} does not name {', '.join(missing)}: {message}"


def require(value: T | None, why: str) -> T:
    """The value itself; the check does not apply where it is None."""
    if value is None:
        raise NotApplicable(why)
    return value
