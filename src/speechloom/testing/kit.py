"""Running the checks: from a program, or spread over pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from speechloom.errors import PluginError, SpeechloomError, UsageError
from speechloom.registry import Registry, default_registry
from speechloom.spec import ComponentSpec
from speechloom.testing.checks import Check, NotApplicable, Subject, checks_of
from speechloom.testing.inputs import Inputs
from speechloom.testing.subjects import spec_of, subject_for

if TYPE_CHECKING:
    import pytest

__all__ = [
    "BoundCheck",
    "CheckResult",
    "ConformanceError",
    "check_plugin",
    "iter_checks",
    "parametrize_with_checks",
    "refuse_unknown",
    "reported",
    "run_checks",
]

BUILT = "can_be_built"
"""Name of the result that says whether there is anything to check."""

Outcome = Literal["passed", "failed", "skipped", "expected"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: of the check.
        status: ``passed``; ``failed``; ``skipped``, it does not apply; or ``expected``, it failed
            as the caller said that it would.
        detail: why; empty when it passed.
    """

    name: str
    status: Outcome
    detail: str = ""


class ConformanceError(PluginError, AssertionError):
    """A component fails checks.

    Attributes:
        plugin: its ``kind/id``.
        results: of all checks.
    """

    def __init__(self, plugin: str, results: Sequence[CheckResult]) -> None:
        self.results = tuple(results)
        failed = [result for result in results if result.status == "failed"]
        lines = [f"\n  {result.name}: {result.detail}" for result in failed]
        super().__init__(
            f"{plugin} fails {len(failed)} of {len(results)} checks:{''.join(lines)}",
            plugin=plugin,
        )


@dataclass(frozen=True)
class BoundCheck:
    """A check with the component that it is for; call it with no arguments.

    Attributes:
        check: the check.
        subject: gives the component; built when the first of its checks runs.
    """

    check: Check
    subject: Callable[[], Subject]

    @property
    def name(self) -> str:
        """Name of the check."""
        return self.check.name

    def __call__(self) -> None:
        """Run it."""
        self.check(self.subject())

    def __repr__(self) -> str:
        return self.name


def check_plugin(
    target: ComponentSpec | str | Any,
    *,
    registry: Registry | None = None,
    inputs: Inputs | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_fail: Literal["raise", "return"] = "raise",
) -> list[CheckResult]:
    """Run every check that applies to a component, tiny and random, offline.

    Args:
        target: a spec, whose implementation is built with ``from_random(spec, seed=0)``; a
            component; or ``kind/id`` in the registry.
        registry: where ``kind/id`` and the front ends that know an alphabet are looked up; the
            process's own by default.
        inputs: what to feed it.
        expected_failures: reason by name of a check that is known to fail. One that passes all
            the same is a failure, so that the list stays true.
        on_fail: ``raise``, or ``return`` the results without raising.

    Returns:
        One result for each check, after ``can_be_built``, which is alone where it failed.

    Raises:
        ConformanceError: a check failed; it is a `PluginError` and an AssertionError.
        PluginError: there is no such plugin.
        UsageError: `expected_failures` names a check that does not exist.
    """
    registry = registry or default_registry()
    spec, expected = spec_of(target, registry), dict(expected_failures or {})
    checks = checks_of(spec.kind)
    refuse_unknown(expected, checks)
    try:
        subject = subject_for(target, registry=registry, inputs=inputs)
    except Exception as error:
        results = [CheckResult(BUILT, "failed", _described(error))]
    else:
        results = [CheckResult(BUILT, "passed"), *run_checks(checks, subject, expected)]
    return reported(f"{spec.kind}/{spec.id}", results, on_fail)


