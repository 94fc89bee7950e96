"""``speechloom plugins``: list, info, table, check, doctor, new. None of them imports torch."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speechloom.checking import CheckRow, check_component
from speechloom.compatibility import compatibility_table, specs_in_folder
from speechloom.doctor import Level, examine
from speechloom.errors import PluginNotFound, UsageError
from speechloom.hooks import HookRecord, Hooks, default_hooks
from speechloom.records import PluginRecord, Status
from speechloom.registry import Registry, default_registry
from speechloom.scaffold import create
from speechloom.spec import KINDS, Kind
from speechloom.suggestions import did_you_mean

__all__ = ["app"]

WIDTH_WITHOUT_TERMINAL = 160

app = typer.Typer(
    name="plugins",
    help="List, examine, check and start plugins.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

KindOption = Annotated[
    str | None, typer.Option("--kind", help=f"Only this kind: {', '.join(KINDS)}.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("list")
def list_plugins(
    kind: KindOption = None,
    as_json: JsonOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Show the disabled ones, too.")] = False,
) -> None:
    """List what is installed; problems are named below the table."""
    records = [
        record
        for record in default_registry().records(_kind(kind))
        if everything or record.status is not Status.disabled
    ]
    hooks = [] if kind else list(default_hooks().records())
    if as_json:
        _print_json(
            {"components": [_facts(r) for r in records], "hooks": [_hook_facts(h) for h in hooks]}
        )
        return
    _console().print(_table(records))
    for hook in hooks:
        if hook.status is Status.loaded:
            typer.echo(f"hook plugin {hook.name} ({hook.distribution}): {', '.join(hook.hooks)}")
    _show_problems([(record.status, record.error) for record in records])
    _show_problems([(hook.status, hook.error) for hook in hooks], "Hook plugins not usable:")


@app.command()
def info(
    id: Annotated[str, typer.Argument(help="An id, or distribution:id.")],
    kind: KindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show all that a component says of itself, and what is wrong with it."""
    records = _named(default_registry(), id, _kind(kind))
    if as_json:
        _print_json([_facts(record) for record in records])
        return
    for record in records:
        for name, value in _facts(record).items():
            if value not in (None, "", [], {}):
                typer.echo(f"{name.replace('_', ' '):>16}  {_readable(value)}")
        typer.echo("")


@app.command()
def table(
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Plugins' source folders, instead of what is installed."),
    ] = None,
) -> None:
    """Print, as Markdown, which tokenizer, codec and generator go together for which task."""
    if folder is not None:
        typer.echo(compatibility_table(specs_in_folder(folder)), nl=False)
        return
    # What a component could do does not depend on whether its backend is installed here.
    records = [r for r in default_registry().records() if r.status is not Status.disabled]
    specs = {kind: [r.spec for r in records if r.kind == kind and r.spec] for kind in KINDS}
    typer.echo(compatibility_table(specs), nl=False)


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="An id, distribution:id, or module:Class.")],
    kind: KindOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the conformance checks; ends with code 1 when one fails."""
    rows = [
        row for name, one in _targets(target, _kind(kind)) for row in check_component(name, one)
    ]
    if as_json:
        _print_json([row.__dict__ for row in rows])
    else:
        _show_checks(rows)
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(1)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Look for what is broken in this installation; ends with code 1 when something is."""
    environ = {k: v for k, v in os.environ.items() if k != "SPEECHLOOM_STRICT_PLUGINS"}
    findings = examine(Registry(environ=environ), Hooks(environ=environ))
    if as_json:
        _print_json([finding.__dict__ for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.level.value:>7}  {finding.name}: {finding.detail}")
            if finding.cure:
                typer.echo(f"{'cure':>7}  {finding.cure}")
    if any(finding.level is Level.problem for finding in findings):
        raise typer.Exit(1)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Id of the component, such as my-codec.")],
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where the package's folder is made.")
    ] = Path(),
) -> None:
    """Start a plugin package with a small working component and passing tests."""
    checked = _kind(kind)
    assert checked is not None
    folder = create(checked, name, directory)
    typer.echo(
        f"made {folder}; next:\n  cd {folder}\n  pip install -e '.[test]'\n  pytest\n"
        f"  speechloom plugins check {name}"
    )


