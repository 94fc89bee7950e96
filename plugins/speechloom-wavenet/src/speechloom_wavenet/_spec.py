"""What the plugin announces, and specs for checkpoints. Importing this imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from speechloom.mel import RTVC_SYNTHESIZER
from speechloom.spec import ComponentSpec, VocoderFacts
from speechloom_wavenet.config import WaveNetConfig

__all__ = ["GRIFFIN_LIM", "spec_for", "wavenet_spec"]

GRIFFIN_LIM = ComponentSpec(
    id="griffin-lim",
    implementation="speechloom_wavenet.griffin_lim:GriffinLimVocoder",
    facts=VocoderFacts(
        features=RTVC_SYNTHESIZER.kind,
        size=RTVC_SYNTHESIZER.bands,
        sample_rate=RTVC_SYNTHESIZER.rate,
        frame_rate=RTVC_SYNTHESIZER.frame_rate,
        any_mel=True,
    ),
    summary="Griffin-Lim: plays every mel spectrogram, without weights and without beauty",
    license="Apache-2.0",
    requires=("torch>=2.6",),
    install="pip install speechloom-wavenet",
)


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    mel: str | None = None,
    statistics: str | None = None,
    speaker: int | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    segment_frames: int | None = None,
    precision: str = "float32",
) -> ComponentSpec:
    """The spec of a WaveNet checkpoint, to be given to ``Registry.register`` with `WaveNetVocoder`.

    Args:
        checkpoint: folder, weight file or hub id: an export of the learner ``wavenet``, or a
            ``.pth`` of r9y9/wavenet_vocoder beside its ``hparams.json``.
        id: of the component.
        mel: kind of the mel spectrogram, where r9y9's settings do not tell.
        statistics: for r9y9's networks on standardised mels, an ``.npz`` with ``mean`` and
            ``scale`` of each band; ``none`` where nothing was standardised.
        speaker: number of the speaker, for networks of several.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence.
        temperature: divides logits and multiplies deviations; below 1 is less noisy.
        seed: of the draws.
        segment_frames: make long items in pieces of so many frames side by side; None for one.
        precision: of the weights on a CPU: ``float32``; ``bfloat16``, faster for single items; or
            ``auto``, which takes it on processors with units for it.

    Raises:
        WeightsError: the checkpoint cannot be found or is of another model.
    """
    from speechloom_wavenet.checkpoint import read_config

    return wavenet_spec(
        read_config(checkpoint, mel=mel, revision=revision, sha256=sha256),
        id=id,
        checkpoint=checkpoint,
        weights_license=weights_license,
        mel=mel,
        statistics=statistics,
        speaker=speaker,
        revision=revision,
        sha256=dict(sha256) if sha256 else None,
        temperature=temperature,
        seed=seed,
        segment_frames=segment_frames,
        precision=precision,
    )


def wavenet_spec(
    config: WaveNetConfig,
    *,
    id: str,
    checkpoint: str | os.PathLike[str],
    weights_license: str | None = None,
    install: str = "pip install speechloom-wavenet",
    **options: Any,
) -> ComponentSpec:
    """The spec of a WaveNet of a known shape; see `spec_for`.

    Args:
        config: its shape.
        id: of the component.
        checkpoint: of its weights.
        weights_license: SPDX id, or a sentence.
        install: command that installs it.
        options: those of `spec_for`.
    """
    mel = config.mel_spec
    return ComponentSpec(
        id=id,
        implementation="speechloom_wavenet.vocoder:WaveNetVocoder",
        facts=VocoderFacts(
            features=mel.kind, size=mel.bands, sample_rate=mel.rate, frame_rate=mel.frame_rate
        ),
        summary=(
            f"WaveNet at {mel.rate / 1000:g} kHz, {config.layers} layers of {config.residual} "
            f"channels, {config.output} output"
        ),
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "numba>=0.60", "safetensors"),
        install=install,
        options={"checkpoint": os.fspath(checkpoint), "output": config.output, **options},
    )
