"""Training of WaveNets by the core's loop: maximum likelihood on random crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from speechloom.errors import AudioError
from speechloom.mel import RTVC_SYNTHESIZER, MelSpec
from speechloom.spec import ComponentSpec
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner
from speechloom_wavenet._spec import wavenet_spec
from speechloom_wavenet.checkpoint import save
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.distribution import log_likelihood, mu_law_classes, start
from speechloom_wavenet.network import WaveNet
from speechloom_wavenet.samples import to_network

__all__ = ["WaveNetLearner", "WaveNetSettings"]


class WaveNetSettings(BaseModel):
    """The ``settings`` of a recipe.

    Attributes:
        mel: kind of the mel spectrogram; by default that of the project's Tacotron 2.
        network: the fields of `WaveNetConfig` but for ``mel``.
        crop_frames: mel frames of an example that a step sees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel: str = RTVC_SYNTHESIZER.kind
    network: dict[str, Any]
    crop_frames: int = Field(default=10, gt=0)

    @field_validator("mel")
    @classmethod
    def _mel_kind(cls, value: str) -> str:
        return MelSpec.from_kind(value).kind

    @model_validator(mode="after")
    def _network_fits(self) -> WaveNetSettings:
        self.config  # noqa: B018  # the network's own checks
        return self

    @property
    def config(self) -> WaveNetConfig:
        """The shape of the network."""
        return WaveNetConfig.model_validate({**self.network, "mel": self.mel})


class WaveNetLearner(Learner):
    """A WaveNet vocoder."""

    settings_type = WaveNetSettings

    def __init__(self, settings: WaveNetSettings, *, seed: int) -> None:
        self.config = settings.config
        self.crop_frames = settings.crop_frames
        self.mel = self.config.mel_spec
        self.network = WaveNet(self.config)
        self.watch = {"bits": _WATCH[self.config.output]}

    def cache_key(self) -> str:
        """The mel, and what is done to samples before the network sees them."""
        config = self.config
        return f"wavenet-1 {config.mel} {config.preemphasis} {config.gain}"

    def prepare(self, example: Example) -> Item:
        """Samples [T] as the network sees them, whole frames long, and their mel [D, F].

        Raises:
            AudioError: it cannot be read, or is silence.
        """
        audio = example.load().mono().resampled(self.mel.rate)
        samples = audio.tensor()[0]
        if not bool(samples.any()):
            raise AudioError(f"{example.id} is silence; leave it out")
        mel = self.mel.of_samples(samples[None])[0]
        missing = mel.shape[-1] * self.mel.hop - len(samples)
        heard = to_network(self.config, torch.nn.functional.pad(samples, (0, missing)))
        return {"samples": heard, "mel": mel}

    def length(self, item: Item) -> int:
        """Frames of the crop."""
        return min(self.crop_frames, item["mel"].shape[-1])

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Random crops: ``samples`` [B, C x hop], ``mel`` [B, D, C + 2 x context], ``real`` [B].

        Short examples are padded; ``real`` counts the samples that are theirs. Mel frames beside a
        crop come along, so that its edges are conditioned as in the whole.
        """
        frames = max(self.length(item) for item in items)
        context, hop = self.config.context, self.mel.hop
        samples, mels, real = [], [], []
        for item in items:
            own = min(frames, item["mel"].shape[-1])
            first = int(rng.integers(0, item["mel"].shape[-1] - own + 1))
            around = torch.arange(first - context, first + frames + context)
            mels.append(item["mel"][:, around.clamp(0, item["mel"].shape[-1] - 1)])
            crop = item["samples"][first * hop : (first + own) * hop]
            samples.append(torch.nn.functional.pad(crop, (0, frames * hop - len(crop))))
            real.append(len(crop))
        return {
            "samples": torch.stack(samples),
            "mel": torch.stack(mels),
            "real": torch.tensor(real),
        }

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: the mean negative log-likelihood of a sample, in nats; logged as bits."""
        targets = batch["samples"]
        if self.config.output == "mulaw":
            targets = mu_law_classes(targets, self.config.classes)
        before = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=start(self.config))
        network = cast(WaveNet, self.network)
        outputs = network(before, network.condition(batch["mel"], is_padded=True))
        likelihood = log_likelihood(self.config, outputs.float(), targets)
        places = torch.arange(targets.shape[1], device=targets.device)
        counts = (places < batch["real"][:, None]).float()
        loss = -(likelihood * counts).sum() / counts.sum()
        return loss, {"bits": loss.detach() / float(np.log(2))}

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """One vocoder: ``wavenet.json`` and ``wavenet.safetensors``."""
        save(cast(WaveNet, self.network), target.folder)
        spec = wavenet_spec(
            self.config,
            id=target.id,
            checkpoint=target.checkpoint,
            weights_license=target.weights_license,
            install=target.install,
        )
        return [spec]


_WATCH: dict[Literal["mulaw", "logistic", "gaussian"], str] = {
    "mulaw": "8 at first, 3 to 4 in the end",
    "logistic": "16 at first, 8 to 9 in the end",
    "gaussian": "-1 at first, below -5 in the end (a density: it can be negative)",
}