def _kind(name: str | None) -> Kind | None:
    if name is None:
        return None
    wanted = name.replace("-", "_")
    for kind in KINDS:
        if kind == wanted:
            return kind
    close = did_you_mean(wanted, KINDS)
    hint = f"did you mean {close!r}?" if close else f"kinds are {', '.join(KINDS)}"
    raise UsageError(f"there is no kind {name!r} of component; {hint}")


def _named(registry: Registry, id: str, kind: Kind | None) -> list[PluginRecord]:
    """Every component of that id; two kinds may each have one."""
    records = registry.records(kind)
    found = [record for record in records if id in (record.id, record.full_id)]
    if found:
        return found
    close = did_you_mean(id, [name for r in records for name in (r.id, r.full_id)])
    hint = f"did you mean {close!r}?" if close else "`speechloom plugins list` shows what is here"
    raise PluginNotFound(f"no {kind or 'component'} has the id {id!r}; {hint}", plugin=id)


def _targets(target: str, kind: Kind | None) -> list[tuple[str, PluginRecord | None]]:
    """What to check: installed components, or a class that need not be installed."""
    module, _, attribute = target.partition(":")
    known = any(target == record.full_id for record in default_registry().records(kind))
    if attribute and not known and all(part.isidentifier() for part in module.split(".")):
        return [(target, None)]
    return [(r.full_id, r) for r in _named(default_registry(), target, kind)]


def _show_checks(rows: list[CheckRow]) -> None:
    for row in rows:
        detail = f": {row.detail}" if row.detail else ""
        typer.echo(f"{row.status:>7}  {row.component}  {row.name}{detail}")
    count = {status: sum(row.status == status for row in rows) for status in CheckRow.STATUSES}
    typer.echo(", ".join(f"{number} {status}" for status, number in count.items()))


def _show_problems(found: list[tuple[Status, str | None]], title: str = "Not usable:") -> None:
    lines = [f"  {status}: {error}" for status, error in found if error]
    if lines:
        typer.echo("\n".join(["", title, *lines]))


def _table(records: list[PluginRecord]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("id", "kind", "version", "distribution", "status", "tasks", "code", "weights"):
        table.add_column(title, overflow="fold")
    for record in records:
        spec = record.spec
        cells = (
            record.id,
            record.kind,
            record.version or "",
            record.distribution or "(this process)",
            record.status.value,
            ", ".join(spec.tasks) if spec else "",
            spec.license if spec else "",
            (spec.weights_license or "") if spec else "",
        )
        table.add_row(*map(escape, cells))
    return table


def _facts(record: PluginRecord) -> dict[str, Any]:
    """A record as plain data: what the spec says and what discovery found."""
    facts: dict[str, Any] = {
        "id": record.id,
        "kind": record.kind,
        "full_id": record.full_id,
        "distribution": record.distribution,
        "version": record.version,
        "status": record.status.value,
        "error": record.error,
        "value": record.value,
        "origin": record.origin,
    }
    if record.spec is not None:
        facts["tasks"] = list(record.spec.tasks)
        facts |= record.spec.model_dump(mode="json", exclude={"id"})
    return {**facts, "traceback": record.traceback}


def _hook_facts(record: HookRecord) -> dict[str, Any]:
    return {**record.__dict__, "status": record.status.value, "hooks": list(record.hooks)}


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        shown = (f"{name.replace('_', ' ')}: {_readable(one)}" for name, one in value.items())
        return f"\n{'':>18}".join(shown)
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _console() -> Console:
    """Without a terminal lines are long rather than folded, so that they can be searched."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))
