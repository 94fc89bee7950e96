"""``codec encode``, ``codec decode`` and ``tokens``: the parts on their own."""

from __future__ import annotations

import io
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer

from speechloom.cli.options import CodecId, Device, Json, TokenizerId, check_output
from speechloom.container import load_audio, save_audio, write_atomically
from speechloom.errors import PluginNotFound, UsageError
from speechloom.registry import default_registry
from speechloom.spec import CodecFacts, Kind
from speechloom.values import Audio, Codes

if TYPE_CHECKING:
    from speechloom.protocols import Codec, Tokenizer

__all__ = ["app", "tokens"]

app = typer.Typer(help="Encode audio to codes, and back.", no_args_is_help=True)

FORMAT = 1


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
    facts = cast(CodecFacts, chosen.spec.facts)
    header = {
        "format": FORMAT,
        "codes": facts.codes,
        "frame_rate": str(facts.frame_rate),
        "codebook_size": facts.codebook_size,
        "seconds": str(Fraction(recording.length, recording.sample_rate)),
    }
    buffer = io.BytesIO()
    ids = codes.item(0).numpy().astype(np.int32)
    np.savez_compressed(buffer, ids=ids, header=np.array(json.dumps(header)))
    write_atomically(output, lambda file: file.write(buffer.getvalue()))
    report = {"path": str(output), "codec": chosen.spec.id, "shape": list(ids.shape)}
    typer.echo(json.dumps(report) if as_json else f"{output}: {chosen.spec.id} {list(ids.shape)}")


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
    ids, header = _read_codes(codes)
    chosen = cast(
        "Codec", default_registry().load("codec", _codec_for(header, codec), device=device)
    )
    import torch

    value = Codes(
        torch.from_numpy(ids.astype(np.int64))[None],
        header["codes"],
        header["codebook_size"],
        Fraction(header["frame_rate"]),
    )
    (audio,) = chosen.decode(value)
    length = min(round(Fraction(header["seconds"]) * audio.sample_rate), audio.length)
    audio = Audio(audio.samples[:, :length], audio.sample_rate)
    save_audio(audio, output)
    report = {"path": output, "seconds": audio.seconds, "sample_rate": audio.sample_rate}
    stream = sys.stderr if output == "-" else sys.stdout
    print(json.dumps(report) if as_json else f"{output}: {audio.seconds:.2f} s", file=stream)


def _codec_for(header: dict[str, Any], wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    for spec in default_registry().specs("codec"):
        if isinstance(spec.facts, CodecFacts) and spec.facts.codes == header["codes"]:
            return spec.id
    raise PluginNotFound(
        f"no installed codec plays codes:{header['codes']}; install the one that made the file",
        plugin="codec",
    )


def _read_codes(path: Path) -> tuple[Any, dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, header = file["ids"], json.loads(str(file["header"]))
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; give a file that `codec encode` wrote") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise UsageError(f"{path} is not a codes file: {error}") from None
    if header.get("format") != FORMAT or ids.ndim != 2:
        raise UsageError(f"{path} is not a codes file of format {FORMAT}")
    return ids, header


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
    ids = result.item(0)
    report: dict[str, Any] = {
        "vocabulary": result.vocabulary,
        "vocabulary_size": result.vocabulary_size,
        "frame_rate": float(result.frame_rate),
    }
    if reduce:
        import torch

        merged, counts = torch.unique_consecutive(ids, return_counts=True)
        report |= {"ids": merged.tolist(), "frames": counts.tolist()}
    else:
        report["ids"] = ids.tolist()
    text = json.dumps(report)
    if output is None:
        typer.echo(text)
    else:
        write_atomically(output, lambda file: file.write(text.encode()))
