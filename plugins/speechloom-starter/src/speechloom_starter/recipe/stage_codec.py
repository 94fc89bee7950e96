"""Stage ``codec``: spectral losses at several resolutions, after a start without quantisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechloom.training.precision import mixed_precision
from speechloom_starter.blocks import build_seeded
from speechloom_starter.codec_model import CodecConfig, CodecModel
from speechloom_starter.quantizer import QuantizerTrainer
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import Corpus, crops
from speechloom_starter.recipe.loop import Stage, torch_generator
from speechloom_starter.recipe.losses import spectral_distance

QUIET, LOUD = 0.01, 0.15


def choose_codec_batch(corpus: Corpus, batch: int, rng: np.random.Generator) -> list[int]:
    """Utterances for a batch, a quarter of them real recordings where there are any."""
    real = round(batch / 4) if corpus.real else 0
    chosen = rng.choice(corpus.spoken, batch - real).tolist()
    if real:
        chosen += rng.choice(corpus.real, real).tolist()
    return [int(index) for index in chosen]


def codec_crops(corpus: Corpus, batch: int, seconds: float, rng: np.random.Generator) -> Tensor:
    """Samples [B, T] at random levels."""
    chosen = choose_codec_batch(corpus, batch, rng)
    audio, _ = crops(corpus, chosen, seconds, rng, spread=0.12)
    level = np.exp(rng.uniform(math.log(QUIET), math.log(LOUD), (batch, 1))).astype(np.float32)
    loud = audio.square().mean(1, keepdim=True).sqrt().clamp(min=1e-3)
    return audio * (torch.from_numpy(level) / loud).clamp(max=6.0)


class CodecStage(Stage):
    """Encoder, quantiser and decoder together.

    The first ``free_steps`` steps bypass the quantiser; k-means on the latents then starts it.
    """

    name = "codec"
    network: CodecModel
    start_batches = 10

    def __init__(
        self, corpus: Corpus, model: CodecConfig, train: TrainConfig, free_steps: int
    ) -> None:
        self.corpus = corpus
        self.train = train
        self.free_steps = free_steps
        self.network = build_seeded(lambda: CodecModel(model), train.seed)
        self.trainer = QuantizerTrainer(self.network.quantizer)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Spectral distance and a quarter of the commitment."""
        audio = codec_crops(self.corpus, self.train.batch, self.train.seconds, rng)
        if step == self.free_steps:
            self._start(rng)
        with mixed_precision():
            latents = self.network.latents(audio)
            commitment = latents.new_zeros(())
            if step >= self.free_steps:
                latents, commitment = self.trainer(latents, torch_generator(rng))
            made = self.network.synthesise(latents)
        distance = spectral_distance(made, audio)
        numbers = {"distance": float(distance.detach()), "commitment": float(commitment.detach())}
        return distance + 0.25 * commitment, numbers

    @torch.no_grad()
    def _start(self, rng: np.random.Generator) -> None:
        latents = []
        for _ in range(self.start_batches):
            audio = codec_crops(self.corpus, self.train.batch, self.train.seconds, rng)
            with mixed_precision():
                latents.append(self.network.latents(audio).flatten(0, 1))
        self.trainer.start(torch.cat(latents), torch_generator(rng))

    def extra_state(self) -> dict[str, Any]:
        """The moving averages of the codebooks."""
        return self.trainer.state_dict()

    def load_extra(self, state: dict[str, Any]) -> None:
        """Take over the moving averages."""
        self.trainer.load_state_dict(state)
