"""The starter's content units."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Tokens, pad_stack
from speechloom_starter.blocks import build_seeded
from speechloom_starter.components.base import StarterComponent, coded, samples_of
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.weights import load_content, load_units_codebook

__all__ = ["StarterUnits"]


class StarterUnits(StarterComponent):
    """Clusters of the content network's features: what is said, without who says it."""

    uses = ("content", "units")

    def __init__(
        self,
        spec: ComponentSpec,
        model: ContentModel,
        codebook: Tensor,
        *,
        trained: bool,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, trained=trained)
        self._model = model.eval().requires_grad_(False).to(device)
        self._codebook = codebook.to(device)
        self._device = torch.device(device)

    @property
    def centroids(self) -> Tensor:
        """The vector of each unit, float32 [V, D], for networks that start from them."""
        return self._codebook

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterUnits:
        """The shipped network and units."""
        return cls(spec, load_content(), load_units_codebook(), trained=True, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterUnits:
        """A tiny network with as many units."""
        config = ContentConfig.tiny()
        assert isinstance(spec.facts, TokenizerFacts)
        shape = (spec.facts.vocabulary_size, config.unit_width)
        codebook = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return cls(spec, build_seeded(lambda: ContentModel(config), seed), codebook, trained=False)

    @torch.inference_mode()
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        """Units [B, F] at 50 Hz; recordings are coded one by one, long ones in windows."""
        facts = self.spec.facts
        assert isinstance(facts, TokenizerFacts)
        rows = [
            coded(self._units, samples, self._model.reach_frames)[0].cpu()
            for samples in samples_of(audio, self._device)
        ]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        size, rate = facts.vocabulary_size, facts.frame_rate
        return Tokens(pad_stack(rows), facts.vocabulary, size, rate, lengths)

    def _units(self, samples: Tensor) -> Tensor:
        return self._model.units(samples, self._codebook)
