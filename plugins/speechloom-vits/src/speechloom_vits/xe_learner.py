"""Training of X-E-Speech: synthesis and conversion at once, then the second stage."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
    ValidationInfo,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from speechloom.checkpoints import fold_weight_norm, local_path
from speechloom.errors import TextError, UsageError
from speechloom.protocols import Frontend
from speechloom.registry import default_registry
from speechloom.spec import ComponentSpec, FrontendFacts, TokenizerFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner, Phase
from speechloom.units import nearest_frames
from speechloom_vits._xe_spec import (
    whisper_spec_for,
    whisper_spec_of_config,
    x_e_specs_of_config,
)
from speechloom_vits.decoder import normalise_weights
from speechloom_vits.learner import DiscriminatorSettings, crops
from speechloom_vits.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    kl_loss,
)
from speechloom_vits.whisper import WhisperContent
from speechloom_vits.xe_config import Alphabet, XEConfig, XESizes
from speechloom_vits.xe_network import REFERENCE_FRAMES, XEHeard, XESpeech

__all__ = ["XELearner", "XELossSettings", "XESettings"]


def _found(checkpoint: str, info: ValidationInfo) -> str:
    """A folder, relative to the recipe, with its whole path; a hub id as it is."""
    folder = (info.context or {}).get("folder", "")
    path = Path(os.path.abspath(Path(folder) / Path(checkpoint).expanduser()))
    return str(path) if path.exists() else checkpoint


def _relative(checkpoint: str, info: SerializationInfo) -> str:
    """As it was written, so that a moved folder is the same recipe."""
    folder = (info.context or {}).get("folder")
    if folder is None or not os.path.isabs(checkpoint):
        return checkpoint
    return os.path.relpath(checkpoint, folder)


CheckpointPath = Annotated[str, AfterValidator(_found), PlainSerializer(_relative)]
"""A checkpoint in a recipe's settings: a hub id, or a folder relative to the recipe."""


class XELossSettings(BaseModel):
    """Weights of the losses; those of the three divergences are the cross-lingual model's.

    Attributes:
        mel: of the mel distance.
        text_content: of the content's divergence from the text.
        content_speech: of the speech's divergence from the content.
        text_speech: of the speech's divergence from the text.
        duration: of the durations.
        adversarial: of what the discriminators say.
        features: of the distance that they see.
        speaker: of telling speakers apart by their style, where the settings name them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel: float = Field(default=45.0, ge=0)
    text_content: float = Field(default=0.1, ge=0)
    content_speech: float = Field(default=1.0, ge=0)
    text_speech: float = Field(default=0.1, ge=0)
    duration: float = Field(default=1.0, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    features: float = Field(default=1.0, ge=0)
    speaker: float = Field(default=1.0, ge=0)


class XESettings(BaseModel):
    """What a recipe can say of X-E-Speech.

    Attributes:
        frontends: id of the installed front end of each language of the data.
        content: Whisper checkpoint whose encoder gives the content: hub id, or folder relative to
            the recipe.
        sizes: sizes that differ from the published ones; see `XESizes`. Symbols, languages and the
            size of the content follow from the rest.
        speakers: names of the speakers of the data. Where they are given, the style encoder learns
            to tell them apart, which the published model has to find by itself.
        segment_frames: frames of the random crops that are decoded.
        discriminators: sizes of the discriminators.
        losses: weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frontends: Mapping[str, str] = Field(min_length=1)
    content: CheckpointPath
    sizes: Mapping[str, Any] = Field(default_factory=dict)
    speakers: tuple[str, ...] = ()
    segment_frames: int = Field(default=25, gt=0)
    discriminators: DiscriminatorSettings = DiscriminatorSettings()
    losses: XELossSettings = XELossSettings()

    def network(self, *, symbols: int, content_size: int, languages: tuple[str, ...]) -> XESizes:
        """The sizes of the networks.

        Raises:
            UsageError: they disagree.
        """
        voice = {**self.sizes.get("voice", {}), "symbols": symbols}
        known = {"voice": voice, "content_size": content_size, "languages": languages}
        try:
            return XESizes.changed({**self.sizes, **known})
        except ValueError as error:
            why = str(error).splitlines()
            raise UsageError(
                f"settings.sizes is not possible: {' '.join(line.strip() for line in why[1:3])}"
            ) from error


