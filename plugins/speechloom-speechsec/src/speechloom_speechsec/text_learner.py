"""The learner ``speechsec-text``: phones with durations to content units, and the durations."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from speechloom.compatibility import generator_between
from speechloom.protocols import Aligner, Frontend, Tokenizer
from speechloom.spec import FrontendFacts, GeneratorFacts, TokenizerFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, Item, Phase
from speechloom.values import pad_stack
from speechloom_speechsec.aligned import aligned_phones
from speechloom_speechsec.checkpoint import THIRDS, CheckpointConfig
from speechloom_speechsec.config import DurationConfig
from speechloom_speechsec.duration_model import duration_loss
from speechloom_speechsec.masked_learner import (
    MaskedLearner,
    MaskedSettings,
    MaskSettings,
    NetworkSettings,
    Settings,
    spec_in_registry,
    units_in,
)
from speechloom_speechsec.thirds import phone_thirds

__all__ = ["SpeechSECTextLearner", "SpeechSECTextSettings"]


class DurationSettings(Settings):
    """Sizes of the duration network; see `speechloom_speechsec.config.DurationConfig`.

    Attributes:
        width: values per phone.
        depth: convolution blocks.
        kernel: phones that a block sees, odd.
        expansion: width of the perceptron in a block over `width`.
    """

    width: int = Field(default=192, gt=0)
    depth: int = Field(default=5, gt=0)
    kernel: int = Field(default=7, gt=0)
    expansion: int = Field(default=3, gt=0)


class SpeechSECTextSettings(MaskedSettings):
    """What a recipe says of text to units; front end, tokenizer and aligner are ids of components.

    Attributes:
        frontend: spells text in phones.
        tokenizer: gives the units.
        aligner: finds the phones of examples without an alignment; None where all have one.
        durations: sizes of the duration network.
    """

    frontend: str
    tokenizer: str
    aligner: str | None = None
    durations: DurationSettings = DurationSettings()
    network: NetworkSettings = NetworkSettings(size="starter-units")
    masks: MaskSettings = MaskSettings(
        task_weights={"synthesize": 0.55, "continue": 0.15, "edit": 0.3}, said_share=0.7
    )


class SpeechSECTextLearner(MaskedLearner):
    """Trains the two networks of the text side beside each other, each on its own loss."""

    settings_type = SpeechSECTextSettings
    settings: SpeechSECTextSettings
    phases = (Phase("units", ("generator",)), Phase("durations", ("durations",)))

    def __init__(self, settings: SpeechSECTextSettings, *, seed: int) -> None:
        frontend = spec_in_registry("frontend", settings.frontend)
        tokenizer = spec_in_registry("tokenizer", settings.tokenizer)
        spelled = cast(FrontendFacts, frontend.facts)
        self._units = cast(TokenizerFacts, tokenizer.facts)
        between = generator_between(
            frontend,
            tokenizer,
            id="speechsec-text",
            implementation="speechloom_speechsec.text_generator:SpeechSECTextGenerator",
            tasks=settings.masks.tasks,
            max_seconds=settings.max_seconds,
        )
        facts = cast(GeneratorFacts, between.facts).model_copy(
            update={"styles": ("rate",), "languages": spelled.languages}
        )
        network = settings.network.between(
            content_vocab=THIRDS * len(spelled.phones),
            codebooks=1,
            codebook_size=facts.codebook_size,
            voice_dim=0,
        )
        durations = DurationConfig(phones=len(spelled.phones), **settings.durations.model_dump())
        config = CheckpointConfig(
            facts=facts,
            network=network,
            decode=settings.decode,
            free=settings.free,
            phones=spelled.phones,
            durations=durations,
        )
        self.begin(settings, config, seed)
        chance = np.log(facts.codebook_size)
        self.watch = {
            "units/loss": f"{chance:.1f} at first (chance), 1 to 2 in the end",
            "durations/loss": "1 at first, 0.2 to 0.3 in the end: the error of a logarithm",
        }

    def cache_key(self) -> str:
        """The components with the hashes of their weights."""
        settings = self.settings
        named: dict[str, Any] = {
            "frontend": [settings.frontend, dict(self._frontend.weights)],
            "tokenizer": [settings.tokenizer, dict(self._tokenizer.weights)],
            "aligner": [settings.aligner, dict(self._aligner.weights)] if self._aligner else None,
        }
        return f"speechsec-text-1 {json.dumps(named, sort_keys=True)}"

    def prepare(self, example: Example) -> Item:
        """Thirds int32 [F], units int32 [1, F]; phones int32 [N], their frames float32 [N]."""
        audio = example.load()
        units, rate = units_in(self._tokenizer, audio), self._units.frame_rate
        phones = aligned_phones(example, audio, self._frontend, self._aligner)
        thirds = phone_thirds(phones.ids, phones.counts(len(units), rate))
        return {
            "content": torch.from_numpy(thirds).int(),
            "codes": units[None].int(),
            "phones": torch.from_numpy(phones.ids).int(),
            "frames": torch.from_numpy(phones.frames(rate)).float(),
        }

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Crops of the units; the phones whole."""
        batch: Batch = dict(self.pieces([(item["content"], item["codes"]) for item in items], rng))
        batch["phones"] = pad_stack([item["phones"].long() for item in items])
        batch["frames"] = pad_stack([item["frames"] for item in items])
        batch["counts"] = torch.tensor([len(item["phones"]) for item in items])
        return batch

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: nats per masked unit, or the error of the logarithm of a duration."""
        if phase == "units":
            return self.masked(batch, rng)
        durations = self.network.durations
        assert durations is not None
        return duration_loss(durations, batch["phones"], batch["counts"], batch["frames"]), {}

    @property
    def _frontend(self) -> Frontend:
        return cast(Frontend, self.component("frontend", self.settings.frontend))

    @property
    def _tokenizer(self) -> Tokenizer:
        return cast(Tokenizer, self.component("tokenizer", self.settings.tokenizer))

    @property
    def _aligner(self) -> Aligner | None:
        if self.settings.aligner is None:
            return None
        return cast(Aligner, self.component("aligner", self.settings.aligner))
