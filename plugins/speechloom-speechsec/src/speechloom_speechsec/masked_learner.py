"""What both learners share: settings, crops, the drawn mask and its loss, the export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from speechloom.checkpoints import load_exactly, sha256_of
from speechloom.errors import UsageError
from speechloom.protocols import Component, Tokenizer
from speechloom.records import problem
from speechloom.registry import default_registry
from speechloom.spec import ComponentSpec, Kind, Task
from speechloom.training.learner import Batch, ExportTarget, Item, Learner
from speechloom.units import require_frames
from speechloom.values import Audio, Tokens
from speechloom_speechsec._spec import spec_of_config
from speechloom_speechsec.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointConfig,
    DecodeSettings,
)
from speechloom_speechsec.config import SIZES, TASKS, SpeechSECConfig
from speechloom_speechsec.loss import LossReport, masked_loss
from speechloom_speechsec.masks import MaskConfig, draw_training_mask
from speechloom_speechsec.weights import Networks, write_checkpoint

__all__ = [
    "MaskSettings",
    "MaskedLearner",
    "MaskedSettings",
    "NetworkSettings",
    "spec_in_registry",
    "units_in",
]

PADDED_TO = 32
"""Batches are as long as a multiple of it: a CPU compiles its products anew for each shape."""


class Settings(BaseModel):
    """Base of the settings in a recipe: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Settings):
    """Sizes of the masked network: those of a named one, and what differs from it.

    Attributes:
        size: one of `speechloom_speechsec.config.SIZES`.
        dim: see `SpeechSECConfig`, as all that follow; None keeps what `size` has.
        layers: Conformer blocks.
        heads: attention heads.
        ff_mult: width of the feed-forward layers over `dim`.
        conv_kernel: frames of the depthwise convolution.
        conv_expansion: width of that convolution over `dim`.
        dropout: share of features dropped after each block.
        tie_heads: the output heads use the code embeddings as weights.
        prompt_embedding: the second code embedding of a continuation.
        max_frames: longest item seen in training.
    """

    size: str = "starter-codes"
    dim: int | None = None
    layers: int | None = None
    heads: int | None = None
    ff_mult: int | None = None
    conv_kernel: int | None = None
    conv_expansion: int | None = None
    dropout: float | None = None
    tie_heads: bool | None = None
    prompt_embedding: bool | None = None
    max_frames: int | None = None

    @field_validator("size")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SIZES:
            raise ValueError(f"should be one of {', '.join(SIZES)}")
        return value

    def between(self, **tokens: int) -> SpeechSECConfig:
        """The configuration for given kinds of tokens.

        Args:
            tokens: ``content_vocab``, ``codebooks``, ``codebook_size``, ``voice_dim``.
        """
        own = self.model_dump(exclude={"size"}, exclude_none=True)
        return SpeechSECConfig.model_validate(SIZES[self.size] | tokens | own)


