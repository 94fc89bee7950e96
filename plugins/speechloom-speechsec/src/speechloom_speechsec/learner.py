"""The learner ``speechsec``: content units and a voice to the codes of any codec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from speechloom.compatibility import generator_between
from speechloom.errors import AudioError, UsageError
from speechloom.protocols import Aligner, Codec, Frontend, Generator, SpeakerEncoder, Tokenizer
from speechloom.spec import CodecFacts, GeneratorFacts, SpeakerEncoderFacts, TokenizerFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, Item
from speechloom.units import nearest_frames
from speechloom.values import Audio, Tokens
from speechloom_speechsec.aligned import aligned_phones
from speechloom_speechsec.checkpoint import CheckpointConfig
from speechloom_speechsec.embeddings import code_vectors, content_vectors, start_from_vectors
from speechloom_speechsec.masked_learner import (
    MaskedLearner,
    MaskedSettings,
    Settings,
    spec_in_registry,
    units_in,
)

__all__ = ["SpeechSECLearner", "SpeechSECSettings"]


class SaidSettings(Settings):
    """Units as synthesis has them: made of the text by a generator, not read off the recording.

    They are cleaner than those of any recording, so that a network that only learnt from recordings
    meets in synthesis what it has never seen. Examples that have neither an alignment nor a text
    keep their own.

    Attributes:
        generator: from phones to the units of the tokenizer.
        frontend: spells the texts.
        aligner: finds the phones of examples without an alignment; None where all have one.
        share: of the pieces that have these units.
    """

    generator: str
    frontend: str
    aligner: str | None = None
    share: float = Field(default=0.5, ge=0, le=1)


class SpeechSECSettings(MaskedSettings):
    """What a recipe says of units to codes; tokenizer, codec and voice are ids of components.

    Attributes:
        tokenizer: gives the content.
        codec: gives the codes.
        voice: the speaker encoder; None trains a network without a voice.
        voice_seconds: length of the stretches of a recording that its voice is taken from.
        voice_windows: how many such stretches at most; one is drawn each time, so that the network
            learns the speaker and not the recording.
        said: units made of the text, for a share of the pieces; None for those of the recordings.
        embeddings: ``codebooks`` starts the input embeddings from the codec's codebooks, and from
            the tokenizer's centroids where it gives them; ``random`` draws them.
    """

    tokenizer: str
    codec: str
    voice: str | None = None
    voice_seconds: float = Field(default=3.0, gt=0)
    voice_windows: int = Field(default=4, gt=0)
    said: SaidSettings | None = None
    embeddings: str = Field(default="codebooks", pattern="^(codebooks|random)$")


class SpeechSECLearner(MaskedLearner):
    """Trains one network for the tasks of a recipe, over the tokens of any components.

    Source: SpeechSEC's Task Register and joint loss, see `draw_training_mask` and `masked_loss`.
    """

    settings_type = SpeechSECSettings
    settings: SpeechSECSettings

    def __init__(self, settings: SpeechSECSettings, *, seed: int) -> None:
        tokenizer = spec_in_registry("tokenizer", settings.tokenizer)
        codec = spec_in_registry("codec", settings.codec)
        voice = spec_in_registry("speaker_encoder", settings.voice) if settings.voice else None
        facts = cast(
            GeneratorFacts,
            generator_between(
                tokenizer,
                codec,
                id="speechsec",
                implementation="speechloom_speechsec.generator:SpeechSECGenerator",
                voice=voice,
                tasks=settings.masks.tasks,
                max_seconds=settings.max_seconds,
            ).facts,
        )
        self._units = cast(TokenizerFacts, tokenizer.facts)
        self._codes = cast(CodecFacts, codec.facts)
        network = settings.network.between(
            content_vocab=self._units.vocabulary_size,
            codebooks=facts.codebooks,
            codebook_size=facts.codebook_size,
            voice_dim=facts.voice_size or 0,
        )
        config = CheckpointConfig(
            facts=facts, network=network, decode=settings.decode, free=settings.free
        )
        self.begin(settings, config, seed)
        chance = np.log(facts.codebook_size)
        self.watch = {
            "loss": f"{chance:.1f} at first (chance), about half of it in the end",
            "level_1": "falls first, and below the others",
            "accuracy": "rises; 0.2 to 0.4 in the end",
        }
        if settings.embeddings == "codebooks":
            start_from_vectors(
                self.network.generator,
                code_vectors(self.component("codec", settings.codec)),
                content_vectors(self.component("tokenizer", settings.tokenizer)),
                seed=seed,
            )

    def cache_key(self) -> str:
        """The components with the hashes of their weights."""
        settings = self.settings
        named: Mapping[str, Any] = {
            "tokenizer": [settings.tokenizer, dict(self._tokenizer.weights)],
            "codec": [settings.codec, dict(self._codec.weights)],
            "voice": [settings.voice, dict(self._encoder.weights)] if self._encoder else None,
            "windows": [settings.voice_windows, settings.voice_seconds],
        }
        if settings.said is not None:
            sayer = self.component("generator", settings.said.generator)
            names = settings.said.model_dump(exclude={"share"})
            named = {**named, "said": [names, dict(sayer.weights)]}
        return f"speechsec-1 {json.dumps(named, sort_keys=True)}"

    def prepare(self, example: Example) -> Item:
        """What a step needs of a recording, all at the frames of the codec.

        ``content`` int32 [F], ``codes`` int32 [K, F]; ``said`` int32 [F], the content that a
        generator makes of the text; ``voices`` float32 [W, D].
        """
        audio = example.load()
        own = units_in(self._tokenizer, audio)
        codes = self._codec.encode([audio]).item(0)
        frames, rates = codes.shape[-1], (self._codes.frame_rate, self._units.frame_rate)
        grid = nearest_frames(frames, *rates, len(own))
        item = {"content": own[grid].int(), "codes": codes.int()}
        if self.settings.said is not None:
            item["said"] = self._said(example, audio, own)[grid].int()
        if self._encoder is not None:
            item["voices"] = self._voices_of(audio, self._encoder)
        return item

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Crops, and a voice of each."""
        pairs = [(item[self._source(rng)], item["codes"]) for item in items]
        batch: Batch = dict(self.pieces(pairs, rng))
        if self.settings.voice is not None:
            rows = [item["voices"][int(rng.integers(len(item["voices"])))] for item in items]
            batch["voice"] = torch.stack(rows)
        return batch

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: cross entropy at the masked positions, nats."""
        return self.masked(batch, rng, batch.get("voice"))

    def _source(self, rng: np.random.Generator) -> str:
        """Whether a piece has the units of its recording or of its text."""
        said = self.settings.said
        return "said" if said is not None and rng.random() < said.share else "content"

    def _said(self, example: Example, audio: Audio, own: Tensor) -> Tensor:
        """The units that synthesis would have, int64 [F], at the times of the recording."""
        said = self.settings.said
        assert said is not None
        if example.alignment is None and example.text is None:
            return own
        frontend = cast(Frontend, self.component("frontend", said.frontend))
        aligner = self.component("aligner", said.aligner) if said.aligner else None
        phones = aligned_phones(example, audio, frontend, cast("Aligner | None", aligner))
        generator = cast(Generator, self.component("generator", said.generator))
        tokens = generator.fill(phones.canvas(len(own), frontend, generator))
        if not isinstance(tokens, Tokens) or tokens.vocabulary != self._units.vocabulary:
            raise UsageError(
                f"{said.generator} does not give {self._units.gives}, which the tokenizer gives"
            )
        return tokens.item(0)

    def _voices_of(self, audio: Audio, encoder: SpeakerEncoder) -> Tensor:
        """Voices of stretches of a recording, float32 [W, D]; silent ones are passed over."""
        facts = cast(SpeakerEncoderFacts, encoder.spec.facts)
        length = max(self.settings.voice_seconds, facts.min_seconds)
        samples = round(length * audio.sample_rate)
        count = min(self.settings.voice_windows, max(1, audio.length // samples))
        starts = np.linspace(0, max(0, audio.length - samples), count).round().astype(int)
        vectors = []
        for start in starts.tolist():
            try:
                vectors += encoder.embed([audio.slice(start, min(start + samples, audio.length))])
            except AudioError:
                continue
        if not vectors:
            vectors = encoder.embed([audio])  # which says what is wrong with it
        return torch.from_numpy(np.stack([voice.vector for voice in vectors]))

    @property
    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.component("tokenizer", self.settings.tokenizer))

    @property
    def _codec(self) -> Codec:
        return cast(Codec, self.component("codec", self.settings.codec))

    @property
    def _encoder(self) -> SpeakerEncoder | None:
        if self.settings.voice is None:
            return None
        return cast(SpeakerEncoder, self.component("speaker_encoder", self.settings.voice))