class XETraining(nn.Module):
    """The voice, and what judges it.

    Args:
        sizes: of the voice.
        discriminators: sizes.
        speakers: that the style is to tell apart; 0 for none.
    """

    def __init__(
        self, sizes: XESizes, discriminators: DiscriminatorSettings, speakers: int = 0
    ) -> None:
        super().__init__()
        self.voice = XESpeech(sizes)
        normalise_weights(self.voice)
        self.speakers = nn.Linear(sizes.voice.speaker_size, speakers) if speakers else None
        self.discriminators = discriminators.network()


class XELearner(Learner):
    """X-E-Speech: synthesis and conversion, trained together.

    The second stage is a recipe: it starts from the first, and freezes ``voice.style_encoder``,
    ``voice.decoder`` and ``voice.flow_content_to_speech``.

    Args:
        settings: of the recipe.
        seed: not used; all draws come with the calls.
    """

    settings_type = XESettings
    network: XETraining
    watch: Mapping[str, str] = {
        "generator/mel": "distance of log mels: 2 to 3 at first, 0.5 to 0.7 after long training",
        "generator/content_speech": "conversion: falls below 5, 1 to 2 in the end",
        "generator/speaker": "of telling the speakers apart by style: falls to 0",
        "generator/text_content": "synthesis: where it stays high, text will not be understood",
    }

    def __init__(self, settings: XESettings, *, seed: int) -> None:
        self.settings = settings
        registry = default_registry()
        self.frontends = {
            language: cast(Frontend, registry.load("frontend", id))
            for language, id in settings.frontends.items()
        }
        self.content, name = _content(settings.content)
        self.config = self._config(name)
        self.ids = {symbol: index for index, symbol in enumerate(self.config.symbols)}
        self.mel = self.config.sizes.mel
        self.network = XETraining(
            self.config.sizes, settings.discriminators, len(settings.speakers)
        )
        self.phases = (
            Phase("discriminator", ("discriminators",), start=settings.discriminators.start),
            Phase("generator", ("voice", "speakers") if settings.speakers else ("voice",)),
        )

    def _config(self, content: str) -> XEConfig:
        alphabets: dict[str, Alphabet] = {}
        for language, frontend in self.frontends.items():
            facts = frontend.spec.facts
            assert isinstance(facts, FrontendFacts)
            alphabets[facts.alphabet] = Alphabet(
                phones=facts.phones, pause=facts.pause, language=language
            )
        symbols = tuple(dict.fromkeys(p for one in alphabets.values() for p in one.phones))
        theirs = self.content.spec.facts
        assert isinstance(theirs, TokenizerFacts)
        sizes = self.settings.network(
            symbols=len(symbols),
            content_size=theirs.vocabulary_size,
            languages=tuple(self.frontends),
        )
        return XEConfig(
            sizes=sizes,
            symbols=symbols,
            alphabets=alphabets,
            content=content,
            content_language=next(iter(self.frontends)),
        )

    # Data -----------------------------------------------------------------------------------

    def cache_key(self) -> str:
        """Mel, front ends, the weights of the content encoder, and speakers."""
        ids = ",".join(one.spec.id for one in self.frontends.values())
        hashes = ",".join(self.content.weights.values())
        speakers = "".join(f" {name}" for name in self.settings.speakers)
        return f"x-e-1 {self.mel.kind} {ids} {hashes}{speakers}"

    def prepare(self, example: Example) -> Item:
        """Phones int64 [N], samples float32 [T], and content features at the frames of the mel.

        Raises:
            TextError: it has no text, or one that cannot be said.
            UsageError: its language or its speaker is not in the settings, or it has more phones
                than frames.
        """
        languages = self.config.sizes.languages
        language = example.language or languages[0]
        if language not in languages:
            raise UsageError(
                f"{example.id} is in {language!r}, but settings.frontends has "
                f"{', '.join(languages)}"
            )
        if not example.text:
            raise TextError(f"{example.id} has no text; every example needs one")
        sentences = self.frontends[language].phonemize(example.text)
        symbols = [self.ids[phone] for one in sentences for phone in one.symbols]
        hop = self.mel.hop
        recording = example.load()
        samples = recording.mono().resampled(self.mel.rate).tensor()[0]
        frames = len(samples) // hop
        if frames < len(symbols):
            raise UsageError(f"{example.id} has {len(symbols)} phones in {frames} frames")
        features = self.content.encode([recording])
        at = nearest_frames(
            frames, self.mel.frame_rate, features.frame_rate, features.values.shape[2]
        )
        item = {
            "symbols": torch.tensor(symbols),
            "samples": samples[: frames * hop],
            "content": features.values[0][:, at],
            "language": torch.tensor(languages.index(language)),
        }
        if self.settings.speakers:
            item["speaker"] = torch.tensor(self._speaker(example))
        return item

    def _speaker(self, example: Example) -> int:
        speakers = self.settings.speakers
        if example.speaker not in speakers:
            raise UsageError(
                f"{example.id} is spoken by {example.speaker!r}, but settings.speakers has "
                f"{', '.join(speakers)}"
            )
        return speakers.index(example.speaker)

    def length(self, item: Item) -> int:
        """Frames of the mel."""
        return max(1, len(item["samples"]) // self.mel.hop)

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Pad, and choose the frames that are decoded and those that the style is taken from."""
        frames = [self.length(item) for item in items]
        segment = min(self.settings.segment_frames, min(frames))
        pad = nn.utils.rnn.pad_sequence
        content = pad([item["content"].T for item in items], batch_first=True).transpose(1, 2)
        batch: Batch = {
            "symbols": pad([item["symbols"] for item in items], batch_first=True),
            "symbol_counts": torch.tensor([len(item["symbols"]) for item in items]),
            "samples": pad([item["samples"] for item in items], batch_first=True),
            "content": content,
            "frame_counts": torch.tensor(frames),
            "language": torch.stack([item["language"] for item in items]),
            "segment": segment,
            "starts": torch.tensor([int(rng.integers(n - segment + 1)) for n in frames]),
            "reference": torch.stack([_reference(n, rng) for n in frames]),
        }
        if self.settings.speakers:
            batch["speaker"] = torch.stack([item["speaker"] for item in items])
        return batch

    # Learning -------------------------------------------------------------------------------

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: least squares of the discriminators, or the losses of the voice."""
        if "made" not in batch:
            self._speak(batch, rng)
        judge = self.network.discriminators
        if phase == "discriminator":
            return discriminator_loss(judge(batch["real"]), judge(batch["made"].detach())), {}
        numbers = self._numbers(batch)
        if step >= self.settings.discriminators.start:
            real, made = judge(batch["real"]), judge(batch["made"])
            numbers["features"] = feature_loss(real, made)
            numbers["adversarial"] = adversarial_loss(made)
        weights = self.settings.losses
        loss = torch.stack([getattr(weights, name) * n for name, n in numbers.items()]).sum()
        return loss, {name: number.detach() for name, number in numbers.items()}

    def _speak(self, batch: Batch, rng: torch.Generator) -> None:
        """Hear the batch and decode a crop of each item, once for both phases."""
        voice, hop, segment = self.network.voice, self.mel.hop, batch["segment"]
        mel = self.mel.of_samples(batch["samples"])
        rows, symbols, frames = len(mel), batch["symbols"].shape[1], mel.shape[2]
        latent_size = self.config.sizes.voice.latent_size
        first, second = torch.randn(2, rows, latent_size, frames, generator=rng).to(mel.device)
        duration_noise = torch.randn(rows, 2, symbols, generator=rng).to(mel.device)
        reference = batch["reference"][:, None].expand(-1, mel.shape[1], -1)
        batch["heard"] = heard = voice.hear(
            batch["symbols"],
            batch["symbol_counts"],
            mel,
            batch["content"],
            batch["frame_counts"],
            batch["language"],
            mel.gather(2, reference),
            (first, second),
            duration_noise,
        )
        starts = batch["starts"]
        batch["made"] = voice.decoder(crops(heard.latent, starts, segment), heard.style)
        batch["real"] = crops(batch["samples"][:, None], starts * hop, segment * hop)

    def _numbers(self, batch: Batch) -> dict[str, Tensor]:
        heard = batch["heard"]
        assert isinstance(heard, XEHeard)
        mel_of = self.mel.of_samples
        distance = (mel_of(batch["made"][:, 0]) - mel_of(batch["real"][:, 0])).abs()
        text = (heard.text_mean, heard.text_log_deviation, heard.mask)
        content = (heard.content_mean, heard.content_log_deviation, heard.mask)
        speech = heard.speech_log_deviation
        numbers = {
            "mel": distance.mean(),
            "text_content": kl_loss(heard.content_as_text, heard.content_log_deviation, *text),
            "content_speech": kl_loss(heard.speech_as_content, speech, *content),
            "text_speech": kl_loss(heard.speech_as_text, speech, *text),
            "duration": heard.duration_loss.sum() / heard.text_mask.sum(),
        }
        if self.network.speakers is not None:
            scores = self.network.speakers(heard.style[..., 0])
            numbers["speaker"] = nn.functional.cross_entropy(scores, batch["speaker"])
        return numbers

    # Keeping --------------------------------------------------------------------------------

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """The voice, weight normalisation folded in, and the encoder of its content.

        The encoder's weights are written where they came from a folder; those of the hub are named
        with their hash.
        """
        folded = fold_weight_norm(self.network.voice.state_dict())
        plain = {name: one.detach().float().contiguous() for name, one in folded.items()}
        save_file(plain, target.folder / "model.safetensors")
        written = self.config.model_dump_json(indent=2)
        (target.folder / "config.json").write_text(written, encoding="utf-8")
        voice = x_e_specs_of_config(
            self.config,
            id=target.id,
            checkpoint=target.checkpoint,
            weights_license=target.weights_license,
            install=target.install,
        )
        return [*voice, self._export_content(target)]

    def _export_content(self, target: ExportTarget) -> ComponentSpec:
        config = self.content.encoder.config.to_dict()
        where: dict[str, Any] = {
            "checkpoint": self.settings.content,
            "sha256": self.content.weights,
        }
        if local_path(self.settings.content) is not None:
            folder = target.folder / "content"
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
            tensors = self.content.encoder.state_dict()
            save_file(
                {f"encoder.{name}": one.cpu().contiguous() for name, one in tensors.items()},
                folder / "model.safetensors",
            )
            where = {
                "checkpoint": f"{target.checkpoint}/content",
                "weights_license": target.weights_license,
            }
        return whisper_spec_of_config(
            config,
            id=f"{target.id}-content",
            features=self.config.content,
            install=target.install,
            **where,
        )


def _content(checkpoint: str) -> tuple[WhisperContent, str]:
    """The encoder of a checkpoint, and the name of its features.

    Folders of the same name may hold different encoders, so that the hash is part of their name.
    """
    name = Path(checkpoint).name.lower()
    name = name if name.startswith("whisper") else f"whisper-{name}"
    content = WhisperContent.from_pretrained(whisper_spec_for(checkpoint, id=name))
    if local_path(checkpoint) is not None:
        (digest,) = content.weights.values()
        name = f"{name}-{digest[:8]}"
    return content, name


def _reference(frames: int, rng: np.random.Generator) -> Tensor:
    """Frames of the slice for the style, int64 [300]; what is shorter is repeated."""
    if frames <= REFERENCE_FRAMES:
        return torch.arange(REFERENCE_FRAMES) % frames
    return int(rng.integers(frames - REFERENCE_FRAMES + 1)) + torch.arange(REFERENCE_FRAMES)
