"""Training of VITS through the core's training command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from speechloom.errors import TextError, UsageError
from speechloom.protocols import Frontend
from speechloom.registry import default_registry
from speechloom.spec import ComponentSpec, FrontendFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner, Phase
from speechloom_vits.checkpoint import write_checkpoint
from speechloom_vits.config import VitsConfig
from speechloom_vits.decoder import normalise_weights
from speechloom_vits.discriminators import Discriminators
from speechloom_vits.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    kl_loss,
)
from speechloom_vits.network import Heard, Vits
from speechloom_vits.spectrum import linear_spectrum, loss_mel

__all__ = ["DiscriminatorSettings", "LossSettings", "VitsLearner", "VitsSettings", "crops"]


class DiscriminatorSettings(BaseModel):
    """Sizes of the discriminators, and when they begin.

    Attributes:
        periods: one discriminator each.
        channels: of their layers.
        scale_width: first channels of the one that sees every sample.
        start: the step in which they begin; before it there are only spectral losses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    periods: tuple[int, ...] = Field(default=(2, 3, 5, 7, 11), min_length=1)
    channels: tuple[int, ...] = Field(default=(32, 128, 512, 1024, 1024), min_length=1)
    scale_width: int = Field(default=16, gt=0)
    start: int = Field(default=0, ge=0)

    def network(self) -> Discriminators:
        """Build them."""
        return Discriminators(self.periods, self.channels, self.scale_width)


class LossSettings(BaseModel):
    """Weights of the losses.

    Attributes:
        mel: of the mel distance.
        kl: of the divergence.
        duration: of the durations.
        adversarial: of what the discriminators say.
        features: of the distance that they see.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel: float = Field(default=45.0, ge=0)
    kl: float = Field(default=1.0, ge=0)
    duration: float = Field(default=1.0, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    features: float = Field(default=1.0, ge=0)


class VitsSettings(BaseModel):
    """What a recipe can say of VITS.

    Attributes:
        frontend: id of the installed front end that makes phones of text.
        network: sizes that differ from the paper's; see `VitsConfig`. ``symbols`` and ``speakers``
            follow from the front end and from `speakers`.
        speakers: names of the speakers of the data; empty where there is one.
        segment_frames: frames of the random crops that are decoded.
        discriminators: sizes of the discriminators.
        losses: weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frontend: str
    network: Mapping[str, Any] = Field(default_factory=dict)
    speakers: tuple[str, ...] = ()
    segment_frames: int = Field(default=32, gt=0)
    discriminators: DiscriminatorSettings = DiscriminatorSettings()
    losses: LossSettings = LossSettings()

    def config(self, symbols: int) -> VitsConfig:
        """The sizes of the network.

        Raises:
            UsageError: they disagree.
        """
        try:
            return VitsConfig.model_validate(
                {**self.network, "symbols": symbols, "speakers": max(1, len(self.speakers))}
            )
        except ValueError as error:
            why = str(error).splitlines()
            raise UsageError(
                f"settings.network is not possible: {' '.join(line.strip() for line in why[1:3])}"
            ) from error


class VitsTraining(nn.Module):
    """The voice, and what judges it.

    Args:
        config: of the voice.
        discriminators: sizes.
    """

    def __init__(self, config: VitsConfig, discriminators: DiscriminatorSettings) -> None:
        super().__init__()
        self.voice = Vits(config)
        normalise_weights(self.voice)
        self.discriminators = discriminators.network()


