"""What is to be evaluated: one case a line, as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speechloom.errors import UsageError
from speechloom.spec import Task

__all__ = ["EvalCase", "read_cases"]

_AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})
_REQUIRED: dict[str, tuple[str, ...]] = {
    "synthesize": ("text",),
    "edit": ("audio", "text", "new_text"),
    "continue": ("audio",),
    "convert": ("audio", "voice"),
}


class EvalCase(BaseModel):
    """One utterance to make and to judge, or only to judge.

    Attributes:
        id: names the case in the report and in the files that are kept; unique.
        task: one of the four tasks.
        text: what to say; for ``edit`` the transcript of `audio`; for ``continue`` what follows;
            for ``convert`` the transcript of `audio`, where it is known.
        new_text: for ``edit``, the transcript as it should be.
        audio: the recording that is edited, continued or converted.
        voice: an audio file by its suffix, else the name of a voice.
        seconds: for ``continue``, how much to add.
        seed: given to the pipeline.
        reference: a recording of the same words, which the result is compared with.
        transcript: what the whole result should say, where the fields above do not tell.
        audio_result: a recording that exists already and is judged as the result: then nothing is
            made, so that a source voice can stand beside ours.
        group: cases of one group are summed up in one column of the report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[\w.-]+$")
    task: Task = "synthesize"
    text: str | None = None
    new_text: str | None = None
    audio: Path | None = None
    voice: str | None = None
    seconds: float | None = Field(default=None, gt=0)
    seed: int = 0
    reference: Path | None = None
    transcript: str | None = None
    audio_result: Path | None = None
    group: str = "result"

    @model_validator(mode="after")
    def _has_what_the_task_needs(self) -> EvalCase:
        missing = [name for name in _REQUIRED[self.task] if getattr(self, name) is None]
        if missing and self.audio_result is None:
            raise ValueError(
                f"task {self.task!r} needs {' and '.join(missing)}, "
                "or an audio_result that exists already"
            )
        return self

    @property
    def voice_file(self) -> Path | None:
        """The recording that gives the voice; None when `voice` is a name or absent."""
        return None if self.voice is None or not _is_audio_file(self.voice) else Path(self.voice)

    @property
    def expected_words(self) -> str | None:
        """What the result should say; for ``continue`` only the part that is added."""
        return self.transcript or (self.new_text if self.task == "edit" else self.text)

    def relative_to(self, folder: Path) -> EvalCase:
        """The same case with its paths taken from `folder`."""
        paths: dict[str, Any] = {
            name: folder / value
            for name in ("audio", "reference", "audio_result")
            if (value := getattr(self, name)) is not None
        }
        if self.voice_file is not None:
            paths["voice"] = str(folder / self.voice_file)
        return self.model_copy(update=paths)


def read_cases(path: str | os.PathLike[str], *, voice: str | None = None) -> tuple[EvalCase, ...]:
    """Read cases from a file of one JSON object a line.

    Args:
        path: the file; paths in it are relative to its folder. A case with no ``id`` is called
            after its line.
        voice: of the cases that name none: a name, or an audio file.

    Raises:
        UsageError: the file or a line cannot be read, two cases have one id, or there are none;
            the message names the file and the line.
    """
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} cannot be read as a list of cases: {error}") from error
    usual = {} if voice is None else {"voice": _as_voice(voice)}
    cases = [
        _parse_line(line, f"{source}:{number}", {"id": f"case-{number}", **usual}).relative_to(
            source.parent
        )
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not cases:
        raise UsageError(f"{source} holds no cases; write one JSON object a line")
    check_unique(cases, str(source))
    return tuple(cases)


def _as_voice(voice: str) -> str:
    """A name as it is; a file by its whole path, since that of a case starts at its own folder."""
    return str(Path(voice).absolute()) if _is_audio_file(voice) else voice


def _is_audio_file(voice: str) -> bool:
    return Path(voice).suffix.lower() in _AUDIO_SUFFIXES


def _parse_line(line: str, place: str, usual: dict[str, str]) -> EvalCase:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{place}: not JSON: {error}") from None
    if not isinstance(record, dict):
        raise UsageError(f"{place}: a case must be a JSON object, not {type(record).__name__}")
    try:
        return EvalCase.model_validate({**usual, **record})
    except ValidationError as error:
        raise UsageError(f"{place}: {_first_problem(error)}") from None


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field else message


def check_unique(cases: Iterable[EvalCase], source: str) -> None:
    """Refuse two cases with one id.

    Raises:
        UsageError: naming the id.
    """
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise UsageError(f"{source}: the id {case.id!r} stands twice; ids must be unique")
        seen.add(case.id)
