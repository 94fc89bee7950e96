"""Base classes for pytest: subclass one, give a ``component`` fixture, inherit a test per check.

::

    class TestMyCodec(CodecConformance):
        @pytest.fixture
        def component(self) -> Codec:
            return MyCodec.from_random(SPEC)

The annotation lets a type checker prove that the class follows the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

from speechloom.spec import Kind
from speechloom.testing.checks import Check, NotApplicable, checks_of
from speechloom.testing.inputs import Inputs
from speechloom.testing.kit import refuse_unknown
from speechloom.testing.subjects import subject_for

__all__ = [
    "AlignerConformance",
    "CodecConformance",
    "FrontendConformance",
    "GeneratorConformance",
    "SpeakerEncoderConformance",
    "TokenizerConformance",
    "VocoderConformance",
]


class _Conformance:
    """What the seven share.

    Attributes:
        expected_failures: reason by name of a check that is known to fail; strict.
    """

    kind: ClassVar[Kind]
    expected_failures: ClassVar[Mapping[str, str]] = {}
    test_conformance: ClassVar[Callable[..., None]]

    def __init_subclass__(cls, kind: Kind | None = None) -> None:
        """Give the class of one kind its test, and check the names of expected failures."""
        if kind is not None:
            cls.kind = kind
            cls.test_conformance = _test_of(kind)
        refuse_unknown(cls.expected_failures, checks_of(cls.kind))

    @pytest.fixture
    def component(self) -> Any:
        """The component to be checked, tiny; to be overridden."""
        pytest.fail(f"{type(self).__name__} must override the fixture `component`")

    @pytest.fixture
    def inputs(self) -> Inputs:
        """What it is fed; override it where the component is particular."""
        return Inputs()

    def run(self, check: Check, component: Any, inputs: Inputs) -> None:
        """Run one check on the component.

        Args:
            check: the check.
            component: what is checked.
            inputs: what it is fed.
        """
        assert component.spec.kind == self.kind, f"this is a {component.spec.kind}"
        reason = self.expected_failures.get(check.name)
        try:
            check(subject_for(component, inputs=inputs))
        except NotApplicable as why:
            pytest.skip(str(why))
        except Exception as error:
            if reason is None:
                raise
            pytest.xfail(f"{reason} ({error})")
        if reason is not None:
            pytest.fail(f"it was expected to fail ({reason}), but passes: remove it")


def _test_of(kind: Kind) -> Any:
    """A test method that runs once for each check of a kind."""

    @pytest.mark.parametrize("check", checks_of(kind), ids=lambda entry: str(entry.name))
    def test_conformance(self: _Conformance, check: Check, component: Any, inputs: Inputs) -> None:
        """One check."""
        self.run(check, component, inputs)

    return test_conformance


class TokenizerConformance(_Conformance, kind="tokenizer"):
    """Every check for a tokenizer."""


class CodecConformance(_Conformance, kind="codec"):
    """Every check for a codec."""


class GeneratorConformance(_Conformance, kind="generator"):
    """Every check for a generator."""


class VocoderConformance(_Conformance, kind="vocoder"):
    """Every check for a vocoder."""


class FrontendConformance(_Conformance, kind="frontend"):
    """Every check for a front end."""


class SpeakerEncoderConformance(_Conformance, kind="speaker_encoder"):
    """Every check for a speaker encoder."""


class AlignerConformance(_Conformance, kind="aligner"):
    """Every check for an aligner."""
