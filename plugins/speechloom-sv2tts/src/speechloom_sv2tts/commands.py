"""``speechloom sv2tts``: the three networks, one after the other.

The command line imports this each time it starts: what runs a model is imported inside.
"""

from __future__ import annotations

import typer

from speechloom.hookspecs import hookimpl

__all__ = ["speechloom_register_commands", "sv2tts"]

sv2tts = typer.Typer(
    help="SV2TTS: speaker encoder, Tacotron 2, vocoder.", no_args_is_help=True
)


@hookimpl
def speechloom_register_commands(app: typer.Typer) -> None:
    """Add ``speechloom sv2tts``."""
    app.add_typer(sv2tts, name="sv2tts")
