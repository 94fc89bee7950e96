"""Units: the nearest centroid to each frame of an encoder's features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from speechloom.checkpoints import sha256_of
from speechloom.errors import UsageError
from speechloom.protocols import WeightFile
from speechloom.published import PublishedComponent, check_promises, stacked_tokens
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Features, Tokens, pad_stack
from speechloom_fairseq2.encoder import SpeechEncoder, file_of, load_encoder, tiny_encoder
from speechloom_fairseq2.kmeans import nearest, read_centroids

__all__ = ["Fairseq2Tokenizer"]


class Fairseq2Tokenizer(PublishedComponent):
    """Content units of wav2vec 2.0 (arXiv:2006.11477) or w2v-BERT (arXiv:2108.06209).

    The networks are fairseq2's own, k-means is ours. Recordings are encoded one by one, so that a
    unit does not depend on the company that its recording is in. Frames are counted up: where the
    networks drop an end that fills no frame, it is followed by silence.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        encoder: SpeechEncoder,
        centroids: Tensor,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._encoder = encoder.to(device)
        self._centroids = centroids.to(device)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Fairseq2Tokenizer:
        """The encoder and the centroids that ``spec.options`` names.

        Raises:
            WeightsError: a file is missing, damaged, unsafe or of another model, or the centroids
                are not for this encoder.
        """
        facts, options = spec.facts, spec.options
        assert isinstance(facts, TokenizerFacts)
        encoder, checkpoint = load_encoder(options)
        rate = Fraction(facts.sample_rate, encoder.hop)
        check_promises(spec, checkpoint, [("frame rate", facts.frame_rate, rate)], codebooks=1)
        kmeans = file_of(options["kmeans"], {**options, "revision": None})
        centroids = read_centroids(
            kmeans,
            size=facts.vocabulary_size,
            width=encoder.config.model_dim,
            expected={"layer": str(options["layer"]), "frame_rate": str(facts.frame_rate)},
        )
        hashes = {path.name: sha256_of(path) for path in (checkpoint, kmeans)}
        return cls(spec, encoder, centroids, weights=hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Fairseq2Tokenizer:
        """A tiny encoder of the same family with as many units."""
        assert isinstance(spec.facts, TokenizerFacts)
        encoder = tiny_encoder(spec.options["family"], seed=seed)
        shape = (spec.facts.vocabulary_size, encoder.config.model_dim)
        centroids = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return cls(spec, encoder, centroids, weights={})

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The files of a local checkpoint whose hash the spec pins; nothing is loaded."""
        checkpoint = spec.options["checkpoint"]
        if checkpoint.startswith("card:") or "://" in checkpoint:
            return {}
        return super().weight_files(spec)

    @torch.inference_mode()
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        """Units int64 [B, F].

        Args:
            audio: B recordings of any rate and channel count, up to ``max_seconds`` each.

        Raises:
            UsageError: a recording is too long, or there is none.
        """
        rows = [nearest(self._features(one), self._centroids) for one in audio]
        return stacked_tokens(rows, self._facts)

    @torch.inference_mode()
    def features(self, audio: Sequence[Audio]) -> Features:
        """What is clustered: float32 [B, D, F].

        Args:
            audio: as `encode` takes it.

        Raises:
            UsageError: a recording is too long, or there is none.
        """
        if not audio:
            raise UsageError("there is no audio to encode; give at least one recording")
        rows = [self._features(one).t().cpu() for one in audio]
        lengths = torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
        name = f"{self.spec.id}-features"
        return Features(pad_stack(rows), name, self._facts.frame_rate, lengths)

    def _features(self, audio: Audio) -> Tensor:
        """Features float32 [F, D] of one recording."""
        facts = self._facts
        if facts.max_seconds is not None and audio.seconds > facts.max_seconds:
            raise UsageError(
                f"{self.spec.id} takes up to {facts.max_seconds:g} s at once, but the audio lasts "
                f"{audio.seconds:.1f} s; cut it into pieces"
            )
        samples = audio.mono().resampled(facts.sample_rate).tensor()[0]
        features: Tensor = self._encoder(samples.to(self._device))
        return features

    @property
    def _facts(self) -> TokenizerFacts:
        assert isinstance(self.spec.facts, TokenizerFacts)
        return self.spec.facts
