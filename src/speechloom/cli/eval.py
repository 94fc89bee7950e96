"""``speechloom eval``: judge what the pipeline makes, or recordings that exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speechloom.eval import CaseResult, EvalCase, EvalPipeline, Report

__all__ = ["eval_command"]


def eval_command(
    cases: Annotated[Path, typer.Argument(help="Cases, one JSON object a line.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the report as JSON to this file."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="A metric to compute; repeat for more."),
    ] = None,
    voice: Annotated[
        str | None,
        typer.Option("--voice", help="Voice of the cases that name none: a file or a name."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", help="Draw a picture of each result into this folder."),
    ] = None,
    keep_audio: Annotated[
        Path | None,
        typer.Option("--keep-audio", help="Keep each result as a wav in this folder."),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="Where the models run: cpu or cuda.")
    ] = "cpu",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON instead of a table.")
    ] = False,
) -> None:
    """Measure speech: word errors, speaker, intelligibility, quality, pitch, speed, memory.

    Cases that name an audio_result are only judged; the others are made by the installed voice.
    The exit status is 1 when a case failed.
    """
    from speechloom.eval import evaluate, read_cases

    found = read_cases(cases, voice=voice)
    report = evaluate(
        found,
        pipeline=_pipeline_for(found, device),
        metrics=metric,
        out=output,
        keep_audio=keep_audio,
        plots=plots,
        progress=_show_failure,
    )
    _print_report(report, as_json=as_json)
    if report.failed:
        raise typer.Exit(1)


def _pipeline_for(cases: tuple[EvalCase, ...], device: str) -> EvalPipeline | None:
    """The default pipeline; None when nothing is to be made."""
    if all(case.audio_result is not None for case in cases):
        return None
    from speechloom.pipeline import Pipeline

    return Pipeline(device=device)


def _show_failure(case: CaseResult) -> None:
    if case.error is not None:
        typer.echo(f"{case.id}: {case.error}", err=True)


def _print_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1))
        return
    from rich.console import Console

    Console().print(report.table())
    for name, reason in report.not_installed.items():
        typer.echo(f"{name}: {reason}")
