"""What is said when in a recording: from the alignment in the data, or by an aligner."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch

from speechloom.errors import UsageError
from speechloom.protocols import Aligner, Frontend, Generator
from speechloom.spec import FrontendFacts, GeneratorFacts
from speechloom.training.example import Example
from speechloom.values import Audio, Canvas

__all__ = ["AlignedPhones", "aligned_phones"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AlignedPhones:
    """The phones of a recording, end to end.

    Attributes:
        ids: int64 [N], by the alphabet of the front end.
        ends: float64 [N], when each ends, seconds, rising.
    """

    ids: Ints
    ends: npt.NDArray[np.float64]

    def frames(self, frame_rate: Fraction) -> npt.NDArray[np.float64]:
        """How long each phone lasts, float64 [N] in frames."""
        return np.diff(self.ends, prepend=0.0) * float(frame_rate)

    def counts(self, frames: int, frame_rate: Fraction) -> Ints:
        """How many of `frames` frames belong to each phone, int64 [N]: those whose middle it holds.

        Frames past the last end are the last phone's.
        """
        middles = (np.arange(frames) + 0.5) / float(frame_rate)
        at = np.minimum(np.searchsorted(self.ends, middles, side="right"), len(self.ids) - 1)
        return np.bincount(at, minlength=len(self.ids)).astype(np.int64)

    def canvas(self, frames: int, frontend: Frontend, generator: Generator) -> Canvas:
        """An empty canvas of one item on which these phones lie at their times.

        Args:
            frames: of the canvas.
            frontend: whose phones they are.
            generator: that is to fill it.
        """
        facts, spelled = generator.spec.facts, frontend.spec.facts
        assert isinstance(facts, GeneratorFacts)
        assert isinstance(spelled, FrontendFacts)
        counts = self.counts(frames, facts.frame_rate)
        shape = (1, facts.codebooks, frames)
        return Canvas(
            task="synthesize",
            ids=torch.zeros(shape, dtype=torch.int64),
            known=torch.zeros(shape, dtype=torch.bool),
            lengths=torch.tensor([frames]),
            gives=facts.gives,
            codebook_size=facts.codebook_size,
            frame_rate=facts.frame_rate,
            seeds=torch.tensor([0]),
            items=torch.tensor([0]),
            content=torch.from_numpy(np.repeat(self.ids, counts))[None],
            content_kind=spelled.gives,
            segments=torch.from_numpy(np.repeat(np.arange(len(counts)), counts))[None],
        )


def aligned_phones(
    example: Example, audio: Audio, frontend: Frontend, aligner: Aligner | None
) -> AlignedPhones:
    """The phones of an example, in time.

    Args:
        example: with an alignment, or with a text for the aligner.
        audio: of the example.
        frontend: spells the text, and names the phones.
        aligner: finds them; None where all examples have alignments.

    Raises:
        UsageError: there is neither; phones that the front end does not know; times that run
            backwards.
    """
    facts = frontend.spec.facts
    assert isinstance(facts, FrontendFacts)
    if example.alignment is not None:
        spoken = list(example.alignment)
    elif example.text is not None and aligner is not None:
        spoken = _found(audio, example.text, frontend, aligner, facts.pause)
    else:
        raise UsageError(
            "text to units needs an alignment in the data, or a text and an aligner "
            "(settings.aligner)"
        )
    ids = {symbol: index for index, symbol in enumerate(facts.phones)}
    unknown = sorted({symbol for symbol, _ in spoken} - set(ids))
    if unknown or not spoken:
        raise UsageError(
            f"the alignment has {f'phones {unknown}' if unknown else 'no phones'}; the phones of "
            f"{frontend.spec.id} are {', '.join(facts.phones)}"
        )
    ends = np.array([end for _, end in spoken], dtype=np.float64)
    if (np.diff(ends, prepend=0.0) < 0).any():
        raise UsageError("the ends of an alignment must not fall from phone to phone")
    return AlignedPhones(np.array([ids[symbol] for symbol, _ in spoken], dtype=np.int64), ends)


def _found(
    audio: Audio, text: str, frontend: Frontend, aligner: Aligner, pause: str
) -> list[tuple[str, float]]:
    """Phones and their ends; what lies between two is a pause, and unsaid pauses are none."""
    sentences = frontend.phonemize(text)
    spoken: list[tuple[str, float]] = []
    at = 0.0
    for phones, spans in zip(sentences, aligner.align(audio, sentences), strict=True):
        for symbol, (start, end) in zip(phones.symbols, spans, strict=True):
            if start > at:
                spoken.append((pause, start))
            if end > start:
                spoken.append((symbol, end))
            at = max(at, end)
    if audio.seconds > at:
        spoken.append((pause, audio.seconds))
    return _joined(spoken, pause)


def _joined(spoken: list[tuple[str, float]], pause: str) -> list[tuple[str, float]]:
    """Two pauses in a row are one."""
    joined: list[tuple[str, float]] = []
    for symbol, end in spoken:
        if joined and symbol == pause == joined[-1][0]:
            joined.pop()
        joined.append((symbol, end))
    return joined
