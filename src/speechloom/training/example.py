"""One example of the training data: a stretch of a recording, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from speechloom.container import load_audio
from speechloom.errors import AudioError
from speechloom.values import Audio

__all__ = ["Example"]


@dataclass(frozen=True)
class Example:
    """A stretch of a recording, and what is known of it.

    Attributes:
        audio: the file.
        id: names it in messages.
        text: what is said.
        speaker: who says it.
        language: BCP 47 code.
        start: where it begins in the file, seconds.
        end: where it ends in the file, seconds; None at the end of the file.
        alignment: each phone and when it ends, seconds from the beginning of the example.
        tags: other labels, such as ``{"emotion": "happy"}``.
        place: where the data say so (``train.jsonl:12``), for messages.
    """

    audio: Path
    id: str
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    start: float = 0.0
    end: float | None = None
    alignment: tuple[tuple[str, float], ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    place: str = ""

    def load(self) -> Audio:
        """The samples of the stretch, rate and channels as in the file.

        Raises:
            AudioError: the file cannot be read, or ends before the stretch does.
        """
        audio = load_audio(self.audio)
        first = round(self.start * audio.sample_rate)
        last = audio.length if self.end is None else round(self.end * audio.sample_rate)
        # Times in seconds are rounded by whoever wrote them: half a frame of 10 ms is no fault.
        if first >= audio.length or last > audio.length + audio.sample_rate // 200:
            raise AudioError(
                f"{self.audio} lasts {audio.seconds:.3f} s, but the example is {self.start} to "
                f"{'the end' if self.end is None else self.end} s of it"
            )
        return audio.slice(first, min(last, audio.length))
