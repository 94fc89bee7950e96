"""Stage ``durations``: the engine's phone lengths, brought to one speaking rate."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from speechloom.training.precision import mixed_precision
from speechloom_starter.blocks import build_seeded, length_mask
from speechloom_starter.duration_model import DurationConfig, DurationModel
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import FRAME_SECONDS, Corpus
from speechloom_starter.recipe.loop import Stage


class DurationStage(Stage):
    """Mean absolute error of the logarithm of the frames of a phone."""

    name = "durations"
    network: DurationModel

    def __init__(self, corpus: Corpus, model: DurationConfig, train: TrainConfig) -> None:
        self.corpus = corpus
        self.train = train
        self.network = build_seeded(lambda: DurationModel(model), train.seed)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The error over whole sentences."""
        chosen = [
            self.corpus.utterances[i] for i in rng.choice(self.corpus.spoken, self.train.batch)
        ]
        lengths = torch.tensor([len(u.phones) for u in chosen])
        phones = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.int64)
        target = torch.zeros(phones.shape)
        for row, u in enumerate(chosen):
            seconds = np.diff(u.ends, prepend=0.0) * u.rate
            frames = np.maximum(seconds / FRAME_SECONDS, 0.5)
            phones[row, : len(u.phones)] = torch.from_numpy(u.phones)
            target[row, : len(u.phones)] = torch.from_numpy(np.log(frames).astype(np.float32))
        with mixed_precision():
            made = self.network(phones, lengths)
        mask = length_mask(lengths, phones.shape[1])
        assert mask is not None
        error = ((made - target).abs() * mask[..., 0]).sum() / mask.sum()
        return error, {}
