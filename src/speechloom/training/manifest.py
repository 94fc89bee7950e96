"""Reading the examples of a JSONL manifest, one JSON object a line.

::

    {"audio": "a.wav", "text": "Hello there.", "speaker": "anna", "language": "en"}
    {"audio": "long.flac", "start": 12.5, "end": 15.0, "alignment": [["hh", 0.08], ["ax", 0.2]]}

``audio`` is relative to the manifest. Blank lines are passed over. See `Example` for the fields.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speechloom.errors import UsageError
from speechloom.training.example import Example

__all__ = ["all_problems", "read_manifest"]

SHOWN = 20
"""Problems that one message lists before it only counts."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    audio: Path
    id: str | None = Field(default=None, min_length=1)
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    start: float = Field(default=0.0, ge=0)
    end: float | None = None
    alignment: tuple[tuple[str, float], ...] | None = None
    tags: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _times_run_forward(self) -> _Line:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end {self.end} must be after start {self.start}")
        last = 0.0
        for phone, end in self.alignment or ():
            if end < last:
                raise ValueError(f"alignment: {phone!r} ends at {end}, before the one before it")
            last = end
        return self


def read_manifest(path: Path) -> tuple[Example, ...]:
    """Read all examples.

    Args:
        path: the file; paths in it are relative to its folder. An example with no ``id`` is called
            after its place, ``train.jsonl:12``.

    Raises:
        UsageError: the file cannot be read or is empty, or lines are wrong: all of them are listed
            with file and line.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"the manifest {path} cannot be read: {error.strerror}") from error
    examples, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            examples.append(_example(line, path, number))
        except ValueError as error:  # UsageError is one
            problems.append(f"{path}:{number}: {error}")
    if problems:
        raise UsageError(all_problems(problems, "lines of the manifest cannot be used"))
    if not examples:
        raise UsageError(f"the manifest {path} holds no examples; write one JSON object a line")
    return tuple(examples)


def all_problems(problems: Sequence[str], what: str) -> str:
    """One message for many problems, at most `SHOWN` of them in words."""
    more = len(problems) - SHOWN
    tail = f"; and {more} more" if more > 0 else ""
    return f"{len(problems)} {what}: {'; '.join(problems[:SHOWN])}{tail}"


def _example(line: bytes, path: Path, number: int) -> Example:
    try:
        content = json.loads(line.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"an example must be a JSON object, not {type(content).__name__}")
    try:
        fields = _Line.model_validate(content)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from None
    audio = path.parent / fields.audio
    if not audio.is_file():
        raise UsageError(f"audio: there is no file {audio}")
    place = f"{path}:{number}"
    named = fields.model_dump(exclude={"audio", "id"})
    return Example(audio=audio, id=fields.id or f"{path.name}:{number}", place=place, **named)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "there is no such field; labels of your own go into tags"
    return f"{field}: {message}" if field else message
