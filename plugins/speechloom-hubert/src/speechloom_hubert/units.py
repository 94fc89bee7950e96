"""The tokenizer: hidden states of one layer, each replaced by its nearest centroid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechloom.checkpoints import pinned_files, sha256_of
from speechloom.errors import WeightsError
from speechloom.protocols import WeightFile
from speechloom.published import PublishedComponent, stacked_tokens
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Tokens
from speechloom_hubert.encoder import SpeechEncoder
from speechloom_hubert.kmeans import KMeans, read_kmeans
from speechloom_hubert.loading import load_encoder, random_encoder
from speechloom_hubert.published import published_path

__all__ = ["HubertUnits", "nearest"]


class HubertUnits(PublishedComponent):
    """Content units of a HuBERT or WavLM layer; see `SpeechEncoder` for frames and long audio.

    Args:
        spec: of a tokenizer.
        encoder: gives the features.
        layer: which of its hidden layers.
        units: the centroids.
        weights: sha256 by file name, beside those of the encoder.

    Raises:
        WeightsError: encoder, centroids and facts do not belong together.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        encoder: SpeechEncoder,
        layer: int,
        units: KMeans,
        *,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        _check_fit(_facts(spec), encoder, layer, units)
        super().__init__(spec, {**encoder.weights, **(weights or {})})
        self._encoder = encoder
        self._layer = layer
        self._centroids = torch.from_numpy(units.centroids).to(device)

    @property
    def centroids(self) -> Tensor:
        """The vector of each unit, float32 [V, D], for networks that start from them."""
        return self._centroids

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> HubertUnits:
        """Load the encoder as far as its layer, and the k-means.

        Args:
            spec: of an entry point, or from `spec_for`.
            device: where it runs.

        Raises:
            WeightsError: files are missing, damaged, or do not belong together.
        """
        options = spec.options
        path = _kmeans_path(spec)
        units = read_kmeans(path, allow_pickle=options["allow_pickle"], sha256=options["sha256"])
        encoder = load_encoder(
            options["checkpoint"],
            revision=options["revision"],
            sha256=options["sha256"],
            layers=options["layer"],
            normalize=options["normalize"],
            window_seconds=options["window_seconds"],
            context_seconds=options["context_seconds"],
            device=device,
        )
        hashes = {path.name: sha256_of(path)}
        return cls(spec, encoder, options["layer"], units, weights=hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> HubertUnits:
        """A tiny network of the same frame rate, and as many random units."""
        facts = _facts(spec)
        hop = facts.sample_rate / facts.frame_rate
        encoder = random_encoder(hop=int(hop), seed=seed)
        draw = torch.Generator().manual_seed(seed)
        centroids = torch.randn(facts.vocabulary_size, encoder.width, generator=draw)
        units = KMeans(centroids.numpy(), facts.frame_rate)
        return cls(spec, encoder, encoder.layers, units)

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The files whose hash the spec promises; nothing is loaded."""
        options, pins = spec.options, dict(spec.options["sha256"] or {})
        files = {}
        kmeans = options["kmeans"]
        if kmeans is not None and Path(kmeans).name in pins:
            path = Path(kmeans)
            files[path.name] = WeightFile(path, pins.pop(path.name))
        pinned = pinned_files(options["checkpoint"], revision=options["revision"], sha256=pins)
        return {**pinned, **files}

    @torch.inference_mode()
    def encode(self, audio: Sequence[Audio]) -> Tokens:
        """Units [B, F]; recordings are encoded one by one, long ones in windows.

        Args:
            audio: B recordings of any rate, channels and length.

        Raises:
            UsageError: there is no audio.
        """
        return stacked_tokens([self._units(one) for one in audio], _facts(self._spec))

    def _units(self, audio: Audio) -> Tensor:
        parts = self._encoder.parts(audio, self._layer)
        return torch.cat([nearest(features, self._centroids).cpu() for features in parts])


def nearest(features: Tensor, centroids: Tensor) -> Tensor:
    """The nearest centroid of each frame, in Euclidean distance; the first of equals.

    Args:
        features: float32 [F, D].
        centroids: float32 [V, D].

    Returns:
        int64 [F].
    """
    # |x - c|^2 without |x|^2, which all centroids have in common.
    distances = torch.addmm((centroids * centroids).sum(1), features, centroids.T, alpha=-2.0)
    return distances.argmin(1)


def _facts(spec: ComponentSpec) -> TokenizerFacts:
    assert isinstance(spec.facts, TokenizerFacts), f"{spec.id} is a {spec.kind}"
    return spec.facts


def _kmeans_path(spec: ComponentSpec) -> Path:
    named: Any = spec.options["kmeans"]
    return published_path(spec.id) if named is None else Path(named)


def _check_fit(facts: TokenizerFacts, encoder: SpeechEncoder, layer: int, units: KMeans) -> None:
    """Refuse an encoder and centroids that were not made for each other."""
    clusters, width = units.centroids.shape
    claims = (
        ("values per frame", encoder.width, "the k-means", width),
        ("units", facts.vocabulary_size, "the k-means", clusters),
        ("Hz", encoder.sample_rate, "the spec", facts.sample_rate),
        ("frames per second", encoder.frame_rate, "the spec", facts.frame_rate),
        ("frames per second", encoder.frame_rate, "the k-means", units.frame_rate),
        ("as layer", layer, "the k-means", layer if units.layer is None else units.layer),
        ("as family", encoder.architecture.family, "the k-means", units.family),
    )
    for what, ours, whose, theirs in claims:
        if theirs is not None and ours != theirs:
            raise WeightsError(
                f"{whose} of {facts.vocabulary} does not fit: it has {theirs} {what}, but "
                f"{encoder.name} has {ours}; give those that were made for it"
            )
