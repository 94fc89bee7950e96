"""Stage ``voice``: two utterances of one speaker point the same way, all others elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from speechloom.training.precision import mixed_precision
from speechloom_starter.blocks import build_seeded
from speechloom_starter.mel import HOP, SAMPLE_RATE, log_mel
from speechloom_starter.recipe.augment import degrade
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.loop import Stage
from speechloom_starter.voice_model import VoiceConfig, VoiceEncoder

TEMPERATURE = 0.08


class VoiceStage(Stage):
    """InfoNCE over pairs of segments; a batch counts pairs.

    Each pair is played at a speed of its own, which makes a new speaker of it: higher, lower, with
    a longer or shorter vocal tract.
    """

    name = "voice"
    network: VoiceEncoder

    def __init__(self, corpus: Corpus, model: VoiceConfig, train: TrainConfig) -> None:
        self.corpus = corpus
        self.train = train
        self.speakers = sorted(
            s for s, utterances in corpus.by_speaker.items() if len(utterances) > 1
        )
        self.network = build_seeded(lambda: VoiceEncoder(model), train.seed)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of finding the partner among all segments of the batch, both ways."""
        batch = self.train.batch
        speakers = rng.choice(len(self.speakers), batch, replace=batch > len(self.speakers))
        pairs = [self._pair(self.speakers[s], rng) for s in speakers]
        audio = torch.from_numpy(np.stack([p[side] for side in (0, 1) for p in pairs]))
        changed = torch.from_numpy(rng.random((2 * batch, 1)) < 0.7)
        audio = torch.where(changed, degrade(audio, rng), audio)
        with mixed_precision():
            vectors = self.network.from_mel(log_mel(audio))
        score = vectors[:batch] @ vectors[batch:].T / TEMPERATURE
        target = torch.arange(batch)
        loss = (F.cross_entropy(score, target) + F.cross_entropy(score.T, target)) / 2
        right = (score.argmax(1) == target).float().mean()
        return loss, {"accuracy": float(right)}

    def _pair(self, speaker: str, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
        ratio = float(np.exp(rng.uniform(-0.15, 0.15)))
        chosen = rng.choice(self.corpus.by_speaker[speaker], 2, replace=False)
        samples = round(self.train.seconds * SAMPLE_RATE) // HOP * HOP
        return [self.corpus.crop(int(index), samples, rng, ratio)[0] for index in chosen]