def iter_checks(
    target: ComponentSpec | str | Any,
    *,
    registry: Registry | None = None,
    inputs: Inputs | None = None,
) -> Iterator[BoundCheck]:
    """The checks of a component, to be called one by one; it is built by the first.

    Args:
        target: as `check_plugin` takes it.
        registry: as `check_plugin` takes it.
        inputs: what to feed it.
    """
    registry = registry or default_registry()
    spec = spec_of(target, registry)
    subject = cache(lambda: subject_for(target, registry=registry, inputs=inputs))
    for entry in checks_of(spec.kind):
        yield BoundCheck(entry, subject)


def parametrize_with_checks(
    target: ComponentSpec | str | Any,
    *,
    registry: Registry | None = None,
    inputs: Inputs | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> pytest.MarkDecorator:
    """Make a pytest test of one argument ``check`` run once for each check.

    ::

        @parametrize_with_checks(SPEC)
        def test_conformance(check):
            check()

    Args:
        target: as `check_plugin` takes it.
        registry: as `check_plugin` takes it.
        inputs: what to feed it.
        expected_failures: become strict xfails.

    Raises:
        UsageError: `expected_failures` names a check that does not exist.
    """
    import pytest

    expected = dict(expected_failures or {})
    bound = list(iter_checks(target, registry=registry, inputs=inputs))
    refuse_unknown(expected, [one.check for one in bound])
    params = [
        pytest.param(
            _Pytest(one),
            id=one.name,
            marks=[pytest.mark.xfail(reason=expected[one.name], strict=True)]
            if one.name in expected
            else [],
        )
        for one in bound
    ]
    return pytest.mark.parametrize("check", params)


class _Pytest:
    """A bound check that skips the pytest test where it does not apply."""

    def __init__(self, bound: BoundCheck) -> None:
        self.name = bound.name
        self._bound = bound

    def __call__(self) -> None:
        import pytest

        try:
            self._bound()
        except NotApplicable as reason:
            pytest.skip(str(reason))


def run_checks(
    checks: Sequence[Check], subject: Any, expected: Mapping[str, str]
) -> list[CheckResult]:
    """Run checks one after the other; none stops the others.

    Args:
        checks: to be run.
        subject: what they take.
        expected: reason by name of a check that is known to fail.

    Raises:
        UsageError: `expected` names a check that does not exist.
    """
    refuse_unknown(expected, checks)
    return [_run(entry, subject, expected.get(entry.name)) for entry in checks]


def reported(
    plugin: str, results: list[CheckResult], on_fail: Literal["raise", "return"]
) -> list[CheckResult]:
    """The results themselves.

    Raises:
        ConformanceError: `on_fail` is ``raise``, and a check failed.
    """
    if on_fail == "raise" and any(result.status == "failed" for result in results):
        raise ConformanceError(plugin, results)
    return results


def refuse_unknown(expected: Mapping[str, str], checks: Sequence[Check]) -> None:
    """Refuse names of checks that do not exist.

    Args:
        expected: reasons by name.
        checks: those that exist.

    Raises:
        UsageError: a name is not among them.
    """
    names = [entry.name for entry in checks]
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise UsageError(
            f"expected_failures names {', '.join(unknown)}, but the checks are {', '.join(names)}"
        )


def _run(entry: Check, subject: Any, expected: str | None) -> CheckResult:
    """Run one check; whatever it raises is a finding."""
    try:
        entry(subject)
    except NotApplicable as reason:
        return CheckResult(entry.name, "skipped", str(reason))
    except Exception as error:
        detail = _described(error)
        if expected is None:
            return CheckResult(entry.name, "failed", detail)
        return CheckResult(entry.name, "expected", f"{expected} ({detail})")
    if expected is not None:
        return CheckResult(
            entry.name, "failed", f"it was expected to fail ({expected}), but passes: remove it"
        )
    return CheckResult(entry.name, "passed")


def _described(error: Exception) -> str:
    """Our own sentences stand for themselves; what others say is named."""
    ours = isinstance(error, (AssertionError, SpeechloomError))
    return str(error) if ours else f"{type(error).__name__}: {error}"
