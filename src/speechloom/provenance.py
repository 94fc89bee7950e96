"""The record of how speech came to be, and making it again from that record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from speechloom.container import AudioLike, load_audio
from speechloom.errors import UsageError, WeightsError
from speechloom.parts import core_version
from speechloom.router import Role
from speechloom.spec import TASKS
from speechloom.speech import Request, Speech, read_provenance
from speechloom.values import Voice

if TYPE_CHECKING:
    from speechloom.parts import Parts
    from speechloom.pipeline import Pipeline

__all__ = ["provenance_of", "replay"]

FORMAT = 1


def provenance_of(request: Request, parts: Parts) -> dict[str, Any]:
    """The record: format, core version, chain with weight hashes, seed and request.

    Args:
        request: what was asked.
        parts: what did it.
    """
    return {
        "format": FORMAT,
        "speechloom": core_version(),
        "generated": True,
        "chain": parts.record(),
        "seed": request.seed,
        "request": _as_json(request),
    }


def _as_json(request: Request) -> dict[str, Any]:
    record: dict[str, Any] = {"task": request.task, "temperature": request.temperature}
    for name in ("text", "new_text", "seconds"):
        if getattr(request, name) is not None:
            record[name] = getattr(request, name)
    if request.spans:
        record["spans"] = [list(span) for span in request.spans]
    if request.style:
        record["style"] = dict(request.style)
    if request.lexicon:
        record["lexicon"] = {word: list(phones) for word, phones in request.lexicon.items()}
    if request.audio is not None:
        record["audio"] = _audio_record(request.audio)
    if request.voice is not None:
        record["voice"] = _voice_record(request.voice)
    return record


def _audio_record(source: AudioLike) -> dict[str, str]:
    record = {} if isinstance(source, (tuple, bytes)) else {"path": _path_of(source)}
    if not hasattr(source, "read") and source != "-":
        record["sha256"] = load_audio(source).sha256
    return {name: value for name, value in record.items() if value}


def _path_of(source: object) -> str:
    if isinstance(source, (str, os.PathLike)) and os.fspath(source) != "-":
        return str(Path(os.fspath(source)).absolute())
    return ""


def _voice_record(voice: Any) -> dict[str, Any]:
    if isinstance(voice, Voice):
        return {"kind": voice.kind, "name": voice.name, "vector": voice.vector.tolist()}
    if isinstance(voice, (str, os.PathLike)):
        name = os.fspath(voice)
        return _audio_record(name) if Path(name).exists() else {"name": name}
    vector = voice.detach().cpu().numpy() if hasattr(voice, "detach") else voice
    if isinstance(vector, (np.ndarray, list)):
        return {"vector": np.asarray(vector, np.float32).tolist()}
    return _audio_record(voice)


def replay(
    path: str | os.PathLike[str],
    *,
    pipeline: Pipeline | None = None,
    audio: AudioLike | None = None,
    voice: Any = None,
    device: str = "cpu",
) -> Speech:
    """Make the samples of a saved file again, from its record.

    Args:
        path: a file that `Speech.save` wrote.
        pipeline: where to run it; one of the same components by default.
        audio: the recording it was made from, when that has moved.
        voice: the recording of the voice, when that has moved.
        device: where to run it, when no pipeline is given.

    Returns:
        The same samples, where the same versions and weights are installed.

    Raises:
        UsageError: no record, or a recording it needs is gone or has changed.
        WeightsError: a component has other weights than those that made the file.
    """
    from speechloom.pipeline import Pipeline

    record = read_provenance(path)
    request = _request_of(record, audio, voice)
    wanted = {cast(Role, row["role"]): row["id"] for row in record["chain"]}
    chosen = pipeline or Pipeline(device=device, parts=wanted)
    speech = chosen.run(request)
    _check_weights(record["chain"], speech.provenance["chain"])
    return speech


def _request_of(record: Mapping[str, Any], audio: AudioLike | None, voice: Any) -> Request:
    try:
        asked = dict(record["request"])
        if record["format"] != FORMAT or asked["task"] not in TASKS:
            raise UsageError(f"this record is of format {record['format']}; {FORMAT} is known")
        return Request(
            task=asked["task"],
            text=asked.get("text"),
            new_text=asked.get("new_text"),
            audio=_recording(asked.get("audio"), audio, "audio"),
            spans=tuple((a, b, words) for a, b, words in asked.get("spans", ())),
            seconds=asked.get("seconds"),
            voice=_replayed_voice(asked.get("voice"), voice),
            style=asked.get("style", {}),
            lexicon={w: tuple(p) for w, p in asked["lexicon"].items()}
            if "lexicon" in asked
            else None,
            seed=record["seed"],
            temperature=asked.get("temperature", 1.0),
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"the speechloom record is damaged: {error!r} is missing") from None


def _recording(record: Mapping[str, str] | None, given: Any, name: str) -> Any:
    if record is None:
        return given
    source = given if given is not None else record.get("path")
    if source is None:
        raise UsageError(f"the recording was not a file; give it again with {name}=")
    loaded = load_audio(source)
    if record.get("sha256") not in (None, loaded.sha256):
        raise UsageError(
            f"{source} is not the recording that this was made from: its samples differ"
        )
    return source


def _replayed_voice(record: Mapping[str, Any] | None, given: Any) -> Any:
    if record is None or given is not None:
        return given
    if "vector" in record:
        vector = np.asarray(record["vector"], np.float32)
        return Voice(vector, record["kind"], record["name"]) if "kind" in record else vector
    if "name" in record:
        return record["name"]
    return _recording(record, None, "voice")


def _check_weights(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    weights = {row["role"]: row["weights"] for row in now}
    for row in then:
        if row["weights"] != weights.get(row["role"]):
            raise WeightsError(
                f"{row['role']} {row['id']} has other weights than those that made this file "
                f"({row['distribution']} {row['version']}); install that version"
            )
