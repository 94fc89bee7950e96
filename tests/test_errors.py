from __future__ import annotations

import inspect
import re

import pytest

from speechloom import errors
from speechloom.errors import (
    OutputError,
    PluginError,
    PluginNotFound,
    RoutingError,
    SpeechloomError,
    UsageError,
)

DRAWN = re.compile(r"^ *[│├└─ ]*(?P<name>[A-Z]\w+) *(?:\((?P<builtin>\w+)\))?  +\S")


def drawn_tree() -> dict[str, tuple[int, str | None]]:
    """Depth and built-in base of each error in the picture of the module docstring."""
    found = {}
    for line in (errors.__doc__ or "").splitlines():
        match = DRAWN.match(line)
        if match:
            found[match["name"]] = (match.start("name") // 4, match["builtin"])
    return found


def test_every_error_is_drawn_exported_and_in_the_tree() -> None:
    classes = {n for n, c in vars(errors).items() if inspect.isclass(c)}
    assert classes == set(errors.__all__) == set(drawn_tree())
    assert all(issubclass(getattr(errors, name), SpeechloomError) for name in classes)


@pytest.mark.parametrize(("name", "place"), drawn_tree().items())
def test_the_picture_shows_the_bases(name: str, place: tuple[int, str | None]) -> None:
    depth, builtin = place
    bases = [base.__name__ for base in getattr(errors, name).__bases__]
    ours = sum(issubclass(base, SpeechloomError) for base in getattr(errors, name).__mro__)
    assert ours == depth, "indented by another depth than it is derived"
    assert (builtin in bases) if builtin else len(bases) == 1


def test_usage_errors_are_value_errors_and_output_errors_are_os_errors() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(OutputError, OSError)


def test_plugin_errors_name_the_plugin() -> None:
    with pytest.raises(PluginError, match="no codec 'x'") as caught:
        raise PluginNotFound("there is no codec 'x'", plugin="codec/x")
    assert caught.value.plugin == "codec/x"
    with pytest.raises(TypeError, match="plugin"):
        PluginNotFound("which one?")  # type: ignore[call-arg]


def test_routing_errors_carry_their_reasons() -> None:
    assert RoutingError("none fits").reasons == ()
    assert RoutingError("none fits", reasons=("8 against 9",)).reasons == ("8 against 9",)
