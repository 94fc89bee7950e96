"""What the plugin announces: specs of trained generators, and what can be trained. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from speechloom.checkpoints import find_checkpoint
from speechloom.spec import ComponentSpec
from speechloom.training.spec import LearnerSpec
from speechloom_speechsec.checkpoint import CONFIG_FILE, CheckpointConfig, read_config

__all__ = ["CODES_LEARNER", "TEXT_LEARNER", "spec_for", "spec_of_config"]

_PACKAGE = "speechloom_speechsec"


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    install: str = "pip install speechloom-speechsec",
) -> ComponentSpec:
    """The spec of a trained generator, for ``Registry.register`` or an entry point.

    What it takes and gives stands in the checkpoint's ``config.json``, which is read: any pair of
    a tokenizer and a codec, or of a front end and a tokenizer.

    Args:
        checkpoint: folder with ``config.json`` and ``model.safetensors``, ``package:...`` for a
            folder of an installed package, or hub id.
        id: of the component.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name; checked whenever the weights are loaded.
        weights_license: SPDX id, or a sentence.
        install: the command that installs it.

    Raises:
        WeightsError: the checkpoint cannot be found, or is not one of a SpeechSEC generator.
    """
    (path,) = find_checkpoint(checkpoint, [CONFIG_FILE], revision=revision, sha256=sha256).values()
    return spec_of_config(
        read_config(path),
        id=id,
        checkpoint=os.fspath(checkpoint),
        revision=revision,
        sha256=sha256,
        weights_license=weights_license,
        install=install,
    )


def spec_of_config(
    config: CheckpointConfig,
    *,
    id: str,
    checkpoint: str,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    install: str = "pip install speechloom-speechsec",
) -> ComponentSpec:
    """The spec of a generator whose configuration is at hand; arguments as in `spec_for`."""
    kind = "text_generator:SpeechSECTextGenerator" if config.phones else None
    options: dict[str, Any] = {
        "checkpoint": checkpoint,
        "revision": revision,
        "sha256": dict(sha256) if sha256 else None,
        "content_vocab": config.network.content_vocab,
    }
    if config.phones:
        options["phones"] = list(config.phones)
    facts = config.facts
    return ComponentSpec(
        id=id,
        implementation=f"{_PACKAGE}.{kind or 'generator:SpeechSECGenerator'}",
        facts=facts,
        summary=f"SpeechSEC: {', '.join(facts.content)} to {facts.gives}"[:120],
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "safetensors>=0.4", "speechloom-speechsec"),
        install=install,
        options=options,
    )


CODES_LEARNER = LearnerSpec(
    id="speechsec",
    implementation=f"{_PACKAGE}.learner:SpeechSECLearner",
    summary="Content units and a voice to the codes of a codec, for all four tasks (SpeechSEC)",
    requires=("safetensors>=0.4",),
)

TEXT_LEARNER = LearnerSpec(
    id="speechsec-text",
    implementation=f"{_PACKAGE}.text_learner:SpeechSECTextLearner",
    summary="Phones with durations to content units, and the durations of phones (SpeechSEC)",
    requires=("safetensors>=0.4",),
)
