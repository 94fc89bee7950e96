"""Stages ``t2u`` and ``u2c``: masked generators over the encoded corpus."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speechloom.training.precision import mixed_precision
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.loss import masked_loss
from speechloom_speechsec.masks import MaskConfig, draw_training_mask
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.recipe.config import TrainConfig
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.encode import EncodedCorpus
from speechloom_starter.recipe.loop import Stage, torch_generator
from speechloom_starter.recipe.said import spoken_thirds

Ints = npt.NDArray[np.int64]
PADDED_TO = 50
# The coarse levels carry the speech; the last ones are close to noise and learn little.
LEVEL_WEIGHTS = (8.0, 4.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.5)


class GeneratorStage(Stage):
    """What both generators share: crops of similar length, a drawn mask, the masked loss."""

    network: SpeechSEC
    masks: MaskConfig

    def __init__(
        self, corpus: Corpus, encoded: EncodedCorpus, model: SpeechSECConfig, train: TrainConfig
    ) -> None:
        self.corpus = corpus
        self.encoded = encoded
        self.train = train
        self.network = SpeechSEC(model, seed=train.seed)
        self.pool = self._pool()

    @abstractmethod
    def _pool(self) -> list[int]:
        """The utterances to learn from."""

    @abstractmethod
    def _item(
        self, index: int, start: int, frames: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        """Content [F] and codes [K, F] of a piece of an utterance."""

    def _voices(self, chosen: list[int], rng: np.random.Generator) -> Tensor | None:
        return None

    def loss(self, step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy at the masked positions."""
        chosen = self._choose(rng)
        content, codes, lengths = self._batch(chosen, rng)
        mask = draw_training_mask(
            codes,
            content,
            lengths,
            mask_id=self.network.config.mask_id,
            generator=torch_generator(rng),
            config=self.masks,
        )
        voice = self._voices(chosen, rng)
        with mixed_precision():
            report = masked_loss(self.network, codes, lengths, mask, voice=voice)
        first = float(report.nats[0] / report.positions[0].clamp(min=1))
        right = float(report.correct.sum() / report.positions.sum().clamp(min=1))
        return report.loss, {"first_level": first, "accuracy": right}

    def _choose(self, rng: np.random.Generator) -> list[int]:
        # A run of neighbours in length order, out of a larger draw: little padding.
        drawn = rng.choice(self.pool, 8 * self.train.batch)
        ordered = drawn[np.argsort(self.encoded.frames[drawn], kind="stable")]
        start = int(rng.integers(0, len(ordered) - self.train.batch + 1))
        return [int(index) for index in ordered[start : start + self.train.batch]]

    def _batch(self, chosen: list[int], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        limit = round(self.train.seconds * 50)
        items = []
        for index in chosen:
            frames = int(self.encoded.frames[index])
            start = int(rng.integers(0, max(0, frames - limit) + 1))
            items.append(self._item(index, start, min(limit, frames), rng))
        lengths = torch.tensor([len(content) for content, _ in items])
        # Few different lengths: a CPU compiles its matrix products anew for each shape.
        frames = -(-int(lengths.max()) // PADDED_TO) * PADDED_TO
        content = torch.zeros(len(items), frames, dtype=torch.int64)
        codes = torch.zeros(len(items), self.network.config.codebooks, frames, dtype=torch.int64)
        for row, (one, code) in enumerate(items):
            content[row, : len(one)] = torch.from_numpy(one)
            codes[row, :, : len(one)] = torch.from_numpy(code)
        return content, codes, lengths


class TextToUnitsStage(GeneratorStage):
    """Thirds of phones to content units; learns from utterances whose phones are known."""

    name = "t2u"
    masks = MaskConfig(task_weights=(0.55, 0.15, 0.3, 0.0), content_dropout=0.05)

    def _pool(self) -> list[int]:
        return self.corpus.spoken

    def _item(
        self, index: int, start: int, frames: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        content = spoken_thirds(self.corpus, index, int(self.encoded.frames[index]))
        offset = int(self.encoded.offsets[index]) + start
        units = self.encoded.units[offset : offset + frames].astype(np.int64)
        return content[start : start + frames], units[None]


class UnitsToCodesStage(GeneratorStage):
    """Content units and a voice to codes; the voice is that of another utterance.

    Some pieces have the units of the recording, as in a conversion, and some those that the
    text-to-units generator makes of their text, as in synthesis.
    """

    name = "u2c"

    def __init__(
        self,
        corpus: Corpus,
        encoded: EncodedCorpus,
        said: npt.NDArray[np.int16],
        model: SpeechSECConfig,
        train: TrainConfig,
        said_share: float,
    ) -> None:
        super().__init__(corpus, encoded, model, train)
        self.said = said
        self.said_share = said_share
        self.masks = MaskConfig(
            task_weights=(0.45, 0.07, 0.23, 0.25),
            level_weights=LEVEL_WEIGHTS[: model.codebooks],
            content_dropout=0.03,
        )

    def _pool(self) -> list[int]:
        return list(range(len(self.corpus)))

    def _item(
        self, index: int, start: int, frames: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints]:
        offset = int(self.encoded.offsets[index]) + start
        source = self.said if rng.random() < self.said_share else self.encoded.units
        units = source[offset : offset + frames].astype(np.int64)
        return units, self.encoded.codes[offset : offset + frames].astype(np.int64).T

    def _voices(self, chosen: list[int], rng: np.random.Generator) -> Tensor | None:
        rows = []
        for index in chosen:
            same = self.corpus.by_speaker[self.corpus.utterances[index].speaker]
            rows.append(self.encoded.voices[int(rng.choice(same))])
        return torch.from_numpy(np.stack(rows))
