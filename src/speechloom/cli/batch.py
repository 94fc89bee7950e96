"""``batch``: many requests from a JSONL file, in real batches, and resumable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from speechloom.cli.options import Device, Json, pipeline_of, progress_bar
from speechloom.container import audio_suffix, write_atomically
from speechloom.errors import OutputError, SpeechloomError, UsageError
from speechloom.pipeline import Pipeline
from speechloom.spec import TASKS
from speechloom.speech import Speech

__all__ = ["batch"]

_FIELDS = {"id", "task", "text", "new_text", "audio", "voice", "seconds", "style", "seed",
           "temperature", "format"}  # fmt: skip
_SHARED = ("task", "seconds", "style", "temperature")
"""Fields that all requests of one call have in common; lines that differ in them run apart."""


@dataclass(frozen=True)
class _Line:
    """One request of the file.

    Attributes:
        number: line of the file, from 1.
        name: file name of the result, without folder.
        fields: the object as it was read.
    """

    number: int
    name: str
    fields: dict[str, Any]

    def group(self) -> str:
        """Requests of one group run in one call."""
        shared = {key: self.fields.get(key) for key in _SHARED}
        present = [key for key in ("text", "voice") if self.fields.get(key) is not None]
        return json.dumps([shared, present], sort_keys=True)


def batch(
    requests: Annotated[Path, typer.Argument(help="JSONL: one request per line.")],
    folder: Annotated[Path, typer.Argument(help="Where results go.")],
    resume: Annotated[bool, typer.Option("--resume", help="Skip what is already there.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=256)] = 8,
    as_json: Json = False,
    device: Device = "cpu",
) -> None:
    """Run many requests; a line that fails is reported and harms no other.

    Each line is an object: ``task``, ``text``, ``new_text``, ``audio``, ``voice``, ``seconds``,
    ``style``, ``seed``, ``temperature``, ``id`` (the result's name) and ``format`` (wav). Paths are
    relative to the JSONL file.
    """
    lines = _read(requests)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}") from error
    existing = [line for line in lines if (folder / line.name).exists()]
    if existing and not resume:
        raise UsageError(
            f"{folder} already has {existing[0].name} and {len(existing) - 1} more results; "
            "give --resume to keep them and do the rest, or another folder"
        )
    todo = [line for line in lines if line not in existing]
    pipeline = pipeline_of(device)
    failed = []
    with progress_bar():
        for group in _groups(todo, batch_size):
            failed += _run(pipeline, group, requests.parent, folder)
    report = {"done": len(todo) - len(failed), "skipped": len(existing), "failed": failed}
    text = f"{report['done']} done, {report['skipped']} skipped, {len(failed)} failed"
    typer.echo(json.dumps(report) if as_json else text)
    if failed:
        first = failed[0]
        raise OutputError(
            f"{len(failed)} of {len(todo)} requests failed, the first on line {first['line']}: "
            f"{first['error']}"
        )


def _read(path: Path) -> list[_Line]:
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    lines = [_line(path, i, text) for i, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise UsageError(f"{path} has no requests")
    names: dict[str, int] = {}
    for line in lines:
        if line.name in names:
            raise UsageError(
                f"{path}, line {line.number}: the id of line {names[line.name]} again; ids must "
                "differ"
            )
        names[line.name] = line.number
    return lines


def _line(path: Path, number: int, text: str) -> _Line:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(fields, dict) or fields.get("task") not in TASKS:
        raise UsageError(f"{where}: must be an object whose task is one of {', '.join(TASKS)}")
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise UsageError(f"{where}: unknown fields {', '.join(unknown)}")
    name = str(fields.get("id", f"{number:06d}"))
    if not name or name != Path(name).name or name.startswith("."):
        raise UsageError(f"{where}: id {name!r} must be a plain file name")
    name = f"{name}.{fields.get('format', 'wav')}"
    audio_suffix(Path(name))
    return _Line(number, name, fields)


def _groups(lines: Sequence[_Line], size: int) -> Iterator[list[_Line]]:
    """Lines that can run in one call, at most `size` at a time, in the order of the file."""
    groups: dict[str, list[_Line]] = {}
    for line in lines:
        groups.setdefault(line.group(), []).append(line)
    for group in groups.values():
        for at in range(0, len(group), size):
            yield group[at : at + size]


def _run(pipeline: Pipeline, lines: list[_Line], base: Path, folder: Path) -> list[dict[str, Any]]:
    """Run a group in one call; where that fails, one by one, to find the line at fault."""
    try:
        speeches = _call(pipeline, lines, base)
    except SpeechloomError as error:
        if len(lines) == 1:
            return [{"line": lines[0].number, "error": str(error)}]
        return [row for line in lines for row in _run(pipeline, [line], base, folder)]
    for line, speech in zip(lines, speeches, strict=True):
        _save(line, speech, folder)
    return []


def _save(line: _Line, speech: Speech, folder: Path) -> None:
    """The record first: a result that is there has one."""
    record = json.dumps({"line": line.number, **speech.to_json()}).encode()
    write_atomically(folder / f"{line.name}.result.json", lambda file: file.write(record))
    speech.save(folder / line.name)


def _call(pipeline: Pipeline, lines: list[_Line], base: Path) -> list[Speech]:
    first = lines[0].fields
    task = first["task"]
    every: dict[str, Any] = {
        key: [line.fields.get(key) for line in lines] for key in ("text", "seed", "new_text")
    }
    audio = [_resolved(line.fields.get("audio"), base) for line in lines]
    voice = [_resolved(line.fields.get("voice"), base) for line in lines]
    shared = {
        key: first[key] for key in ("seconds", "style", "temperature") if first.get(key) is not None
    }
    if task == "synthesize":
        del every["new_text"]
        return list(pipeline.synthesize(every.pop("text"), voice=voice, **every, **shared))
    if task == "convert":
        return list(pipeline.convert(audio, voice=voice, seed=every["seed"], **shared))
    if task == "edit":
        return list(pipeline.edit(audio, voice=voice, **every, **shared))
    del every["new_text"]
    return list(pipeline.continue_(audio, voice=voice, **every, **shared))


def _resolved(value: Any, base: Path) -> Any:
    """A path beside the JSONL file, or the name of a voice as it is."""
    if isinstance(value, str) and (base / value).exists():
        return str(base / value)
    return value