class MaskSettings(Settings):
    """How often each task and level is trained; see `speechloom_speechsec.masks.MaskConfig`.

    Attributes:
        task_weights: how often each task is drawn; one that is not named is not trained.
        task_per_item: draw a task for every item; false draws one for the whole step, as the
            figure of SpeechSEC has it.
        level_weights: of the levels; empty for `first_level_weight` and ones.
        first_level_weight: of the level that is decoded in many passes.
        whole_share: share of synthesis items without a prompt.
        said_share: share of continuation items that keep their content.
        content_dropout: share of items that lose their content, for guidance.
        voice_dropout: share of items that lose their voice, for guidance.
    """

    task_weights: dict[Task, float] = Field(
        default={"synthesize": 0.4, "continue": 0.15, "edit": 0.25, "convert": 0.2}
    )
    task_per_item: bool = True
    level_weights: tuple[float, ...] = ()
    first_level_weight: float = Field(default=3.0, gt=0)
    whole_share: float = Field(default=0.3, ge=0, le=1)
    said_share: float = Field(default=0.0, ge=0, le=1)
    content_dropout: float = Field(default=0.05, ge=0, le=1)
    voice_dropout: float = Field(default=0.1, ge=0, le=1)

    @field_validator("task_weights")
    @classmethod
    def _some_task(cls, value: dict[Task, float]) -> dict[Task, float]:
        if min(value.values(), default=0.0) < 0 or not any(value.values()):
            raise ValueError("weights should be 0 or more, and one above 0")
        return value

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that are trained."""
        return tuple(task for task in TASKS if self.task_weights.get(task))  # type: ignore[misc, call-overload]

    def config(self) -> MaskConfig:
        """The same for `draw_training_mask`."""
        synthesize, proceed, edit, convert = (
            float(self.task_weights.get(task, 0.0))  # type: ignore[call-overload]
            for task in TASKS
        )
        others = self.model_dump(exclude={"task_weights"})
        return MaskConfig(task_weights=(synthesize, proceed, edit, convert), **others)


class MaskedSettings(Settings):
    """What a recipe says of any masked generator.

    Attributes:
        network: its sizes.
        masks: tasks and levels.
        crop_seconds: longer items are cut at a random place.
        label_smoothing: share of the target spread over all ids.
        max_seconds: the longest canvas that the generator will be given in one piece.
        decode: how the exported generator decodes.
        free: how it decodes without content; as any other where left out.
        half: export float16 weights, half the size.
    """

    network: NetworkSettings = NetworkSettings()
    masks: MaskSettings = MaskSettings()
    crop_seconds: float = Field(default=5.0, gt=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    max_seconds: float = Field(default=12.0, gt=0)
    decode: DecodeSettings = DecodeSettings()
    free: DecodeSettings | None = None
    half: bool = True


class MaskedLearner(Learner):
    """A `Learner` of masked networks; see the two that are built on it."""

    settings: MaskedSettings
    config: CheckpointConfig
    network: Networks

    def begin(self, settings: MaskedSettings, config: CheckpointConfig, seed: int) -> None:
        """Build the network.

        Args:
            settings: of the recipe.
            config: what its checkpoint will say.
            seed: of the initial weights.
        """
        self.settings = settings
        self.config = config
        self.network = Networks(config, seed=seed)
        self.masks = settings.masks.config()
        self.crop = max(1, round(settings.crop_seconds * float(config.facts.frame_rate)))

    def component(self, kind: Kind, id: str) -> Component:
        """A component of the registry, on the device of the training."""
        return default_registry().load(kind, id, device=str(self.device))

    def length(self, item: Item) -> int:
        """Frames of an item's crop."""
        return min(self.crop, int(item["codes"].shape[-1]))

    def pieces(
        self, pairs: Sequence[tuple[Tensor, Tensor]], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Crop and pad.

        Args:
            pairs: content [F] and codes [K, F] of each item.
            rng: draws where a crop starts.

        Returns:
            ``content`` int64 [B, F], ``codes`` int64 [B, K, F], ``lengths`` int64 [B].
        """
        lengths = [min(self.crop, len(content)) for content, _ in pairs]
        frames = -(-max(lengths) // PADDED_TO) * PADDED_TO
        content = torch.zeros(len(pairs), frames, dtype=torch.int64)
        codes = torch.zeros(len(pairs), self.config.network.codebooks, frames, dtype=torch.int64)
        for row, ((own, code), length) in enumerate(zip(pairs, lengths, strict=True)):
            start = int(rng.integers(0, len(own) - length + 1))
            content[row, :length] = own[start : start + length]
            codes[row, :, :length] = code[:, start : start + length]
        return {"content": content, "codes": codes, "lengths": torch.tensor(lengths)}

    def masked(
        self, batch: Batch, rng: torch.Generator, voice: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Draw the tasks, levels and masks of a step, and score what they ask for.

        Args:
            batch: with what `pieces` gives.
            rng: on the CPU.
            voice: float32 [B, D] or None.
        """
        codes, model = batch["codes"], self.network.generator
        draw = torch.Generator(codes.device).manual_seed(_seed(rng))
        mask = draw_training_mask(
            codes,
            batch["content"],
            batch["lengths"],
            mask_id=model.config.mask_id,
            generator=draw,
            config=self.masks,
        )
        training = model.training
        report = masked_loss(
            model,
            codes,
            batch["lengths"],
            mask,
            voice=voice,
            label_smoothing=self.settings.label_smoothing if training else 0.0,
            dropout_generator=draw if training else None,
        )
        return report.loss, _numbers(report)

    def start_from(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Take the weights of a run, of an export, or of a bare masked network."""
        prefixed = any(name.startswith("generator.") for name in tensors)
        if not prefixed and self.network.durations is None:
            tensors = {f"generator.{name}": value for name, value in tensors.items()}
        load_exactly(self.network, tensors, source)

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """Write ``config.json`` and ``model.safetensors``."""
        write_checkpoint(
            target.folder, self.config, self.network.state_dict(), half=self.settings.half
        )
        names = (CONFIG_FILE, WEIGHTS_FILE)
        return [
            spec_of_config(
                self.config,
                id=target.id,
                checkpoint=target.checkpoint,
                sha256={name: sha256_of(target.folder / name) for name in names},
                weights_license=target.weights_license,
                install=target.install,
            )
        ]


def units_in(tokenizer: Tokenizer, audio: Audio) -> Tensor:
    """The units of a recording, int64 [F].

    Raises:
        UsageError: the tokenizer gives features, or units that have no frame each.
    """
    tokens = tokenizer.encode([audio])
    if not isinstance(tokens, Tokens):
        raise UsageError(
            f"{tokenizer.spec.id} gives {tokens.kind}, but a masked network takes discrete units"
        )
    require_frames(tokens, "training")
    return tokens.item(0)


def spec_in_registry(kind: Kind, id: str) -> ComponentSpec:
    """The spec of a component that a recipe names; nothing of it is loaded.

    Raises:
        PluginError: nothing has that id, or its plugin has a problem.
    """
    record = default_registry().get(kind, id)
    if record.spec is None:
        raise problem(record)
    return record.spec


def _seed(rng: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=rng))


def _numbers(report: LossReport) -> dict[str, Tensor | float]:
    """For the log: nats of each level that was drawn, and how often the network is right."""
    nats = (report.nats / report.positions.clamp(min=1)).tolist()
    drawn = report.positions.tolist()
    numbers: dict[str, Tensor | float] = {
        f"level_{level + 1}": nats[level] for level, count in enumerate(drawn) if count
    }
    numbers["accuracy"] = sum(report.correct.tolist()) / max(1, sum(drawn))
    return numbers
