"""``speechloom hubert``: fit k-means, and convert those of others.

The command line imports this each time it starts: what runs a model is imported inside.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speechloom.errors import UsageError, WeightsError
from speechloom.hookspecs import hookimpl

if TYPE_CHECKING:
    from speechloom_hubert.fitting import FitStep

__all__ = ["hubert", "speechloom_register_commands"]

hubert = typer.Typer(
    help="Units of HuBERT and WavLM: fit and convert k-means.", no_args_is_help=True
)
"""The command ``speechloom hubert``."""


@hookimpl
def speechloom_register_commands(app: typer.Typer) -> None:
    """Add ``speechloom hubert``."""
    app.add_typer(hubert, name="hubert")


@hubert.command()
def fit(
    audio: Annotated[Path, typer.Argument(help="Folder of audio files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="K-means file (.safetensors).")],
    encoder: Annotated[str, typer.Option("--encoder", help="Hub id or local folder.")],
    layer: Annotated[int, typer.Option("--layer", help="Hidden layer that is clustered.")],
    clusters: Annotated[int, typer.Option("--clusters", help="Number of units.")],
    revision: Annotated[str | None, typer.Option(help="Of a hub id.")] = None,
    batch_frames: Annotated[int, typer.Option(help="Frames of one step.")] = 10_000,
    passes: Annotated[int, typer.Option(help="How often each file is taken.")] = 1,
    seed: Annotated[int, typer.Option(help="Names every random draw.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Cores that encode; all without.")] = None,
    save_seconds: Annotated[float, typer.Option(help="How often the state is written.")] = 60.0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Fit k-means on the features of audio files; run it again to go on after a kill."""
    from speechloom_hubert.fitting import FitPlan, audio_files, fit_kmeans
    from speechloom_hubert.loading import load_encoder

    _check_output(output)
    plan = FitPlan(clusters, layer, batch_frames, passes, seed)
    files = audio_files(audio)
    network = load_encoder(encoder, revision=revision, layers=layer, device=device)
    units = fit_kmeans(
        files,
        network,
        plan,
        output,
        workers=workers or os.cpu_count() or 1,
        save_seconds=save_seconds,
        progress=_show,
    )
    typer.echo(f"{output}: {list(units.centroids.shape)}, layer {layer} of {encoder}")


@hubert.command()
def convert(
    source: Annotated[Path, typer.Argument(help=".npy, or a scikit-learn pickle.")],
    output: Annotated[Path | None, typer.Argument(help="K-means file (.safetensors).")] = None,
    sklearn_pickle: Annotated[
        bool, typer.Option("--sklearn-pickle", help="The source is a scikit-learn pickle.")
    ] = False,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="Put it where this published tokenizer looks for it."),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Hidden layer that was clustered.")] = None,
    encoder: Annotated[str | None, typer.Option(help="What was clustered, for people.")] = None,
    family: Annotated[str | None, typer.Option(help="hubert or wavlm.")] = None,
    frame_rate: Annotated[str, typer.Option(help="Hz of the features, such as 50.")] = "50",
) -> None:
    """Turn k-means of others into a safetensors file; no code in a pickle is run."""
    from dataclasses import replace
    from fractions import Fraction

    from speechloom_hubert.architecture import FAMILIES
    from speechloom_hubert.kmeans import read_kmeans, write_kmeans

    if (output is None) == (for_ is None):
        raise UsageError("give either the path of the output, or --for and a published tokenizer")
    if family not in (None, *FAMILIES):
        raise UsageError(f"--family must be {' or '.join(FAMILIES)}, but is {family}")
    if for_ is not None:
        output, layer, encoder, family = _published_target(source, for_)
    assert output is not None
    _check_output(output)
    try:
        rate = Fraction(frame_rate)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--frame-rate must be a number such as 50, not {frame_rate}") from None
    units = read_kmeans(source, allow_pickle=sklearn_pickle)
    units = replace(units, frame_rate=rate, layer=layer, encoder=encoder, family=family)
    write_kmeans(output, units)
    typer.echo(f"{output}: {list(units.centroids.shape)}")


def _published_target(source: Path, id_: str) -> tuple[Path, int, str, str]:
    """Where a published k-means goes, and what it was fitted on; its hash is checked."""
    from speechloom.checkpoints import sha256_of
    from speechloom_hubert import SPECS
    from speechloom_hubert.published import PUBLISHED, kmeans_folder

    if id_ not in PUBLISHED:
        raise UsageError(f"--for must be one of {', '.join(PUBLISHED)}, but is {id_}")
    if not source.is_file():
        raise WeightsError(f"the k-means {source} does not exist; give the path of a file")
    known = PUBLISHED[id_]
    digest = sha256_of(source)
    if digest != known.sha256:
        raise WeightsError(
            f"{source} is not the published k-means of {id_}: its SHA-256 is {digest}, not "
            f"{known.sha256}; download {known.url} again"
        )
    folder = kmeans_folder()
    folder.mkdir(parents=True, exist_ok=True)
    options = next(spec.options for spec in SPECS if spec.id == id_)
    return folder / f"{id_}.safetensors", options["layer"], options["checkpoint"], "hubert"


def _check_output(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise UsageError(f"the output must end in .safetensors, but is {path}")
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: the folder {path.parent} does not exist")


def _show(step: FitStep) -> None:
    print(
        f"step {step.step}: {step.files} of {step.total_files} files, "
        f"mean squared distance {step.distance:.4g}",
        file=sys.stderr,
    )
