"""The ``speechloom`` command. Thin: every command is a few lines over the Python API.

Torch is imported only by the commands that run a model.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from speechloom.cli import batch, codec, eval, models, plugins, tasks, train
from speechloom.errors import SpeechloomError, UsageError
from speechloom.hooks import default_hooks

__all__ = ["app", "main"]

app = typer.Typer(
    name="speechloom",
    help="Synthesize, edit, continue and convert speech with interchangeable parts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("synthesize")(tasks.synthesize)
app.command("edit")(tasks.edit)
app.command("continue")(tasks.continue_)
app.command("convert")(tasks.convert)
app.command("plan")(tasks.plan)
app.command("replay")(tasks.replay)
app.command("tokens")(codec.tokens)
app.command("batch")(batch.batch)
app.command("eval")(eval.eval_command)
app.command("train")(train.train)
app.command("export")(train.export)
app.add_typer(codec.app, name="codec")
app.add_typer(models.app, name="models")
app.add_typer(plugins.app, name="plugins")


def _show_version(value: bool) -> None:
    if value:
        import importlib.metadata

        typer.echo(f"speechloom {importlib.metadata.version('speechloom')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Run the command; an error of ours is one line on standard error.

    Exit codes: 0 done, 2 the request was wrong, 1 something else failed, 130 interrupted.
    ``SPEECHLOOM_TRACE=1`` shows the traceback instead.
    """
    try:
        default_hooks().register_commands(app)
        app()
    except SpeechloomError as error:
        if os.environ.get("SPEECHLOOM_TRACE") == "1":
            raise
        message = " ".join(str(error).split())
        print(f"speechloom: {message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("speechloom: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe went away; that is its right. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
