"""What this plugin announces. Light: importing this imports neither torch nor fairseq2."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from speechloom.checkpoints import lasting_location
from speechloom.errors import UsageError
from speechloom.published import checkpoint_options
from speechloom.spec import ComponentSpec, TokenizerFacts

__all__ = ["XLSR2_1B", "spec_for"]

SAMPLE_RATE = 16_000
FRAME_RATE = Fraction(50)
FAMILIES = ("wav2vec2", "w2vbert")
MAX_SECONDS = 80.0
"""The relative positions of w2v-BERT end at 4096 frames, and attention costs the square of them."""


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    kmeans: str | os.PathLike[str],
    vocabulary_size: int,
    layer: int,
    family: Literal["wav2vec2", "w2vbert"] = "wav2vec2",
    arch: str = "base",
    config: Mapping[str, Any] | None = None,
    normalize: bool = False,
    vocabulary: str | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    summary: str | None = None,
) -> ComponentSpec:
    """The spec of units, to be given to ``Registry.register`` with `Fairseq2Tokenizer`.

    Args:
        checkpoint: the encoder: a local file of fairseq2 or fairseq; the name of a fairseq2 asset
            card, as ``card:wav2vec2_base``; an address, ``https://...``; or a hub id.
        id: of the component.
        kmeans: the centroids, ``.safetensors`` or ``.npy`` [V, D]: a local file or an address.
        vocabulary_size: V.
        layer: the encoder layer, from 1, whose output is clustered; before any final norm.
        family: ``wav2vec2`` (samples in) or ``w2vbert`` (mel filter banks in).
        arch: fairseq2's name of the sizes; a card brings its own.
        config: fields of fairseq2's ``Wav2Vec2EncoderConfig`` that differ from `arch`.
        normalize: whether samples are given zero mean and unit variance, as wav2vec 2.0 models
            whose convolutions have layer norms were trained.
        vocabulary: name of the id set; by default the id.
        revision: branch, tag or commit of a hub id.
        sha256: promised hashes by file name.
        weights_license: SPDX id, or a sentence, of the weights.
        summary: one line for listings.

    Raises:
        UsageError: there is no such family.
    """
    if family not in FAMILIES:
        raise UsageError(f"the family must be one of {', '.join(FAMILIES)}, but is {family!r}")
    return ComponentSpec(
        id=id,
        implementation="speechloom_fairseq2.tokenizer:Fairseq2Tokenizer",
        facts=TokenizerFacts(
            vocabulary=vocabulary or id,
            vocabulary_size=vocabulary_size,
            sample_rate=SAMPLE_RATE,
            frame_rate=FRAME_RATE,
            context_frames=None,  # attention: a unit depends on the whole recording
            max_seconds=MAX_SECONDS,
        ),
        summary=summary or f"{vocabulary_size} units of layer {layer} of a {family} of fairseq2",
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("fairseq2>=0.8,<0.9", "torch==2.9.1"),
        install=(
            "pip install 'speechloom-fairseq2[fairseq2]'` in an environment of its own, with "
            "libsndfile installed: `apt install libsndfile1"
        ),
        homepage="https://github.com/facebookresearch/fairseq2",
        options=checkpoint_options(
            lasting_location(checkpoint),
            revision=revision,
            sha256=sha256,
            kmeans=lasting_location(kmeans),
            layer=layer,
            family=family,
            arch=arch,
            config=dict(config) if config else None,
            normalize=normalize,
        ),
    )


XLSR2_1B = spec_for(
    "https://dl.fbaipublicfiles.com/seamlessM4T/models/unit_extraction/xlsr2_1b_v2.pt",
    id="xlsr2-1b-v2-l35-km10000",
    kmeans="https://dl.fbaipublicfiles.com/seamlessM4T/models/unit_extraction/kmeans_10k.npy",
    vocabulary_size=10_000,
    layer=35,
    arch="large_lv60k",
    config={
        "model_dim": 1280,
        "num_encoder_layers": 48,
        "num_encoder_attn_heads": 16,
        "ffn_inner_dim": 5120,
    },
    weights_license="CC-BY-NC-4.0",
    summary="10000 units of Seamless at 50 Hz: layer 35 of XLS-R 2 1B, 36 languages",
)
