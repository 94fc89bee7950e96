"""Reading the corpus: crops of audio with phone labels, all draws from a given generator."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor

from speechloom_starter.mel import HOP, SAMPLE_RATE, frame_count
from speechloom_starter.phones import PAUSE

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
FRAME_SECONDS = HOP / SAMPLE_RATE
IGNORED = -100


@dataclass(frozen=True)
class Utterance:
    """One utterance: where it lies, who speaks, and its phones with their ends in seconds."""

    offset: int
    length: int
    speaker: str
    sentence: int
    rate: float
    phones: Ints
    ends: npt.NDArray[np.float64]

    @property
    def is_real(self) -> bool:
        """A recording, whose phones are not known."""
        return len(self.phones) == 0


class Corpus:
    """The utterances of one split of a corpus folder, held as a memory map."""

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.audio = np.memmap(folder / "audio.i16", dtype=np.int16, mode="r")
        self.utterances: list[Utterance] = []
        offset = 0
        for line in (folder / "index.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["split"] == split:
                self.utterances.append(_utterance(record, offset))
            offset += record["length"]
        self.real = [i for i, u in enumerate(self.utterances) if u.is_real]
        self.spoken = [i for i, u in enumerate(self.utterances) if not u.is_real]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for i, utterance in enumerate(self.utterances):
            groups[utterance.speaker].append(i)
        self.by_speaker = dict(groups)

    def __len__(self) -> int:
        return len(self.utterances)

    def samples(self, index: int) -> Floats:
        """All samples of an utterance, float32 [T]."""
        u = self.utterances[index]
        return _unit(self.audio[u.offset : u.offset + u.length])

    def crop(
        self, index: int, samples: int, rng: np.random.Generator, ratio: float = 1.0
    ) -> tuple[Floats, float]:
        """``samples`` samples at a random place, played ``ratio`` times as fast.

        An utterance that is too short is followed by silence.

        Returns:
            The samples, and where they start in the utterance, in seconds.
        """
        u = self.utterances[index]
        needed = int(np.ceil(samples * ratio)) + 1
        start = int(rng.integers(0, max(1, u.length - needed + 1)))
        piece = self.audio[u.offset + start : u.offset + min(u.length, start + needed)]
        crop = _unit(piece)
        if ratio != 1.0:
            crop = soxr.resample(crop, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="LQ")
        out = np.zeros(samples, np.float32)
        out[: min(samples, len(crop))] = crop[:samples]
        return out, start / SAMPLE_RATE

    def phone_at(self, index: int, frames: int, start: float = 0.0, ratio: float = 1.0) -> Ints:
        """Position int64 [F] in the utterance's phones at the middle of each frame of a crop."""
        u = self.utterances[index]
        times = start + (np.arange(frames) + 0.5) * FRAME_SECONDS * ratio
        return np.minimum(np.searchsorted(u.ends, times, side="right"), len(u.phones) - 1)

    def labels(self, index: int, frames: int, start: float, ratio: float) -> Ints:
        """The phone before, at and after each frame, int64 [F, 3]; -100 where it is not known."""
        u = self.utterances[index]
        if u.is_real:
            return np.full((frames, 3), IGNORED)
        at = self.phone_at(index, frames, start, ratio)
        padded = np.concatenate(([PAUSE], u.phones, [PAUSE]))
        return np.stack((padded[at], padded[at + 1], padded[at + 2]), 1)


def _unit(pcm: npt.NDArray[np.int16]) -> Floats:
    samples: Floats = pcm.astype(np.float32) * np.float32(1 / 32768)
    return samples


def _utterance(record: dict[str, object], offset: int) -> Utterance:
    return Utterance(
        offset=offset,
        length=int(str(record["length"])),
        speaker=str(record["speaker"]),
        sentence=int(str(record["sentence"])),
        rate=float(str(record["rate"])),
        phones=np.array(record["phones"], dtype=np.int64),
        ends=np.array(record["ends"], dtype=np.float64),
    )


def crops(
    corpus: Corpus, indices: list[int], seconds: float, rng: np.random.Generator, spread: float
) -> tuple[Tensor, Tensor]:
    """Crops float32 [B, T] and labels int64 [B, F, 3], each at its own speed within ``spread``."""
    samples = frame_count(round(seconds * SAMPLE_RATE)) * HOP
    audio, labels = [], []
    for index in indices:
        ratio = float(np.exp(rng.uniform(-spread, spread))) if spread else 1.0
        crop, start = corpus.crop(index, samples, rng, ratio)
        audio.append(crop)
        labels.append(corpus.labels(index, samples // HOP, start, ratio))
    return torch.from_numpy(np.stack(audio)), torch.from_numpy(np.stack(labels))
