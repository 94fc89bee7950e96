"""The codec and the tokenizer: one network, one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechloom.checkpoints import pinned_files
from speechloom.errors import UsageError
from speechloom.protocols import WeightFile
from speechloom.published import (
    PublishedCodec,
    PublishedComponent,
    stacked_codes,
    stacked_tokens,
)
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Codes, Tokens
from speechloom.windows import frames_at_once
from speechloom_speechtokenizer.loading import Loaded, load, random_network
from speechloom_speechtokenizer.network import DecoderStream, SpeechTokenizerNetwork

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SpeechTokenizerCodec", "SpeechTokenizerUnits"]


class _SpeechTokenizer(PublishedComponent):
    """What both share: the network, and codes of recordings.

    Recordings are encoded one by one: the network looks at the end of each, so that padding one to
    the length of another would change its codes.
    """

    def __init__(self, spec: ComponentSpec, loaded: Loaded) -> None:
        super().__init__(spec, loaded.weights)
        self._loaded = loaded

    @property
    def network(self) -> SpeechTokenizerNetwork:
        """The network; components of one checkpoint and device have the same."""
        return self._loaded.network

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """Load the spec's checkpoint, or use the network that another component has loaded.

        Raises:
            WeightsError: files are missing, damaged, unsafe, of another model or of other rates.
        """
        return cls(spec, load(spec, device))

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """Build it tiny, with random weights and the rates and codebooks that the spec promises."""
        return cls(spec, Loaded(random_network(spec, seed), {}))

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The files whose hash the spec pins; nothing is loaded."""
        options = spec.options
        folder = PurePosixPath(options.get("folder") or "")
        pinned = {str(folder / name): h for name, h in (options.get("sha256") or {}).items()}
        files = pinned_files(options["checkpoint"], revision=options.get("revision"), sha256=pinned)
        return {PurePosixPath(name).name: file for name, file in files.items()}

    def _rows(self, audio: Sequence[Audio]) -> list[Tensor]:
        """All codes int64 [K, F] of each recording, on the CPU."""
        recent = self.network.codes_of_audio
        return [recent.get(one, partial(self._encoded, one)) for one in audio]

    def _encoded(self, audio: Audio) -> Tensor:
        samples = audio.mono().resampled(self.network.config.sample_rate).tensor()[0]
        return self.network.encode(samples.to(self.network.device)).cpu()


class SpeechTokenizerUnits(_SpeechTokenizer):
    """Level 1 of the codes: the units that were taught by HuBERT to say what is said.

    After a codec of the same checkpoint has encoded a recording, its units cost nothing, and the
    other way round: see `RecentCodes`.
    """

    def encode(self, audio: Sequence[Audio]) -> Tokens:
        """Units int64 [B, F].

        Args:
            audio: B recordings of any rate and channel count.
        """
        return self._units(self._rows(audio))

    @property
    def centroids(self) -> Tensor:
        """The vector of each unit, float32 [V, D], for networks that start from them."""
        return self.network.quantizer.codebooks[0].embed.clone()

    def units_of(self, codes: Codes) -> Tokens:
        """The units in codes of the same checkpoint, without the audio.

        Args:
            codes: [B, K, F] of this SpeechTokenizer.

        Raises:
            UsageError: the codes are of another codec.
        """
        facts = self._facts
        if f"{codes.codec}-level-1" != facts.vocabulary:
            raise UsageError(f"{self.spec.id} gives {facts.gives}, not level 1 of {codes.kind}")
        return self._units([codes.item(i) for i in range(len(codes.lengths))])

    def _units(self, rows: Sequence[Tensor]) -> Tokens:
        return stacked_tokens([row[0] for row in rows], self._facts)

    @property
    def _facts(self) -> TokenizerFacts:
        assert isinstance(self.spec.facts, TokenizerFacts)
        return self.spec.facts


class SpeechTokenizerCodec(_SpeechTokenizer, PublishedCodec):
    """All levels: the first says what is said, the others how it sounds."""

    def encode(self, audio: Sequence[Audio], *, num_codebooks: int | None = None) -> Codes:
        """Codes int64 [B, K, F].

        Args:
            audio: B recordings of any rate and channel count.
            num_codebooks: how many levels, the first ones; None for those of the spec.

        Raises:
            UsageError: there are not so many levels.
        """
        facts = self.facts
        levels = facts.codebooks if num_codebooks is None else num_codebooks
        if not 1 <= levels <= facts.codebooks:
            raise UsageError(
                f"{self.spec.id} has 1 to {facts.codebooks} levels, but {levels} were asked for"
            )
        return stacked_codes([row[:levels] for row in self._rows(audio)], facts)

    def decode(self, codes: Codes) -> list[Audio]:
        """Audio of hop samples per frame.

        Args:
            codes: of this codec; the first levels may be given alone.

        Raises:
            UsageError: the codes are of another codec, have more levels, or no frames.
        """
        self.check_playable(codes)
        items = [codes.item(i).to(self.network.device) for i in range(len(codes.lengths))]
        return [self._audio(self.network.decode(ids)) for ids in items]

    def stream(self, codes: Codes, *, seconds: float = 1.0) -> Iterator[Audio]:
        """Decode one item piece by piece, so that playing can begin before all is decoded.

        The LSTM's state is carried from piece to piece, so that the audio is that of the whole
        however long it gets; it comes late by the few frames that the convolutions look ahead.
        Codes that are still being made go into a `DecoderStream` as they come.

        Args:
            codes: of this codec, a single item.
            seconds: about how much to decode at once.

        Yields:
            Audio whose concatenation is what `decode` gives.

        Raises:
            UsageError: as `decode`, there is not exactly one item, or `seconds` is not above 0.
        """
        self.check_single(codes)
        stream = DecoderStream(self.network)
        frames = frames_at_once(seconds, self.facts.frame_rate)
        pieces = torch.split(codes.item(0).to(self.network.device), frames, dim=-1)
        for piece in pieces:
            samples = stream.push(piece, last=piece is pieces[-1])
            if len(samples):
                yield self._audio(samples)

    def codebook(self, level: int) -> Tensor:
        """The vectors of a level, for generators whose embeddings start from them.

        Args:
            level: from 0.

        Returns:
            float32 [V, D]: what each id of this level adds to a frame.

        Raises:
            UsageError: there is no such level.
        """
        self.check_level(level)
        return self.network.quantizer.codebooks[level].embed.clone()

    @torch.inference_mode()
    def embed(self, codes: Codes) -> Tensor:
        """What the decoder takes for these codes: the sum of their vectors over the levels.

        Args:
            codes: of this codec; the first levels may be given alone.

        Returns:
            float32 [B, D, F]; frames past the end of an item are those of id 0.

        Raises:
            UsageError: as `decode`.
        """
        self.check_codes(codes)
        decode = self.network.quantizer.decode
        return torch.stack([decode(ids) for ids in codes.ids.to(self.network.device)])

    def _audio(self, samples: Tensor) -> Audio:
        return Audio(samples.cpu().numpy()[None], self.facts.sample_rate)
