"""Stage ``content``: phone posteriors and features from heavily changed engine speech."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from speechloom.training.precision import mixed_precision
from speechloom_starter.blocks import build_seeded
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.mel import log_mel
from speechloom_starter.recipe.augment import degrade, hide_stripes, warp_formants
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import IGNORED, Corpus, crops
from speechloom_starter.recipe.loop import Stage


class ContentStage(Stage):
    """Frame-wise cross-entropy with the engine's own phone ends as labels."""

    name = "content"
    network: ContentModel

    def __init__(self, corpus: Corpus, model: ContentConfig, train: TrainConfig) -> None:
        self.corpus = corpus
        self.train = train
        self.network = build_seeded(lambda: ContentModel(model), train.seed)

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the phone at, before and after each frame."""
        chosen = rng.choice(self.corpus.spoken, self.train.batch).tolist()
        audio, labels = crops(self.corpus, chosen, self.train.seconds, rng, spread=0.15)
        mel = warp_formants(log_mel(degrade(audio, rng)), rng)
        with mixed_precision():
            out = self.network.from_mel(hide_stripes(mel, rng))
        at = _entropy(out.phone, labels[..., 1])
        around = _entropy(out.before, labels[..., 0]) + _entropy(out.after, labels[..., 2])
        right = (out.phone.argmax(-1) == labels[..., 1]).float().mean()
        return at + 0.2 * around, {"phone": float(at.detach()), "accuracy": float(right)}


def _entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    return F.nll_loss(log_probabilities.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
