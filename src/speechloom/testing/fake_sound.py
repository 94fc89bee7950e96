"""Fakes that hear or make sound: tokenizer, codec, vocoder, speaker encoder, aligner."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from speechloom.errors import AudioError, UsageError
from speechloom.spec import (
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    SpeakerEncoderFacts,
    TokenizerFacts,
    VocoderFacts,
)
from speechloom.testing.fake_base import Fake
from speechloom.testing.fake_specs import (
    ALIGNER,
    BLOCKS,
    CODEC,
    FRAME_RATE,
    SAMPLE_RATE,
    SPEAKER_ENCODER,
    TOKENIZER,
    VOCODER,
)
from speechloom.values import (
    Audio,
    Codes,
    Features,
    Phones,
    Tokens,
    Voice,
    fit_length,
    frames_in,
    pad_stack,
    samples_at,
)

__all__ = ["FakeAligner", "FakeCodec", "FakeSpeakerEncoder", "FakeTokenizer", "FakeVocoder"]

MU = 255
CENTRE = 127
"""The code of silence."""


def _framed(audio: Audio) -> NDArray[np.float32]:
    """Frames of the resampled mono signal [F, hop], the last one padded with zeros."""
    frames = frames_in(audio.length, audio.sample_rate, FRAME_RATE)
    samples = audio.mono().resampled(SAMPLE_RATE).samples
    length = samples_at(frames, SAMPLE_RATE, FRAME_RATE)
    return fit_length(samples, length).reshape(frames, -1)


def block_means(audio: Audio) -> NDArray[np.float32]:
    """Mean of each eighth of a frame, [K, F]."""
    frames = _framed(audio)
    means: NDArray[np.float32] = frames.reshape(len(frames), BLOCKS, -1).mean(axis=2).T
    return np.clip(means, -1, 1)


def line_through(blocks: NDArray[np.float64]) -> Audio:
    """The line through block means [K, F], each at the middle of its block."""
    values = blocks.T.reshape(-1)
    size = SAMPLE_RATE // (int(FRAME_RATE) * BLOCKS)
    at = (np.arange(values.size * size) + 0.5) / size - 0.5
    below = np.clip(np.floor(at).astype(np.int64), 0, values.size - 1)
    above = np.minimum(below + 1, values.size - 1)
    part = np.clip(at - below, 0, 1)
    return Audio((values[below] * (1 - part) + values[above] * part)[None], SAMPLE_RATE)


def mu_law(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Values in [-1, 1] as codes 0 to 254; 127 is exactly zero."""
    bent = np.sign(values) * np.log1p(MU * np.abs(values)) / np.log1p(MU)
    codes: NDArray[np.int64] = np.rint((bent + 1) * CENTRE).astype(np.int64)
    return codes


