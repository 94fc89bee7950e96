"""What the plugin announces, and specs for other checkpoints. Light: imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from speechloom.mel import TACOTRON2, MelSpec
from speechloom.spec import (
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
)
from speechloom.training.spec import LearnerSpec
from speechloom_sv2tts.config import Ge2eConfig, TacotronConfig
from speechloom_sv2tts.symbols import CHARACTERS, NVIDIA_IDS, PAUSE

__all__ = [
    "CHARACTERS_FRONTEND",
    "GE2E_ENCODER",
    "GE2E_LEARNER",
    "TACOTRON2_LEARNER",
    "TACOTRON2_LJSPEECH",
    "VOICE",
    "ge2e_spec",
    "tacotron2_spec",
]

VOICE = "ge2e"
"""The vector space of the published GE2E weights; resemblyzer's are Real-Time-Voice-Cloning's."""

_INSTALL = "pip install speechloom-sv2tts"
_REQUIRES = ("torch>=2.6", "safetensors>=0.4")


def ge2e_spec(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    voice: str | None = None,
    vad: Literal["energy", "webrtc", "none"] = "energy",
    step: int = 80,
    config: Ge2eConfig | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    requires: Sequence[str] = (),
) -> ComponentSpec:
    """The spec of a GE2E speaker encoder, to be given to ``Registry.register``.

    Args:
        checkpoint: ``resemblyzer`` for the file inside that package; or a file or folder with
            Real-Time-Voice-Cloning's ``encoder.pt``, resemblyzer's ``pretrained.pt`` or our own
            ``ge2e.safetensors``.
        id: of the component.
        voice: name of the vector space, shared with the generators that were trained on it; the
            id when not given. `VOICE` for resemblyzer's own weights.
        vad: what cuts out pauses; see `speechloom_sv2tts.speech_only`.
        step: frames of 10 ms from one window of 160 to the next; 80 is the half of the papers and
            of Real-Time-Voice-Cloning, 77 resemblyzer's.
        config: sizes; those of the public weights when not given.
        sha256: promised hash by file name; checked whenever the weights are loaded.
        weights_license: SPDX id, or a sentence.
        requires: distributions that must be there beside the plugin's own needs.
    """
    sizes = config or Ge2eConfig()
    vad_needs = ("webrtcvad",) if vad == "webrtc" else ()
    return ComponentSpec(
        id=id,
        implementation="speechloom_sv2tts.ge2e:Ge2eEncoder",
        facts=SpeakerEncoderFacts(
            voice=voice or id, size=sizes.size, sample_rate=16_000, min_seconds=0.5
        ),
        summary=f"GE2E speaker encoder: a recording to {sizes.size} values of length 1",
        license="Apache-2.0",
        weights_license=weights_license,
        requires=(*_REQUIRES, *requires, *vad_needs),
        install="pip install 'speechloom-sv2tts[ge2e]'" if requires else _INSTALL,
        homepage="https://github.com/resemble-ai/Resemblyzer",
        options={
            "checkpoint": os.fspath(checkpoint),
            "vad": vad,
            "step": step,
            "config": sizes.model_dump(),
            "sha256": dict(sha256) if sha256 else None,
        },
    )


def tacotron2_spec(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    mel: MelSpec,
    alphabet: str,
    symbols: Mapping[str, int],
    config: TacotronConfig,
    voice: str | None = None,
    languages: Sequence[str] = ("en",),
    max_seconds: float = 15.0,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    """The spec of a Tacotron 2, to be given to ``Registry.register``.

    Args:
        checkpoint: a file, or a folder with ``tacotron2.safetensors`` or ``tacotron2.pt``: the
            names of this package, of NVIDIA's code or of torchaudio's, bare or as ``state_dict``.
        id: of the component.
        mel: every parameter of the mel that it was trained on.
        alphabet: of the front end whose phones (or characters) it takes.
        symbols: id of each phone in the embedding, in the order of the alphabet's phones.
        config: sizes.
        voice: kind of the speaker vectors that it takes, where ``config.voice`` is not 0.
        languages: BCP 47 codes.
        max_seconds: the longest sentence that its attention holds out.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence.
    """
    return ComponentSpec(
        id=id,
        implementation="speechloom_sv2tts.generator:Tacotron2Generator",
        facts=GeneratorFacts(
            tasks=("synthesize",) if voice is None else ("synthesize", "convert"),
            content=(f"phones:{alphabet}",),
            gives=f"features:{mel.kind}",
            frame_rate=mel.frame_rate,
            codebook_size=2,
            voice=voice,
            voice_size=config.voice or None,
            voice_required=voice is not None,
            styles=("rate",),
            languages=tuple(languages),
            max_seconds=max_seconds,
        ),
        summary=f"Tacotron 2: {alphabet} phones{' and a voice' if voice else ''} to a mel",
        license="Apache-2.0",
        weights_license=weights_license,
        requires=_REQUIRES,
        install=_INSTALL,
        homepage="https://arxiv.org/abs/1806.04558",
        options={
            "checkpoint": os.fspath(checkpoint),
            "phones": list(symbols),
            "symbols": list(symbols.values()),
            "config": config.model_dump(),
            "sha256": dict(sha256) if sha256 else None,
        },
    )


def _learner(id_: str, implementation: str, summary: str) -> LearnerSpec:
    fields: dict[str, Any] = {"id": id_, "summary": summary}
    return LearnerSpec(implementation=f"speechloom_sv2tts.training.{implementation}", **fields)


GE2E_ENCODER = ge2e_spec(
    "resemblyzer",
    id="ge2e",
    voice=VOICE,
    weights_license="Apache-2.0",
    requires=("resemblyzer>=0.1.4",),
)

TACOTRON2_LJSPEECH = tacotron2_spec(
    "nvidia:tacotron2_statedict.pt",
    id="tacotron2-ljspeech",
    mel=TACOTRON2,
    alphabet="tacotron2-characters",
    symbols=NVIDIA_IDS,
    config=TacotronConfig(),
    weights_license="BSD-3-Clause",
)

CHARACTERS_FRONTEND = ComponentSpec(
    id="tacotron2-characters",
    implementation="speechloom_sv2tts.characters:CharacterFrontend",
    facts=FrontendFacts(
        alphabet="tacotron2-characters", phones=CHARACTERS, pause=PAUSE, languages=("en",)
    ),
    summary="English text to the characters that NVIDIA's Tacotron 2 reads",
    license="Apache-2.0",
    requires=(),
    install=_INSTALL,
)

GE2E_LEARNER = _learner("ge2e", "ge2e:Ge2eLearner", "GE2E speaker encoder: who speaks")
TACOTRON2_LEARNER = _learner(
    "tacotron2", "tacotron2:Tacotron2Learner", "Tacotron 2: text and a voice to a mel"
)
