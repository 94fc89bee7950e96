"""``speechloom train`` and ``speechloom export``: from a recipe to a package of one's own."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from speechloom.errors import SpeechloomError, UsageError

__all__ = ["export", "train"]


def train(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.")] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="Folder of the run; runs/NAME beside the recipe by default."),
    ] = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Stay on the CPU although there is a GPU.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing while it goes.")] = False,
    list_learners: Annotated[
        bool, typer.Option("--list", help="Show what can be trained, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train what a recipe says, or go on with it where it was stopped.

    With several GPUs or machines, run it under accelerate:
    accelerate launch -m speechloom train RECIPE.

    Ctrl-C saves and stops; the same command goes on. The exit status is then 128 and the signal.
    """
    if list_learners:
        _list(as_json=as_json)
        return
    if recipe is None:
        raise UsageError("give a recipe, or --list to see what can be trained")
    from speechloom.training.train import train as train_recipe

    try:
        outcome = train_recipe(recipe, run=run, cpu=cpu, quiet=quiet or as_json)
    except SpeechloomError:
        # The processes of one machine share a terminal, and all of them fail for one reason.
        if os.environ.get("LOCAL_RANK", "0") != "0":
            raise typer.Exit(1) from None
        raise
    if os.environ.get("RANK", "0") == "0":
        _report(outcome.run, outcome.step, outcome.signal, as_json=as_json)
    if outcome.signal:
        raise typer.Exit(128 + outcome.signal)


def _report(run: Path, step: int, signal: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"run": str(run), "step": step, "stopped_by_signal": signal}))
    elif signal:
        typer.echo(f"stopped and saved at step {step} in {run}; the same command goes on")
    else:
        typer.echo(f"done: {step} steps in {run}; `speechloom export {run} FOLDER --name NAME`")


def _list(*, as_json: bool) -> None:
    from speechloom.training.learners import find_learners

    records = find_learners()
    if as_json:
        rows = [
            {
                "id": record.id,
                "distribution": record.distribution,
                "summary": record.spec.summary if record.spec else None,
                "error": record.error,
            }
            for record in records
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    for record in records:
        summary = record.spec.summary if record.spec else ""
        typer.echo(f"{record.id}  ({record.distribution})  {record.error or summary}")
    if not records:
        typer.echo("no learner is installed; install a plugin that brings one")


def export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... FOLDER", help="Folders of runs, then that of the new package."
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="Of the distribution, such as speechloom-mine.")
    ],
    license: Annotated[
        str, typer.Option("--license", help="Licence of the weights: an SPDX id or a sentence.")
    ] = "not stated",
    version: Annotated[
        str, typer.Option("--version", help="Version of the distribution.")
    ] = "0.1.0",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Make a pip-installable package of one or more runs, with weights and a model card."""
    if len(paths) < 2:
        raise UsageError("give the folder of a run and the folder of the new package")
    from speechloom.training.export import export as export_runs

    *runs, folder = paths
    specs = export_runs(runs, folder, name=name, license=license, version=version)
    if as_json:
        ids = [{"kind": spec.kind, "id": spec.id} for spec in specs]
        typer.echo(json.dumps({"folder": str(folder), "components": ids}))
        return
    for spec in specs:
        typer.echo(f"{spec.kind} {spec.id}")
    # With its whole path: pip would look up a bare name on the package index.
    install = shlex.join(["pip", "install", str(folder.resolve())])
    typer.echo(f"`{install}` installs them; complete the model card, {folder / 'README.md'}")