def mu_law_inverse(codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The values that codes stand for."""
    bent = np.minimum(codes, 2 * CENTRE) / CENTRE - 1
    values: NDArray[np.float64] = np.sign(bent) * np.expm1(np.abs(bent) * np.log1p(MU)) / MU
    return values


class FakeTokenizer(Fake):
    """Loudness of a frame in 32 steps times its share of sign changes in 4 steps.

    Units below 4 are silence. Each frame stands alone, so that any cut at a frame gives the same.
    """

    default_spec: ClassVar[ComponentSpec] = TOKENIZER

    def encode(self, audio: Sequence[Audio]) -> Tokens:
        """Encode a batch to units [B, F]."""
        facts = self.spec.facts
        assert isinstance(facts, TokenizerFacts)
        items = [torch.from_numpy(_units(_framed(one))) for one in audio]
        lengths = torch.tensor([len(item) for item in items])
        return Tokens(
            pad_stack(items), facts.vocabulary, facts.vocabulary_size, facts.frame_rate, lengths
        )


def _units(frames: NDArray[np.float32]) -> NDArray[np.int64]:
    loudness = np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1))
    level = np.minimum(np.log1p(MU * loudness) / np.log1p(MU) * 31, 31).astype(np.int64)
    changes = (np.diff(np.signbit(frames).astype(np.int8), axis=1) != 0).mean(axis=1)
    units: NDArray[np.int64] = level * 4 + np.minimum(changes * 8, 3).astype(np.int64)
    return units


class FakeCodec(Fake):
    """Eight block means per frame in mu-law, played back as the line through them.

    The outline of sound below 100 Hz survives; silence comes back as exact zeros.
    """

    default_spec: ClassVar[ComponentSpec] = CODEC

    @property
    def _facts(self) -> CodecFacts:
        facts = self.spec.facts
        assert isinstance(facts, CodecFacts)
        return facts

    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Encode a batch to codes [B, 8, F]."""
        facts = self._facts
        items = [torch.from_numpy(mu_law(block_means(one))) for one in audio]
        lengths = torch.tensor([item.shape[-1] for item in items])
        return Codes(pad_stack(items), facts.codes, facts.codebook_size, facts.frame_rate, lengths)

    def decode(self, codes: Codes) -> list[Audio]:
        """Decode a batch, 320 samples per frame."""
        if codes.kind != self._facts.takes or codes.codebooks != self._facts.codebooks:
            raise UsageError(
                f"codes must be {self._facts.takes} with {self._facts.codebooks} codebooks, but "
                f"are {codes.kind} with {codes.codebooks}; decode them with the codec they are of"
            )
        return [
            line_through(mu_law_inverse(codes.item(index).cpu().numpy()))
            for index in range(len(codes.lengths))
        ]


class FakeVocoder(Fake):
    """Plays block means as the line through them."""

    default_spec: ClassVar[ComponentSpec] = VOCODER

    def render(self, features: Features) -> list[Audio]:
        """Render a batch, 320 samples per frame."""
        facts = self.spec.facts
        assert isinstance(facts, VocoderFacts)
        if features.kind != facts.takes or features.values.shape[1] != facts.size:
            raise UsageError(
                f"features must be {facts.takes} [B, {facts.size}, F], but are {features.kind} "
                f"{list(features.values.shape)} instead"
            )
        values = features.values.detach().cpu().numpy().astype(np.float64)
        lengths = features.lengths.tolist()
        return [line_through(values[i, :, :length]) for i, length in enumerate(lengths)]


class FakeSpeakerEncoder(Fake):
    """Autocorrelation at four lags: close for one voice, apart for low and high ones."""

    default_spec: ClassVar[ComponentSpec] = SPEAKER_ENCODER
    lags = (2, 8, 32, 96)

    @property
    def _facts(self) -> SpeakerEncoderFacts:
        facts = self.spec.facts
        assert isinstance(facts, SpeakerEncoderFacts)
        return facts

    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """One voice [4] per recording."""
        return [self._embed(one) for one in audio]

    def _embed(self, audio: Audio) -> Voice:
        if audio.seconds < self._facts.min_seconds:
            raise AudioError(
                f"a voice needs at least {self._facts.min_seconds} s, but the recording has "
                f"{audio.seconds:.3f} s; give a longer one"
            )
        samples = audio.mono().resampled(SAMPLE_RATE).samples[0].astype(np.float64)
        power = float(samples @ samples)
        if power / samples.size < 1e-8:
            raise AudioError("a voice cannot be taken from silence; give a recording of speech")
        vector = [samples[lag:] @ samples[:-lag] / power for lag in self.lags]
        return Voice(np.asarray(vector, dtype=np.float32), self._facts.voice)

    def named(self, name: str) -> Voice:
        """``ann`` or ``bob``."""
        names = self._facts.named_voices
        if name not in names:
            raise UsageError(f"no voice is named {name!r}; the voices are {', '.join(names)}")
        vector = np.eye(len(self.lags), dtype=np.float32)[names.index(name)]
        return Voice(vector, self._facts.voice, name)


class FakeAligner(Fake):
    """Gives every phone the same share of the recording, cut at frames.

    That is exact for speech by `FakeTextGenerator`, whose phones all last as long.
    """

    default_spec: ClassVar[ComponentSpec] = ALIGNER

    def align(self, audio: Audio, phones: Sequence[Phones]) -> list[list[tuple[float, float]]]:
        """(start, end) in seconds of each phone of each utterance."""
        facts = self.spec.facts
        assert isinstance(facts, AlignerFacts)
        foreign = {one.alphabet for one in phones} - {facts.alphabet}
        if foreign:
            raise UsageError(
                f"phones must be of the alphabet {facts.alphabet}, but are of {min(foreign)}"
            )
        if facts.max_seconds is not None and audio.seconds > facts.max_seconds:
            raise UsageError(
                f"the recording lasts {audio.seconds:.1f} s, but at most {facts.max_seconds} s "
                "can be aligned in one call; cut it"
            )
        total = sum(len(one) for one in phones)
        frames = frames_in(audio.length, audio.sample_rate, facts.frame_rate)
        if frames < total:
            raise UsageError(
                f"the recording has {frames} frames for {total} phones, but needs one for each; "
                "check that the text belongs to it"
            )
        edges = [_edge(i, total, frames, facts.frame_rate, audio.seconds) for i in range(total + 1)]
        spans = list(zip(edges[:-1], edges[1:], strict=True))
        starts = np.cumsum([0, *(len(one) for one in phones)])
        return [spans[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]


def _edge(index: int, total: int, frames: int, frame_rate: Fraction, seconds: float) -> float:
    """Time of one edge; the last frame may reach past the end of the recording."""
    if total == 0:
        return 0.0
    return min(float(Fraction(index * frames // total) / frame_rate), seconds)
