"""``models``: the weights that installed components use."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from speechloom.cli.options import Json
from speechloom.errors import UsageError, WeightsError
from speechloom.protocols import HasWeightFiles, WeightFile
from speechloom.registry import default_registry
from speechloom.spec import KINDS, ComponentSpec

__all__ = ["app"]

app = typer.Typer(help="List, verify and find weights.", no_args_is_help=True)
Id = Annotated[str | None, typer.Argument(help="Only this component.")]


def _files(id_: str | None) -> Iterator[tuple[ComponentSpec, str, WeightFile]]:
    """Weight files of usable components; a component that cannot tell is passed over."""
    found = False
    for kind in KINDS:
        for spec in default_registry().specs(kind):
            if id_ in (None, spec.id):
                found = True
                module, _, name = spec.implementation.partition(":")
                try:
                    implementation = getattr(importlib.import_module(module), name)
                except (ImportError, OSError, AttributeError) as error:
                    if id_ is not None:
                        raise WeightsError(
                            f"{kind} {spec.id} cannot be imported: {error}"
                        ) from error
                    continue
                if isinstance(implementation, HasWeightFiles):
                    for file, where in implementation.weight_files(spec).items():
                        yield spec, file, where
    if not found:
        raise UsageError(f"no component {id_ or ''} is installed; see `speechloom plugins list`")


@app.command("list")
def list_models(id_: Id = None, as_json: Json = False) -> None:
    """List weight files with their size and hash."""
    rows = [_row(spec, name, file) for spec, name, file in _files(id_)]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        size = "missing" if row["bytes"] is None else f"{row['bytes'] / 1e6:.1f} MB"
        typer.echo(f"{row['kind']}/{row['component']}  {row['file']}  {size}  {row['license']}")


def _row(spec: ComponentSpec, name: str, file: WeightFile) -> dict[str, Any]:
    return {
        "component": spec.id,
        "kind": spec.kind,
        "file": name,
        "bytes": file.path.stat().st_size if file.path.exists() else None,
        "sha256": file.sha256,
        "license": spec.weights_license,
    }


@app.command()
def verify(id_: Id = None) -> None:
    """Compare every weight file with the hash that its plugin promises."""
    bad = []
    checked: dict[str, str] = {}
    for spec, name, file in _files(id_):
        path = str(file.path)
        if path not in checked:
            checked[path] = _verdict(file)
            typer.echo(f"{checked[path]}  {name}")
            if checked[path] != "ok":
                bad.append(f"{name} of {spec.id}: {checked[path]}")
    if bad:
        raise WeightsError(f"weights do not match: {'; '.join(bad)}; install the plugin again")


def _verdict(file: WeightFile) -> str:
    try:
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable ({error.strerror})"
    return "ok" if digest == file.sha256 else "damaged"


@app.command()
def path(id_: Annotated[str, typer.Argument(help="A component.")]) -> None:
    """Print where a component's weights are."""
    paths = list(dict.fromkeys(str(file.path) for _, _, file in _files(id_)))
    if not paths:
        raise UsageError(f"{id_} has no weight files")
    for one in paths:
        typer.echo(one)
