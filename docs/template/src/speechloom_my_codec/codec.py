"""Each frame as the mean of its eight blocks, in mu-law: a codec of 50 frames a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from speechloom.errors import UsageError
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom.values import Audio, Codes, fit_length, frames_in, pad_stack

MU = 255.0
SILENCE = 127
"""The code of zero; codes go from 0 to twice as much."""


class MyCodec:
    """Keeps what lies below 200 Hz or so; silence comes back as exact zeros.

    Attributes:
        spec: what the entry point announced.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        self.spec = spec

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of each weight file by its name; there are none."""
        return {}

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> MyCodec:
        """Build it; `device` does not matter, since all of it is arithmetic on the host."""
        return cls(spec)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> MyCodec:
        """Build it without files; there is nothing random about it."""
        return cls(spec)

    @property
    def facts(self) -> CodecFacts:
        """What the spec says that it takes and gives."""
        facts = self.spec.facts
        assert isinstance(facts, CodecFacts)
        return facts

    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Encode a batch; item i has ceil(seconds_i x frame_rate) frames."""
        facts = self.facts
        items = [torch.from_numpy(compress(self._block_means(one))) for one in audio]
        lengths = torch.tensor([item.shape[-1] for item in items])
        return Codes(pad_stack(items), facts.codes, facts.codebook_size, facts.frame_rate, lengths)

    def decode(self, codes: Codes) -> list[Audio]:
        """Decode a batch: every code becomes one block of constant samples.

        Raises:
            UsageError: the codes are of another codec.
        """
        facts = self.facts
        if (codes.kind, codes.codebooks) != (facts.takes, facts.codebooks):
            raise UsageError(
                f"codes must be {facts.takes} with {facts.codebooks} codebooks, but are "
                f"{codes.kind} with {codes.codebooks}; decode them with the codec they are of"
            )
        items = [codes.item(index).cpu().numpy() for index in range(len(codes.lengths))]
        return [self._play(item) for item in items]

    @property
    def _hop(self) -> int:
        return int(self.facts.sample_rate / self.facts.frame_rate)

    def _block_means(self, audio: Audio) -> NDArray[np.float32]:
        """Means of the blocks, [K, F]; the last frame is padded with zeros."""
        facts = self.facts
        frames = frames_in(audio.length, audio.sample_rate, facts.frame_rate)
        samples = audio.mono().resampled(facts.sample_rate).samples
        blocks = fit_length(samples, frames * self._hop).reshape(frames, facts.codebooks, -1)
        return np.asarray(blocks.mean(axis=2).T, dtype=np.float32)

    def _play(self, ids: NDArray[np.int64]) -> Audio:
        block = self._hop // self.facts.codebooks
        samples = np.repeat(expand(ids).T.reshape(-1), block)
        return Audio(samples[None].astype(np.float32), self.facts.sample_rate)


def compress(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in [-1, 1] as mu-law codes; louder ones are clipped."""
    values = np.clip(values, -1, 1)
    bent = np.sign(values) * np.log1p(MU * np.abs(values)) / np.log1p(MU)
    return np.asarray(np.rint((bent + 1) * SILENCE), dtype=np.int64)


def expand(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The values that mu-law codes stand for."""
    bent = codes / SILENCE - 1
    return np.asarray(np.sign(bent) * np.expm1(np.abs(bent) * np.log1p(MU)) / MU)
