"""What this plugin announces. Light: importing this imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from speechloom.checkpoints import lasting_location, local_path
from speechloom.errors import UsageError
from speechloom.published import checkpoint_options
from speechloom.spec import CodecFacts, ComponentSpec, TokenizerFacts
from speechloom_speechtokenizer.config import CONFIG_FILE, SpeechTokenizerConfig, read_config

__all__ = ["HUBERT_AVG_CODEC", "HUBERT_AVG_UNITS", "SNAKE_CODEC", "SNAKE_UNITS", "spec_for"]

_PUBLISHED = SpeechTokenizerConfig(
    sample_rate=16_000,
    strides=(8, 5, 4, 2),
    n_filters=64,
    n_residual_layers=1,
    residual_kernel_size=3,
    dilation_base=2,
    activation="ELU",
    lstm_layers=2,
    bidirectional=True,
    dimension=1024,
    n_q=8,
    codebook_size=1024,
)
"""The sizes of the published checkpoints, as far as facts depend on them."""


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    kind: Literal["codec", "tokenizer"] = "codec",
    codes: str | None = None,
    num_codebooks: int | None = None,
    folder: str | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    summary: str | None = None,
) -> ComponentSpec:
    """The spec of a checkpoint, to be given to ``Registry.register`` with the component's class.

    Args:
        checkpoint: folder with ``config.json`` and the weights, the weights file itself with
            ``config.json`` beside it, or hub id. Of a hub id the sizes are taken to be the
            published ones; loading refuses a checkpoint of other sizes.
        id: of the component.
        kind: ``codec`` for all levels, ``tokenizer`` for the first, the semantic one.
        codes: name of the set of codes; its first level is the vocabulary ``<codes>-level-1``.
            By default the id.
        num_codebooks: how many levels the codec gives, the first ones; all by default.
        folder: where in the checkpoint the files lie.
        revision: branch, tag or commit of a hub id.
        sha256: promised hashes by file name.
        weights_license: SPDX id, or a sentence, of the weights.
        summary: one line for listings.

    Raises:
        UsageError: there are not so many levels, or a tokenizer is asked for several.
        WeightsError: the local configuration is not that of a SpeechTokenizer.
    """
    local = local_path(checkpoint)
    config = (_local_config(local, folder) if local is not None else None) or _PUBLISHED
    levels = config.n_q if num_codebooks is None else num_codebooks
    if not 1 <= levels <= config.n_q or (kind == "tokenizer" and num_codebooks is not None):
        raise UsageError(
            f"num_codebooks of a codec must lie in 1 to {config.n_q}, and a tokenizer has none, "
            f"but num_codebooks={num_codebooks} was asked for a {kind}"
        )
    names = codes or id
    is_codec = kind == "codec"
    return _component(
        id,
        _codec_facts(config, names, levels) if is_codec else _units_facts(config, names),
        summary or f"SpeechTokenizer {kind} of {Path(checkpoint).name}"[:120],
        weights_license,
        **checkpoint_options(
            lasting_location(checkpoint),
            revision=revision,
            sha256=sha256,
            folder=folder,
            strides=list(config.strides),
        ),
    )


def _component(
    id_: str,
    facts: CodecFacts | TokenizerFacts,
    summary: str,
    weights_license: str | None,
    **options: Any,
) -> ComponentSpec:
    class_name = f"SpeechTokenizer{'Codec' if isinstance(facts, CodecFacts) else 'Units'}"
    return ComponentSpec(
        id=id_,
        implementation=f"speechloom_speechtokenizer.components:{class_name}",
        facts=facts,
        summary=summary,
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "safetensors>=0.4", "huggingface_hub>=0.32"),
        install="pip install speechloom-speechtokenizer",
        homepage="https://github.com/ZhangXInFD/SpeechTokenizer",
        options=options,
    )


def _codec_facts(config: SpeechTokenizerConfig, codes: str, levels: int) -> CodecFacts:
    # Decoding runs an LSTM from the first frame on: no bounded number of frames determines one.
    # `SpeechTokenizerCodec.stream` carries its state instead.
    return CodecFacts(
        codes=codes,
        sample_rate=config.sample_rate,
        frame_rate=config.frame_rate,
        codebooks=levels,
        codebook_size=config.codebook_size,
        context_frames=None,
    )


def _units_facts(config: SpeechTokenizerConfig, codes: str) -> TokenizerFacts:
    return TokenizerFacts(
        vocabulary=f"{codes}-level-1",
        vocabulary_size=config.codebook_size,
        sample_rate=config.sample_rate,
        frame_rate=config.frame_rate,
        context_frames=None,
    )


def _local_config(checkpoint: Path, folder: str | None) -> SpeechTokenizerConfig | None:
    """The configuration of a local checkpoint; None where there is none to read."""
    base = checkpoint.parent if checkpoint.is_file() else checkpoint
    places = [base / folder / CONFIG_FILE, base / CONFIG_FILE] if folder else [base / CONFIG_FILE]
    found = [path for path in places if path.is_file()]
    return read_config(found[0]) if found else None


def _on_the_hub(repository: str, folder: str) -> dict[str, Any]:
    strides = list(_PUBLISHED.strides)
    return checkpoint_options(
        repository, revision=None, sha256=None, folder=folder, strides=strides
    )


_HUBERT_AVG = _on_the_hub("fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg")
_SNAKE = _on_the_hub("fnlp/AnyGPT-speech-modules", "speechtokenizer")
_NO_NOTICE = "no notice of their own; the code beside them is Apache-2.0"

HUBERT_AVG_CODEC = _component(
    "speechtokenizer-hubert-avg",
    _codec_facts(_PUBLISHED, "speechtokenizer-hubert-avg", _PUBLISHED.n_q),
    "SpeechTokenizer, 16 kHz speech to 8 levels of 1024 codes at 50 Hz (LibriSpeech)",
    _NO_NOTICE,
    **_HUBERT_AVG,
)
HUBERT_AVG_UNITS = _component(
    "speechtokenizer-hubert-avg-units",
    _units_facts(_PUBLISHED, "speechtokenizer-hubert-avg"),
    "SpeechTokenizer level 1, 1024 semantic units at 50 Hz (LibriSpeech)",
    _NO_NOTICE,
    **_HUBERT_AVG,
)
SNAKE_CODEC = _component(
    "speechtokenizer-snake",
    _codec_facts(_PUBLISHED, "speechtokenizer-snake", _PUBLISHED.n_q),
    "SpeechTokenizer with Snake activation (LibriSpeech and Common Voice)",
    _NO_NOTICE,
    **_SNAKE,
)
SNAKE_UNITS = _component(
    "speechtokenizer-snake-units",
    _units_facts(_PUBLISHED, "speechtokenizer-snake"),
    "SpeechTokenizer with Snake activation, level 1, 1024 semantic units at 50 Hz",
    _NO_NOTICE,
    **_SNAKE,
)
