"""What the plugin announces of X-E-Speech. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from speechloom.checkpoints import find_checkpoint
from speechloom.errors import WeightsError
from speechloom.spec import (
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    TokenizerFacts,
)
from speechloom.training.spec import LearnerSpec
from speechloom_vits.symbols import ORIGINAL_SYMBOLS, distinct
from speechloom_vits.xe_config import XEConfig

__all__ = [
    "IPA_ENGLISH",
    "PINYIN",
    "X_E_LEARNER",
    "whisper_spec_for",
    "whisper_spec_of_config",
    "x_e_specs_for",
    "x_e_specs_of_config",
]

_HOMEPAGE = "https://github.com/X-E-Speech/X-E-Speech-code"
_INSTALL = "pip install speechloom-vits"

X_E_LEARNER = LearnerSpec(
    id="x-e-speech",
    implementation="speechloom_vits.xe_learner:XELearner",
    summary="Text, Whisper content and speech to synthesis and conversion (X-E-Speech)",
    requires=("safetensors>=0.4", "numba>=0.60", "transformers>=4.57"),
)

PINYIN = ComponentSpec(
    id="x-e-pinyin",
    implementation="speechloom_vits.pinyin:PinyinFrontend",
    facts=FrontendFacts(
        alphabet="pinyin-letters",
        phones=("_", "-", *"abcdefghijklmnopqrstuvwxyz", *"12345"),
        pause="_",
        languages=("zh",),
    ),
    summary="Mandarin to pinyin letters with tones",
    license="Apache-2.0",
    requires=("pypinyin>=0.51", "jieba>=0.42"),
    install="pip install 'speechloom-vits[pinyin]'",
    homepage=_HOMEPAGE,
)

IPA_ENGLISH = ComponentSpec(
    id="x-e-ipa-english",
    implementation="speechloom_vits.characters:CharacterFrontend",
    facts=FrontendFacts(
        alphabet="ipa-english",
        phones=distinct(ORIGINAL_SYMBOLS),
        pause="_",
        languages=("en",),
    ),
    summary="American English to IPA with stress, by espeak-ng",
    license="Apache-2.0",
    requires=("phonemizer>=3.2",),
    install="pip install 'speechloom-vits[ipa]' and the program espeak-ng",
    homepage=_HOMEPAGE,
    options={"add_blank": True, "phonemize": True, "language": "eng"},
)


def whisper_spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    """The spec of a Whisper encoder as content, of any size.

    Args:
        checkpoint: hub id or folder in the layout of transformers.
        id: of the component, and of the features: a generator that was trained on it names it.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence.

    Raises:
        WeightsError: it cannot be found, or is of another model.
    """
    from speechloom_vits.weights import read_json

    found = find_checkpoint(checkpoint, ["config.json"], revision=revision, sha256=sha256)
    config = read_json(found["config.json"])
    if config.get("model_type") != "whisper":
        raise WeightsError(
            f"{found['config.json']} is of {config.get('model_type')!r}, not of 'whisper'; give a "
            "Whisper checkpoint"
        )
    return whisper_spec_of_config(
        config,
        id=id,
        features=id,
        checkpoint=os.fspath(checkpoint),
        revision=revision,
        sha256=sha256,
        weights_license=weights_license,
    )


def whisper_spec_of_config(
    config: Mapping[str, Any],
    *,
    id: str,
    features: str,
    checkpoint: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    install: str = "pip install 'speechloom-vits[whisper]'",
) -> ComponentSpec:
    """The same of a configuration of transformers at hand.

    Args:
        config: the content of ``config.json``, of which the sizes are kept.
        id: of the component.
        features: name of the features, which a generator that was trained on them names.
        checkpoint: as in `whisper_spec_for`.
        revision: likewise.
        sha256: likewise.
        weights_license: likewise.
        install: the command that brings the component.
    """
    return ComponentSpec(
        id=id,
        implementation="speechloom_vits.whisper:WhisperContent",
        facts=TokenizerFacts(
            vocabulary=features,
            vocabulary_size=config["d_model"],
            sample_rate=16_000,
            frame_rate=Fraction(50),
            max_seconds=30.0,
            form="features",
        ),
        summary=f"Whisper encoder, {config['d_model']} values a frame at 50 Hz",
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "transformers>=4.57", "speechloom-vits"),
        install=install,
        options={
            "checkpoint": checkpoint,
            "revision": revision,
            "sha256": dict(sha256) if sha256 else None,
            "config": {name: config[name] for name in _WHISPER_SIZES if name in config},
        },
    )


_WHISPER_SIZES = (
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "num_mel_bins",
    "max_source_positions",
    "activation_function",
    "scale_embedding",
)


def x_e_specs_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> list[ComponentSpec]:
    """The specs of an exported X-E-Speech: its generator and the encoder of its styles.

    Args:
        checkpoint: folder with ``config.json`` and ``model.safetensors``, or hub id.
        id: of the generator.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence.

    Raises:
        WeightsError: it cannot be found, or is of another model.
    """
    found = find_checkpoint(checkpoint, ["config.json"], revision=revision, sha256=sha256)
    return x_e_specs_of_config(
        XEConfig.read(found["config.json"]),
        id=id,
        checkpoint=os.fspath(checkpoint),
        revision=revision,
        sha256=sha256,
        weights_license=weights_license,
    )


def x_e_specs_of_config(
    config: XEConfig,
    *,
    id: str,
    checkpoint: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    install: str = _INSTALL,
) -> list[ComponentSpec]:
    """The same of a configuration at hand; arguments as in `x_e_specs_for`."""
    voice = config.sizes.voice
    style = f"{id}-style"
    shared: dict[str, Any] = {
        "license": "Apache-2.0",
        "weights_license": weights_license,
        "requires": ("torch>=2.6", "safetensors>=0.4", "speechloom-vits"),
        "install": install,
        "homepage": _HOMEPAGE,
        "options": {
            "checkpoint": checkpoint,
            "revision": revision,
            "sha256": dict(sha256) if sha256 else None,
            "config": config.model_dump(mode="json"),
        },
    }
    phones = tuple(f"phones:{name}" for name in config.alphabets)
    generator = ComponentSpec(
        id=id,
        implementation="speechloom_vits.xe_generator:XEGenerator",
        facts=GeneratorFacts(
            tasks=("synthesize", "convert"),
            content=(*phones, f"features:{config.content}"),
            content_size=config.sizes.content_size,
            gives="audio",
            sample_rate=voice.sample_rate,
            frame_rate=voice.frame_rate,
            codebook_size=2,
            styles=("rate",),
            voice=style,
            voice_size=voice.speaker_size,
            voice_required=True,
            languages=config.sizes.languages,
        ),
        summary="X-E-Speech: text or another's recording, in the style of a reference",
        **shared,
    )
    encoder = ComponentSpec(
        id=style,
        implementation="speechloom_vits.xe_generator:XEStyle",
        facts=SpeakerEncoderFacts(
            voice=style, size=voice.speaker_size, sample_rate=voice.sample_rate, min_seconds=0.5
        ),
        summary=f"Who speaks and how, for {id}"[:120],
        **shared,
    )
    return [generator, encoder]
