"""The hooks that a plugin may implement. This is the whole contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import typer

    from speechloom.speech import Request, Speech

__all__ = ["PREFIX", "HookSpecs", "hookimpl"]

PREFIX = "speechloom_"
"""What the name of every hook begins with."""

hookspec = pluggy.HookspecMarker("speechloom")
hookimpl = pluggy.HookimplMarker("speechloom")
"""Marks a function of a plugin as an implementation of the hook of the same name."""


class HookSpecs:
    """An implementation may take fewer arguments, in any order."""

    @hookspec
    def speechloom_register_commands(self, app: typer.Typer) -> None:
        """Add commands to ``speechloom``; called once, when the command line starts."""

    @hookspec
    def speechloom_before_task(self, request: Request) -> None:
        """A request was accepted and is about to run; raise to refuse it."""

    @hookspec
    def speechloom_after_task(self, request: Request, speech: Speech) -> None:
        """A request is done; `speech` is what the caller gets."""

    @hookspec
    def speechloom_progress(self, event: Any) -> None:
        """A step of the work is done."""

    @hookspec(firstresult=True)
    def speechloom_router_policy(self, chains: Sequence[Any]) -> Sequence[Any] | None:
        """Order the chains that can do a request, best first; None leaves it to others."""
