"""What comes in and what goes out: `Request` and `Speech`.

A `Speech` carries all that is needed to make it again: the seed that was used, the chain of
components with their versions and weight hashes, and the request. That record travels in the
metadata of the file, or beside it where the format has no room.
"""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.container import (
    AudioLike,
    encode_audio,
    read_comment,
    save_audio,
    write_atomically,
)
from speechloom.errors import UsageError
from speechloom.values import Audio, Codes, Tokens

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from speechloom.spec import Task

__all__ = ["Alignment", "Region", "Request", "Span", "Speech", "read_provenance"]

PROVENANCE_PREFIX = "speechloom-provenance:"


@dataclass(frozen=True)
class Span:
    """A word or a phone in time.

    Attributes:
        text: its spelling.
        start_seconds: from the beginning of the audio.
        end_seconds: not before the start.
    """

    text: str
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True)
class Alignment:
    """When each word and each phone is said."""

    words: tuple[Span, ...] = ()
    phones: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Region:
    """A stretch of the result that was generated; everything else is the caller's own.

    Attributes:
        start: first generated sample of the result.
        end: the sample after the last.
        sample_rate: Hz.
    """

    start: int
    end: int
    sample_rate: int

    @property
    def start_seconds(self) -> float:
        """Start in seconds."""
        return self.start / self.sample_rate

    @property
    def end_seconds(self) -> float:
        """End in seconds."""
        return self.end / self.sample_rate


@dataclass(frozen=True)
class Request:
    """One request, with every default filled in.

    Attributes:
        task: which of the four.
        text: what to say; for ``edit`` the transcript of the recording.
        new_text: for ``edit``, the transcript as it should be.
        audio: the recording that is edited, continued or converted.
        spans: for ``edit``, (start, end, new words) in seconds instead of the transcripts.
        seconds: for ``continue``, how much to add.
        voice: an `AudioLike`, the name of a voice, a vector, or None for the default.
        style: style controls by name, such as ``{"rate": 1.2}``.
        lexicon: pronunciations by lower-case word.
        seed: names every random draw.
        temperature: scales the randomness; 1.0 is the generator's own default.
    """

    task: Task
    text: str | None = None
    new_text: str | None = None
    audio: AudioLike | None = None
    spans: tuple[tuple[float, float, str], ...] = ()
    seconds: float | None = None
    voice: Any = None
    style: Mapping[str, float] = field(default_factory=dict)
    lexicon: Mapping[str, tuple[str, ...]] | None = None
    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class Speech:
    """The result of a task.

    Attributes:
        audio: samples, float32 [C, T], with their rate.
        seed: the seed that was used; the same request with it gives the same samples.
        regions: what was generated, in order; the whole for ``synthesize`` and ``convert``.
        alignment: words and phones in time, as far as they are known.
        tokens: content units that were spoken, one item per sentence or window; may be empty.
        codes: acoustic codes, likewise.
        provenance: components, versions, weight hashes, seed and request, ready for JSON.
        timings: seconds spent per stage.
    """

    audio: Audio
    seed: int
    regions: tuple[Region, ...]
    alignment: Alignment = Alignment()
    tokens: tuple[Tokens, ...] = ()
    codes: tuple[Codes, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        made = sum(r.end_seconds - r.start_seconds for r in self.regions)
        return f"Speech({self.audio!r}, {made:.3f} s generated, seed {self.seed})"

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self.audio.sample_rate

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.audio.seconds

    def numpy(self) -> NDArray[np.float32]:
        """Samples, float32 [C, T]."""
        return self.audio.numpy()

    def tensor(self) -> torch.Tensor:
        """Samples as a torch tensor, float32 [C, T]."""
        return self.audio.tensor()

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        subtype: str | None = None,
        container: str | None = None,
    ) -> None:
        """Write the audio with its provenance record; all of it or nothing.

        The record goes into the file's metadata; where that does not come back as written, into
        ``<path>.json`` beside it.

        Args:
            path: wav, flac, ogg, opus or mp3 by suffix; ``-`` for a wav on standard output.
            subtype: libsndfile sample format; the source file's own by default.
            container: suffix to use instead of the path's own.

        Raises:
            UsageError: an unknown format.
            OutputError: the path cannot be written.
        """
        comment = PROVENANCE_PREFIX + json.dumps(self.provenance, ensure_ascii=True)
        save_audio(self.audio, path, subtype=subtype, comment=comment, container=container)
        if os.fspath(path) != "-" and read_comment(path) != comment:
            sidecar = json.dumps(self.provenance, indent=1).encode()
            write_atomically(_sidecar(Path(path)), lambda file: file.write(sidecar))

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints of it, without the path."""
        return {
            "sample_rate": self.sample_rate,
            "seconds": round(self.seconds, 6),
            "seed": self.seed,
            "chain": list(self.provenance.get("chain", ())),
            "words": [
                {"text": s.text, "start": round(s.start_seconds, 4), "end": round(s.end_seconds, 4)}
                for s in self.alignment.words
            ],
            "regions": [
                {
                    "start": r.start,
                    "end": r.end,
                    "start_seconds": round(r.start_seconds, 6),
                    "end_seconds": round(r.end_seconds, 6),
                }
                for r in self.regions
            ],
            "timings": {name: round(value, 4) for name, value in self.timings.items()},
        }

    def _repr_html_(self) -> str:
        """A player for notebooks; IPython calls this by name."""
        data = base64.b64encode(encode_audio(self.audio, ".wav", subtype="PCM_16")).decode()
        words = html.escape(" ".join(span.text for span in self.alignment.words))
        return (
            f'<figure><audio controls src="data:audio/wav;base64,{data}"></audio>'
            f"<figcaption>{words} ({self.seconds:.2f} s, seed {self.seed})</figcaption></figure>"
        )


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_provenance(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record that `Speech.save` left in or beside a file.

    Raises:
        AudioError: the file cannot be read.
        UsageError: it has no record.
    """
    comment = read_comment(path)
    if comment.startswith(PROVENANCE_PREFIX):
        return _as_record(comment[len(PROVENANCE_PREFIX) :], path)
    sidecar = _sidecar(Path(path))
    if sidecar.exists():
        return _as_record(sidecar.read_text(errors="replace"), sidecar)
    raise UsageError(
        f"{path} has no speechloom record, in its metadata or in {sidecar.name}; "
        "only files that speechloom saved can be replayed"
    )


def _as_record(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"the speechloom record of {path} is damaged: {error}") from None
    if not isinstance(record, dict):
        raise UsageError(f"the speechloom record of {path} is damaged: it is not an object")
    return record