class VitsLearner(Learner):
    """VITS: text and speech to a voice, with discriminators (arXiv:2106.06103, section 2).

    Differs from the original in three ways: discriminators can begin later, which saves time on
    small machines; phones come without blanks between them; weights of the losses are settings.

    Args:
        settings: of the recipe.
        seed: not used; all draws come with the calls.
    """

    settings_type = VitsSettings
    network: VitsTraining
    watch: Mapping[str, str] = {
        "generator/mel": "distance of log mels: 2 to 3 at first, 0.5 to 0.7 after long training",
        "generator/kl": "falls below 5 within some thousand steps, 1 to 2 in the end",
        "generator/duration": "of the durations, per phone: falls, then stays",
    }

    def __init__(self, settings: VitsSettings, *, seed: int) -> None:
        self.settings = settings
        self.frontend = cast(Frontend, default_registry().load("frontend", settings.frontend))
        facts = self.frontend.spec.facts
        assert isinstance(facts, FrontendFacts)
        self.facts = facts
        self.ids = {phone: index for index, phone in enumerate(facts.phones)}
        self.config = settings.config(len(facts.phones))
        self.mel = loss_mel(self.config.sample_rate, self.config.window_samples, self.config.hop)
        self.network = VitsTraining(self.config, settings.discriminators)
        start = settings.discriminators.start
        self.phases = (
            Phase("discriminator", ("discriminators",), start=start),
            Phase("generator", ("voice",)),
        )

    # Data -----------------------------------------------------------------------------------

    def cache_key(self) -> str:
        """Rate, hop and front end."""
        return f"vits-1 {self.config.sample_rate} {self.config.hop} {self.frontend.spec.id}"

    def prepare(self, example: Example) -> Item:
        """Phones int64 [N], samples float32 [T] and the speaker of one example.

        Raises:
            TextError: it has no text, or one that cannot be said.
            UsageError: it has more phones than frames.
        """
        if not example.text:
            raise TextError(f"{example.id} has no text; every example of VITS needs one")
        sentences = self.frontend.phonemize(example.text)
        symbols = [self.ids[phone] for one in sentences for phone in one.symbols]
        samples = example.load().mono().resampled(self.config.sample_rate).tensor()[0]
        frames = len(samples) // self.config.hop
        if frames < len(symbols):
            raise UsageError(
                f"{example.id} has {len(symbols)} phones in {frames} frames; each phone needs one: "
                "check that text and recording belong together"
            )
        return {
            "symbols": torch.tensor(symbols),
            "samples": samples[: frames * self.config.hop],
            "speaker": torch.tensor(self._speaker(example)),
        }

    def _speaker(self, example: Example) -> int:
        names = self.settings.speakers
        if not names:
            return 0
        if example.speaker not in names:
            raise UsageError(
                f"{example.id} is spoken by {example.speaker!r}, but settings.speakers are "
                f"{', '.join(names)}; add the name, or leave the example out"
            )
        return names.index(example.speaker)

    def length(self, item: Item) -> int:
        """Frames of the spectrogram."""
        return max(1, len(item["samples"]) // self.config.hop)

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Pad, and choose the frames that are decoded."""
        frames = [len(item["samples"]) // self.config.hop for item in items]
        segment = min(self.settings.segment_frames, min(frames))
        pad = nn.utils.rnn.pad_sequence
        return {
            "symbols": pad([item["symbols"] for item in items], batch_first=True),
            "symbol_counts": torch.tensor([len(item["symbols"]) for item in items]),
            "samples": pad([item["samples"] for item in items], batch_first=True),
            "frame_counts": torch.tensor(frames),
            "speakers": torch.stack([item["speaker"] for item in items]),
            "segment": segment,
            "starts": torch.tensor([int(rng.integers(n - segment + 1)) for n in frames]),
        }

    # Learning -------------------------------------------------------------------------------

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: least squares of the discriminators, or the five losses of the voice."""
        if "made" not in batch:
            self._speak(batch, rng)
        if phase == "discriminator":
            return self._judged(batch)
        return self._voiced(batch, step)

    def _speak(self, batch: Batch, rng: torch.Generator) -> None:
        """Hear the batch and decode a crop of each item, once for both phases."""
        config, hop, segment = self.config, self.config.hop, batch["segment"]
        spectrum = linear_spectrum(batch["samples"], config.window_samples, hop)
        rows, symbols, frames = (
            len(spectrum),
            batch["symbols"].shape[1],
            spectrum.shape[2],
        )
        noise = torch.randn(rows, config.latent_size, frames, generator=rng)
        duration_noise = torch.randn(rows, 2, symbols, generator=rng)
        device = spectrum.device
        batch["heard"] = heard = self.network.voice.hear(
            batch["symbols"],
            batch["symbol_counts"],
            spectrum,
            batch["frame_counts"],
            batch["speakers"] if self.settings.speakers else None,
            noise.to(device),
            duration_noise.to(device),
        )
        starts = batch["starts"]
        latent = crops(heard.latent, starts, segment)
        batch["made"] = self.network.voice.decoder(latent, heard.speaker)
        batch["real"] = crops(batch["samples"][:, None], starts * hop, segment * hop)

    def _judged(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        judge = self.network.discriminators
        loss = discriminator_loss(judge(batch["real"]), judge(batch["made"].detach()))
        return loss, {}

    def _voiced(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        weights, heard = self.settings.losses, batch["heard"]
        assert isinstance(heard, Heard)
        mel = (
            self.mel.of_samples(batch["made"][:, 0]) - self.mel.of_samples(batch["real"][:, 0])
        ).abs()
        numbers = {
            "mel": mel.mean(),
            "kl": kl_loss(
                heard.prior_latent,
                heard.posterior_log_deviation,
                heard.prior_mean,
                heard.prior_log_deviation,
                heard.mask,
            ),
            "duration": heard.duration_loss.sum() / heard.text_mask.sum(),
        }
        if step >= self.settings.discriminators.start:
            real = self.network.discriminators(batch["real"])
            made = self.network.discriminators(batch["made"])
            numbers["features"] = feature_loss(real, made)
            numbers["adversarial"] = adversarial_loss(made)
        loss = torch.stack([getattr(weights, name) * n for name, n in numbers.items()]).sum()
        return loss, {name: number.detach() for name, number in numbers.items()}

    # Keeping --------------------------------------------------------------------------------

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """The voice without what only training needs to have normalised."""
        from speechloom_vits._spec import specs_of_config

        write_checkpoint(
            target.folder,
            self.config,
            self.network.voice.state_dict(),
            phones=self.facts.phones,
            pause=self.facts.pause,
            alphabet=self.facts.alphabet,
            languages=self.facts.languages,
            speakers=self.settings.speakers,
        )
        return specs_of_config(
            self.config,
            id=target.id,
            checkpoint=target.checkpoint,
            phones=self.facts.phones,
            pause=self.facts.pause,
            alphabet=self.facts.alphabet,
            languages=self.facts.languages,
            speakers=self.settings.speakers,
            sources=self.settings.speakers,
            weights_license=target.weights_license,
            install=target.install,
        )


def crops(values: Tensor, starts: Tensor, length: int) -> Tensor:
    """A stretch of each item.

    Args:
        values: [B, D, T].
        starts: int64 [B].
        length: of every stretch.

    Returns:
        [B, D, length].
    """
    at = starts[:, None] + torch.arange(length, device=starts.device)
    return values.gather(2, at[:, None].expand(-1, values.shape[1], -1))
