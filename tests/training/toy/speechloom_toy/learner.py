"""Packs spectra into four numbers a frame and unpacks them; with or without a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom.errors import UsageError
from speechloom.spec import ComponentSpec, SpeakerEncoderFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner, Phase
from speechloom.training.recipe import RecipePath
from speechloom_toy.voice import BANDS, RATE, SIZE, spectra


class ToySettings(BaseModel):
    """What a recipe can say.

    Attributes:
        dropout: of the packed numbers; it draws from torch's global generator.
        adversarial: train a discriminator, too.
        discriminator_start: the step in which it begins.
        crop: frames of a random crop; None takes whole examples.
        words: a file of words; an example with any other is refused.
        noise: how loud the noise is that the learner draws from its own generator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dropout: float = Field(default=0.1, ge=0, lt=1)
    adversarial: bool = False
    discriminator_start: int = 0
    crop: int | None = Field(default=None, gt=0)
    words: RecipePath | None = None
    noise: float = Field(default=0.1, ge=0)


class ToyNetwork(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.pack = nn.Sequential(nn.Linear(BANDS, SIZE), nn.Dropout(dropout))
        self.unpack = nn.Sequential(nn.BatchNorm1d(SIZE), nn.Linear(SIZE, BANDS))
        self.critic = nn.Sequential(nn.Linear(BANDS, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, frames: Tensor) -> Tensor:
        packed: Tensor = self.pack(frames)
        unpacked: Tensor = self.unpack(packed)
        return unpacked


class ToyLearner(Learner):
    settings_type = ToySettings
    watch: Mapping[str, str] = {"loss": "1 at first, below 0.5 in the end"}
    network: ToyNetwork

    def __init__(self, settings: ToySettings, *, seed: int) -> None:
        self.settings = settings
        self.network = ToyNetwork(settings.dropout)
        self.losses_seen = 0
        if settings.adversarial:
            start = settings.discriminator_start
            self.phases = (
                Phase("critic", ("critic",), {"learning_rate": 1e-3}, start),
                Phase("voice", ("pack", "unpack")),
            )
            self.watch = {"voice/loss": "1 at first", "critic/loss": "2, if neither side wins"}
        else:
            del self.network.critic

    def cache_key(self) -> str:
        return "spectra-1"

    def prepare(self, example: Example) -> Item:
        known = self.settings.words and self.settings.words.read_text().split()
        for word in (example.text or "").split() if known else ():
            if word not in known:
                raise UsageError(f"the word {word!r} is not in {self.settings.words}")
        return {"frames": spectra(example.load().mono().resampled(RATE)).to(self.device)}

    def length(self, item: Item) -> int:
        frames = len(item["frames"])
        return frames if self.settings.crop is None else min(frames, self.settings.crop)

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        crops = []
        for item in items:
            length = self.length(item)
            first = int(rng.integers(len(item["frames"]) - length + 1))
            crops.append(item["frames"][first : first + length])
        mask = torch.zeros(len(crops), max(map(len, crops)), dtype=torch.bool)
        for row, crop in zip(mask, crops, strict=True):
            row[: len(crop)] = True
        return {"frames": nn.utils.rnn.pad_sequence(crops, batch_first=True), "mask": mask}

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        if self.network.training:
            self.losses_seen += 1
        frames = batch["frames"][batch["mask"]]
        if "made" not in batch:
            noise = torch.randn(frames.shape, generator=rng).to(frames.device)
            batch["made"] = self.network(frames + self.settings.noise * noise)
        made = batch["made"]
        if phase == "critic":
            real, fake = self.network.critic(frames), self.network.critic(made.detach())
            loss = (real - 1).square().mean() + (fake + 1).square().mean()
            return loss, {"real": real.mean().detach()}
        distance = F.mse_loss(made, frames)
        if phase == "voice" and step >= self.settings.discriminator_start:
            fooled = (self.network.critic(made) - 1).square().mean()
            return distance + 0.01 * fooled, {"distance": distance.detach()}
        return distance, {"loudest": frames.max().detach()}

    def extra_state(self) -> dict[str, Any]:
        return {"losses_seen": self.losses_seen}

    def load_extra(self, state: dict[str, Any]) -> None:
        self.losses_seen = state["losses_seen"]

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        linear = self.network.pack[0]
        save_file(dict(linear.state_dict()), target.folder / "voice.safetensors")
        return [
            ComponentSpec(
                id=f"{target.id}-voice",
                implementation="speechloom_toy.voice:ToyVoice",
                facts=SpeakerEncoderFacts(voice=f"{target.id}-voice", size=SIZE, sample_rate=RATE),
                summary="Four numbers for a voice",
                license="Apache-2.0",
                weights_license=target.weights_license,
                install=target.install,
                options={"checkpoint": target.checkpoint},
            )
        ]
