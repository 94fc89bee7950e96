"""The record of how speech came to be, and making it again from that record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from speechloom.chain import Role
from speechloom.container import AudioLike, load_audio
from speechloom.errors import SpeechloomError, UsageError, WeightsError
from speechloom.parts import core_version
from speechloom.requesting import lexicon_of, style_of
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
        "seed": int(request.seed),
        "request": _as_json(request, parts),
    }


def _as_json(request: Request, parts: Parts) -> dict[str, Any]:
    record: dict[str, Any] = {"task": request.task, "temperature": float(request.temperature)}
    for name in ("text", "new_text"):
        if getattr(request, name) is not None:
            record[name] = str(getattr(request, name))
    if request.seconds is not None:
        record["seconds"] = float(request.seconds)
    if request.spans:
        record["spans"] = [[float(start), float(end), text] for start, end, text in request.spans]
    if request.style:
        record["style"] = style_of(request.style)
    if request.lexicon:
        record["lexicon"] = {word: list(phones) for word, phones in request.lexicon.items()}
    if request.audio is not None:
        record["audio"] = _audio_record(request.audio)
    if request.voice is not None:
        record["voice"] = _voice_record(request.voice, parts.named_voices)
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


def _voice_record(voice: Any, named: Sequence[str]) -> dict[str, Any]:
    if isinstance(voice, Voice):
        return {"kind": voice.kind, "name": voice.name, "vector": voice.vector.tolist()}
    if isinstance(voice, (str, os.PathLike)):
        name = os.fspath(voice)
        return {"name": name} if name in named else _audio_record(name)
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
    then = _chain_of(record)
    wanted = {cast(Role, row["role"]): row["id"] for row in then}
    chosen = pipeline or Pipeline(device=device, parts=wanted)
    speech = chosen.run(request)
    _check_same(then, speech.provenance["chain"])
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
            lexicon=lexicon_of(asked.get("lexicon")),
            seed=record["seed"],
            temperature=asked.get("temperature", 1.0),
        )
    except SpeechloomError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the speechloom record is damaged: {error!r}") from None


def _chain_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = {"role", "id", "distribution", "version", "weights"}
    rows = record.get("chain")
    whole = isinstance(rows, list) and all(isinstance(r, dict) and fields <= set(r) for r in rows)
    if not whole:
        raise UsageError("the speechloom record is damaged: its chain is not whole")
    return cast("list[dict[str, Any]]", rows)


def _recording(record: Mapping[str, str] | None, given: Any, name: str) -> Any:
    if record is None:
        if given is not None:
            raise UsageError(f"this was made from no recording; leave {name}= out")
        return None
    source = given if given is not None else record.get("path")
    if source is None:
        raise UsageError(f"the recording was not a file; give it again with {name}=")
    if given is None and not Path(source).exists():
        raise UsageError(f"{source} is gone; say where the recording is now with {name}=")
    loaded = load_audio(source)
    if record.get("sha256") not in (None, loaded.sha256):
        raise UsageError(
            f"{given or record.get('path')} is not the recording that this was made from: its "
            f"samples differ; give the right one with {name}="
        )
    return loaded if hasattr(source, "read") or source == "-" else source


def _replayed_voice(record: Mapping[str, Any] | None, given: Any) -> Any:
    if record is None or "vector" in record or "name" in record:
        if given is not None:
            raise UsageError("this was not made with the voice of a recording; leave voice= out")
    if record is None:
        return None
    if "vector" in record:
        vector = np.asarray(record["vector"], np.float32)
        return Voice(vector, record["kind"], record["name"]) if "kind" in record else vector
    if "name" in record:
        return record["name"]
    return _recording(record, given, "voice")


def _check_same(then: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    rows = {row["role"]: row for row in now}
    for row in then:
        other = rows.get(row["role"], {"id": "nothing", "weights": None})
        if row["id"] != other["id"]:
            raise UsageError(
                f"this file was made with {row['role']} {row['id']}, but the pipeline has "
                f"{other['id']} there; use the same parts"
            )
        if row["weights"] != other["weights"]:
            raise WeightsError(
                f"{row['role']} {row['id']} has other weights than those that made this file "
                f"({row['distribution']} {row['version']}); install that version"
            )
