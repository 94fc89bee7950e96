"""Options that several commands share, and what they become."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from speechloom.chain import Role
from speechloom.container import audio_suffix
from speechloom.errors import OutputError, UsageError
from speechloom.hooks import default_hooks, hookimpl
from speechloom.pipeline import Pipeline, Progress
from speechloom.speech import Speech

__all__ = ["check_output", "deliver", "pipeline_of", "progress_bar", "text_of"]

PATIENCE_SECONDS = 2.0
"""Work that takes longer shows a progress bar."""

Output = Annotated[
    str, typer.Option("-o", "--output", help="Audio file to write; - for a wav on stdout.")
]
Voice = Annotated[
    str | None,
    typer.Option("--voice", help="A named voice, or a recording of the voice."),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Names every random draw; a new one is drawn without."),
]
Temperature = Annotated[float, typer.Option("--temperature", help="Scales the randomness.")]
Style = Annotated[
    str | None,
    typer.Option("--style", help="slow, normal, fast, or a speed factor such as 1.2."),
]
Lexicon = Annotated[
    Path | None,
    typer.Option("--lexicon", help="File of pronunciations: a word and its phones per line."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda.")]
CodecId = Annotated[str | None, typer.Option("--codec", help="Codec to use.")]
GeneratorId = Annotated[
    str | None,
    typer.Option("--generator", help="Generator of codes or features to use."),
]
ContentGeneratorId = Annotated[
    str | None,
    typer.Option("--content-generator", help="Generator of content tokens to use."),
]
TokenizerId = Annotated[
    str | None,
    typer.Option("--tokenizer", help="Tokenizer to use."),
]
VocoderId = Annotated[
    str | None,
    typer.Option("--vocoder", help="Vocoder to use."),
]


def pipeline_of(
    device: str = "cpu",
    *,
    codec: str | None = None,
    generator: str | None = None,
    content_generator: str | None = None,
    tokenizer: str | None = None,
    vocoder: str | None = None,
) -> Pipeline:
    """A pipeline of the parts that were named."""
    named: dict[Role, str | None] = {
        "codec": codec,
        "generator": generator,
        "content_generator": content_generator,
        "tokenizer": tokenizer,
        "vocoder": vocoder,
    }
    return Pipeline(device=device, parts={role: id_ for role, id_ in named.items() if id_})


def text_of(text: str) -> str:
    """The text itself, or standard input for ``-``.

    Raises:
        UsageError: standard input is not UTF-8.
    """
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not UTF-8 text: {error}") from None


def style_of(style: str | None) -> str | float | None:
    """A named style, or a speed factor."""
    try:
        return None if style is None else float(style)
    except ValueError:
        return style


def lexicon_of(path: Path | None) -> dict[str, tuple[str, ...]] | None:
    """Read a lexicon file: ``word phone phone ...`` per line, ``#`` starts a comment.

    Raises:
        UsageError: the file or a line of it cannot be read.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the lexicon {path} cannot be read: {error}") from None
    entries = {}
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split()
        if len(fields) == 1:
            raise UsageError(f"{path}, line {number}: {fields[0]!r} has no phones after it")
        if fields:
            entries[fields[0].lower()] = tuple(fields[1:])
    return entries


def check_output(path: str) -> None:
    """Refuse an output that cannot be written before any work is done.

    Raises:
        UsageError: the suffix names no audio format.
        OutputError: the folder is missing or not writable, or the path is a folder.
    """
    if path == "-":
        return
    target = Path(path)
    audio_suffix(target)
    if target.is_dir():
        raise OutputError(f"{path} is a folder; give the path of a file")
    folder = target.parent
    if not folder.is_dir():
        raise OutputError(f"{path} cannot be written: the folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path} cannot be written: the folder {folder} is not writable")


def deliver(speech: Speech, output: str, as_json: bool) -> None:
    """Write the result and say so, on standard error when the audio itself goes to stdout."""
    speech.save(output)
    stream = sys.stderr if output == "-" else sys.stdout
    if as_json:
        print(json.dumps({"path": output, **speech.to_json()}), file=stream)
    elif output != "-":
        made = sum(r.end_seconds - r.start_seconds for r in speech.regions)
        print(
            f"{output}: {speech.seconds:.2f} s at {speech.sample_rate} Hz, {made:.2f} s generated, "
            f"seed {speech.seed}",
            file=stream,
        )


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show how far the work is, on standard error, once it takes longer than two seconds."""
    bar = _Bar()
    with default_hooks().using(bar):
        try:
            yield
        finally:
            bar.close()


class _Bar:
    """A hook plugin that draws a progress bar."""

    def __init__(self) -> None:
        self._since = monotonic()
        self._bar: Any = None
        self._task: Any = None

    @hookimpl
    def speechloom_progress(self, event: Progress) -> None:
        """Draw, when there is someone to see it and it has taken a while."""
        if not sys.stderr.isatty() or monotonic() - self._since < PATIENCE_SECONDS:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(event.task, total=event.total)
        self._bar.update(self._task, completed=event.done, total=event.total)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
