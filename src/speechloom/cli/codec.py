"""``codec encode``, ``codec decode`` and ``tokens``: the parts on their own."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from speechloom.cli.options import CodecId, Device, Json, TokenizerId, check_output
from speechloom.code_file import load_codes, save_codes
from speechloom.container import load_audio, save_audio, write_atomically
from speechloom.errors import PluginNotFound, UsageError
from speechloom.registry import default_registry
from speechloom.spec import CodecFacts, Kind
from speechloom.values import Audio, Codes, Tokens

if TYPE_CHECKING:
    from speechloom.protocols import Codec, Tokenizer

__all__ = ["app", "tokens"]

app = typer.Typer(help="Encode audio to codes, and back.", no_args_is_help=True)


def _only(kind: Kind, wanted: str | None) -> str:
    """The component that was named, or the only one that is installed."""
    ids = [spec.id for spec in default_registry().specs(kind)]
    if wanted is not None:
        return wanted
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise PluginNotFound(f"no {kind} is installed; install one", plugin=kind)
    raise UsageError(f"several {kind}s are installed; name one with --{kind}: {', '.join(ids)}")


@app.command()
def encode(
    audio: Annotated[str, typer.Argument(help="Audio file; - for standard input.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Codes file (.npz).")],
    codec: CodecId = None,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """Encode audio to a file of codes."""
    chosen = cast("Codec", default_registry().load("codec", _only("codec", codec), device=device))
    recording = load_audio(audio)
    codes = chosen.encode([recording])
    save_codes(output, codes, Fraction(recording.length, recording.sample_rate))
    shape = list(codes.item(0).shape)
    report = {"path": str(output), "codec": chosen.spec.id, "shape": shape}
    typer.echo(json.dumps(report) if as_json else f"{output}: {chosen.spec.id} {shape}")


@app.command()
def decode(
    codes: Annotated[Path, typer.Argument(help="A file that `codec encode` wrote.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Audio file; - for stdout.")],
    codec: CodecId = None,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """Decode a file of codes to audio of the length that was encoded."""
    check_output(output)
    value, seconds = load_codes(codes)
    chosen = cast(
        "Codec", default_registry().load("codec", _codec_for(value, codec), device=device)
    )
    (audio,) = chosen.decode(value)
    length = min(round(seconds * audio.sample_rate), audio.length)
    audio = Audio(audio.samples[:, :length], audio.sample_rate)
    save_audio(audio, output)
    report = {"path": output, "seconds": audio.seconds, "sample_rate": audio.sample_rate}
    stream = sys.stderr if output == "-" else sys.stdout
    print(json.dumps(report) if as_json else f"{output}: {audio.seconds:.2f} s", file=stream)


def _codec_for(codes: Codes, wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    for spec in default_registry().specs("codec"):
        if isinstance(spec.facts, CodecFacts) and spec.facts.takes == codes.kind:
            return spec.id
    raise PluginNotFound(
        f"no installed codec plays {codes.kind}; install the one that made the file",
        plugin="codec",
    )


def tokens(
    audio: Annotated[str, typer.Argument(help="Audio file; - for standard input.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="JSON file; standard output without."),
    ] = None,
    tokenizer: TokenizerId = None,
    reduce: Annotated[bool, typer.Option("--reduce", help="Merge runs of equal ids.")] = False,
    device: Device = "cpu",
) -> None:
    """Read the content tokens off a recording, as JSON."""
    chosen = cast(
        "Tokenizer",
        default_registry().load("tokenizer", _only("tokenizer", tokenizer), device=device),
    )
    result = chosen.encode([load_audio(audio)])
    if not isinstance(result, Tokens):
        raise UsageError(f"{chosen.spec.id} gives features, which have no ids to write")
    report: dict[str, Any] = {
        "vocabulary": result.vocabulary,
        "vocabulary_size": result.vocabulary_size,
        "frame_rate": float(result.frame_rate),
    }
    if reduce:
        from speechloom.units import reduce_runs

        result, frames = reduce_runs(result)
        report["frames"] = frames[0].tolist()
    report["ids"] = result.item(0).tolist()
    text = json.dumps(report)
    if output is None:
        typer.echo(text)
    else:
        write_atomically(output, lambda file: file.write(text.encode()))
