"""Stage ``polish``: the decoder alone, its codes fixed, if wanted against discriminators."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from speechloom.training.precision import mixed_precision
from speechloom_starter.blocks import build_seeded
from speechloom_starter.codec_model import CodecModel
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.discriminator import Discriminators, Views, critic_loss, maker_loss
from speechloom_starter.recipe.loop import Stage
from speechloom_starter.recipe.losses import spectral_distance
from speechloom_starter.recipe.stage_codec import codec_crops

DISTANCE_WEIGHT = 5.0
FEATURE_WEIGHT = 1.0


class PolishStage(Stage):
    """Spectral distance, hinge loss and feature matching, with the encoder and codebooks frozen.

    Without discriminators only the spectral distance is left, which costs far less time. Since the
    codes do not change, generators can be trained on them at the same time.
    """

    name = "polish"
    network: nn.ModuleDict

    def __init__(
        self,
        corpus: Corpus,
        codec: CodecModel,
        train: TrainConfig,
        alone_steps: int,
        adversarial: bool = True,
    ) -> None:
        self.corpus = corpus
        self.train = train
        self.alone_steps = alone_steps
        self.adversarial = adversarial
        self.codec = codec
        codec.requires_grad_(False)
        for part in (codec.from_latent, codec.decoder, codec.norm, codec.head):
            part.requires_grad_(True)
        self.critics = build_seeded(Discriminators, train.seed)
        self.network = nn.ModuleDict({"codec": codec, "critics": self.critics})

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Both players' losses; the discriminators learn alone for ``alone_steps`` steps."""
        audio = codec_crops(self.corpus, self.train.batch, self.train.seconds, rng)
        latents = self._latents(audio, rng)
        with mixed_precision():
            made = self.codec.synthesise(latents)
        distance = DISTANCE_WEIGHT * spectral_distance(made, audio)
        numbers = {"distance": float(distance.detach()) / DISTANCE_WEIGHT}
        if not self.adversarial:
            return distance, numbers
        played, more = self._play(step, audio, made)
        return distance + played, numbers | more

    def _play(self, step: int, audio: Tensor, made: Tensor) -> tuple[Tensor, dict[str, float]]:
        with mixed_precision():
            true_view = self.critics(audio)
            critic = critic_loss(true_view, self.critics(made.detach()))
        total, numbers = critic, {"critic": float(critic.detach())}
        if step >= self.alone_steps:
            fooled, features = self._fool(made, true_view)
            total = total + fooled + FEATURE_WEIGHT * features
            numbers |= {"fooled": float(fooled.detach()), "features": float(features.detach())}
        return total, numbers

    def _fool(self, made: Tensor, true_view: Views) -> tuple[Tensor, Tensor]:
        # Frozen for this pass: the decoder's loss must not teach the discriminators.
        self.critics.requires_grad_(False)
        with mixed_precision():
            made_view = self.critics(made)
        self.critics.requires_grad_(True)
        return maker_loss(true_view, made_view)

    @torch.no_grad()
    def _latents(self, audio: Tensor, rng: np.random.Generator) -> Tensor:
        quantizer = self.codec.quantizer
        with mixed_precision():
            latents = self.codec.latents(audio)
        codes = quantizer.encode(latents.flatten(0, 1))
        # A fifth of the batches have fewer levels, so that a decoder with fewer levels stays good.
        levels = quantizer.levels
        if rng.random() < 0.2:
            levels = int(rng.integers(1, quantizer.levels + 1))
        return quantizer.decode(codes[:, :levels]).view_as(latents)
