"""The published tokenizers, and the spec of one's own. Light: importing this imports no torch.

The encoders are on the hub; the k-means of the published tokenizers are scikit-learn pickles on
another server. So such a tokenizer works once its k-means is converted: see
`speechloom_hubert.published`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from speechloom.checkpoints import lasting_location, local_path
from speechloom.published import checkpoint_options, read_json
from speechloom.spec import ComponentSpec, TokenizerFacts

__all__ = [
    "LAYER_6_KM50",
    "LAYER_6_KM100",
    "LAYER_6_KM200",
    "LAYER_6_KM500",
    "LAYER_9_KM500",
    "SPECS",
    "spec_for",
]

SAMPLE_RATE = 16_000
HOP = 320
CONTEXT_SECONDS = 5.0
WINDOW_SECONDS = 40.0
IMPLEMENTATION = "speechloom_hubert.units:HubertUnits"

_BASE = "facebook/hubert-base-ls960"


def _spec(
    id_: str,
    summary: str,
    facts: TokenizerFacts,
    options: Mapping[str, Any],
    weights_license: str | None,
) -> ComponentSpec:
    return ComponentSpec(
        id=id_,
        implementation=IMPLEMENTATION,
        facts=facts,
        summary=summary,
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "transformers>=4.57", "safetensors>=0.4"),
        install="pip install speechloom-hubert",
        homepage="https://arxiv.org/abs/2106.07447",
        options=dict(options),
    )


def _published(layer: int, clusters: int) -> ComponentSpec:
    """A tokenizer over HuBERT base that textless speech models are built on."""
    id_ = f"hubert-base-ls960-l{layer}-km{clusters}"
    return _spec(
        id_,
        f"HuBERT base (LibriSpeech), layer {layer}, {clusters} units at 50 Hz",
        TokenizerFacts(
            vocabulary=id_,
            vocabulary_size=clusters,
            sample_rate=SAMPLE_RATE,
            frame_rate=Fraction(SAMPLE_RATE, HOP),
        ),
        checkpoint_options(
            _BASE,
            revision=None,
            sha256=None,
            layer=layer,
            kmeans=None,
            allow_pickle=False,
            normalize=None,
            window_seconds=WINDOW_SECONDS,
            context_seconds=CONTEXT_SECONDS,
        ),
        "Apache-2.0 (encoder); MIT (k-means, as published with fairseq and textlesslib)",
    )


LAYER_6_KM50 = _published(6, 50)
LAYER_6_KM100 = _published(6, 100)
LAYER_6_KM200 = _published(6, 200)
LAYER_6_KM500 = _published(6, 500)
LAYER_9_KM500 = _published(9, 500)

SPECS = (LAYER_6_KM50, LAYER_6_KM100, LAYER_6_KM200, LAYER_6_KM500, LAYER_9_KM500)
"""The tokenizers that entry points announce."""


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    layer: int,
    kmeans: str | os.PathLike[str],
    id: str | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    allow_pickle: bool = False,
    normalize: bool | None = None,
    window_seconds: float | None = WINDOW_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
    weights_license: str | None = None,
) -> ComponentSpec:
    """The spec of a tokenizer over any HuBERT or WavLM checkpoint and any k-means.

    Give it to ``default_registry().register(HubertUnits, spec=spec)``.

    Args:
        checkpoint: hub id, local folder, or weights file with ``config.json`` beside it, of a
            HuBERT or WavLM model in the layout of ``transformers``.
        layer: hidden layer whose features are clustered; 0 is the input of the first layer.
        kmeans: centroids: ``.safetensors`` of ours, ``.npy`` [V, D], or a scikit-learn pickle.
        id: of the tokenizer, and the name of its vocabulary; made from the others without.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name, of checkpoint and k-means files.
        allow_pickle: whether `kmeans` may be a scikit-learn pickle; no code in it is run.
        normalize: whether recordings are brought to mean 0 and variance 1 first; None does what
            the checkpoint says.
        window_seconds: longer recordings are encoded in windows that keep at most so much, which
            is an approximation (see `SpeechEncoder`); None never cuts.
        context_seconds: what a window hears beside what it keeps, on either side.
        weights_license: SPDX id, or a sentence, of the weights.

    Raises:
        WeightsError: the k-means cannot be read, or a local ``config.json`` is of another family.
    """
    from speechloom_hubert.kmeans import read_kmeans

    kmeans = lasting_location(kmeans)
    units = read_kmeans(Path(kmeans), allow_pickle=allow_pickle, sha256=sha256)
    clusters = units.centroids.shape[0]
    id_ = id or f"{_slug(checkpoint)}-l{layer}-km{clusters}"
    return _spec(
        id_,
        f"Layer {layer} of {_slug(checkpoint)}, {clusters} units"[:120],
        TokenizerFacts(
            vocabulary=id_,
            vocabulary_size=clusters,
            sample_rate=SAMPLE_RATE,
            frame_rate=_local_frame_rate(checkpoint) or units.frame_rate,
        ),
        checkpoint_options(
            lasting_location(checkpoint),
            revision=revision,
            sha256=sha256,
            layer=layer,
            kmeans=kmeans,
            allow_pickle=allow_pickle,
            normalize=normalize,
            window_seconds=window_seconds,
            context_seconds=context_seconds,
        ),
        weights_license,
    )


def _slug(checkpoint: str | os.PathLike[str]) -> str:
    """The last part of a hub id or path, in the letters that an id may have."""
    name = re.split(r"[/\\]", os.fspath(checkpoint).rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", name).strip("._-") or "encoder"


def _local_frame_rate(checkpoint: str | os.PathLike[str]) -> Fraction | None:
    """Frames per second that a local ``config.json`` implies; None where there is none."""
    local = local_path(checkpoint)
    if local is None:
        return None
    path = (local.parent if local.is_file() else local) / "config.json"
    if not path.is_file():
        return None
    from speechloom_hubert.architecture import Architecture

    return Fraction(SAMPLE_RATE, Architecture.of(read_json(path), path).hop)
