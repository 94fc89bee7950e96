"""What the plugin announces: specs of checkpoints, and what can be trained. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from speechloom.errors import UsageError
from speechloom.spec import (
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    TokenizerFacts,
)
from speechloom.training.spec import LearnerSpec
from speechloom_vits.config import VitsConfig

__all__ = ["VITS_LEARNER", "specs_for", "specs_of_config"]

_HOMEPAGE = "https://github.com/jaywalnut310/vits"
_REQUIRES = ("torch>=2.6", "safetensors>=0.4", "huggingface_hub", "speechloom-vits")

VITS_LEARNER = LearnerSpec(
    id="vits",
    implementation="speechloom_vits.learner:VitsLearner",
    summary="Text and speech to a voice that speaks (VITS)",
    requires=("safetensors>=0.4", "numba>=0.60"),
)


def specs_of_config(
    config: VitsConfig,
    *,
    id: str,
    checkpoint: str,
    phones: Sequence[str],
    pause: str,
    alphabet: str,
    languages: Sequence[str],
    speakers: Sequence[str] = (),
    sources: Sequence[str] = (),
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    install: str = "pip install speechloom-vits",
    precision: str = "float32",
) -> list[ComponentSpec]:
    """The specs of a network whose configuration is at hand.

    Args:
        config: sizes.
        id: of the generator; the others begin with it.
        checkpoint: as `speechloom.checkpoints.find_checkpoint` takes it.
        phones: in the order of their ids.
        pause: which of them is silence.
        alphabet: name of the phone set.
        languages: BCP 47 codes.
        speakers: names of the voices; empty where there is one.
        sources: those of them whose recordings are to be converted.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence.
        install: the command that installs it.
        precision: as in `specs_for`.

    Returns:
        The generator; where there are several speakers, the table of their voices; and for each
        source, the tokenizer that reads its recordings.

    Raises:
        UsageError: a source is none of the speakers.
    """
    unknown = sorted(set(sources) - set(speakers))
    if unknown:
        raise UsageError(
            f"{id} has no speaker {', '.join(unknown)} whose recordings it could read; its "
            f"speakers are {', '.join(speakers) or 'one without a name'}"
        )
    voice = f"{id}-speakers" if speakers else None
    shared: dict[str, Any] = {
        "license": "Apache-2.0",
        "weights_license": weights_license,
        "requires": _REQUIRES,
        "install": install,
        "homepage": _HOMEPAGE,
        "options": {
            "checkpoint": checkpoint,
            "revision": revision,
            "sha256": dict(sha256) if sha256 else None,
            "network": config.model_dump(mode="json"),
            "phones": list(phones),
            "pause": pause,
            "precision": precision,
        },
    }
    generator = ComponentSpec(
        id=id,
        implementation="speechloom_vits.generator:VitsGenerator",
        facts=GeneratorFacts(
            tasks=("synthesize", "convert") if speakers else ("synthesize",),
            content=(f"phones:{alphabet}", *([f"features:{id}-content"] if speakers else [])),
            content_size=config.latent_size if speakers else None,
            gives="audio",
            sample_rate=config.sample_rate,
            frame_rate=config.frame_rate,
            codebook_size=2,
            styles=("rate",),
            voice=voice,
            voice_size=config.speaker_size if speakers else None,
            voice_required=bool(speakers),
            languages=tuple(languages),
        ),
        summary=f"VITS: {alphabet} phones to speech at {config.sample_rate / 1000:g} kHz"[:120],
        **shared,
    )
    if voice is None:
        return [generator]
    table = ComponentSpec(
        id=voice,
        implementation="speechloom_vits.speakers:SpeakerTable",
        facts=SpeakerEncoderFacts(
            voice=voice,
            size=config.speaker_size,
            sample_rate=config.sample_rate,
            named_voices=tuple(speakers),
            recordings=False,
        ),
        summary=f"The {len(speakers)} voices that {id} was trained on"[:120],
        **shared,
    )
    readers = [_reader(config, id, list(speakers).index(name), name, shared) for name in sources]
    return [generator, table, *readers]


def _reader(
    config: VitsConfig, id: str, number: int, name: str, shared: Mapping[str, Any]
) -> ComponentSpec:
    """The tokenizer of one speaker's recordings."""
    return ComponentSpec(
        id=f"{id}-from-{re.sub(r'[^a-z0-9._-]+', '-', name.lower())}",
        implementation="speechloom_vits.content:VitsContent",
        facts=TokenizerFacts(
            vocabulary=f"{id}-content",
            vocabulary_size=config.latent_size,
            sample_rate=config.sample_rate,
            frame_rate=config.frame_rate,
            form="features",
        ),
        summary=f"What {name} says in a recording, for {id}"[:120],
        **{**shared, "options": {**shared["options"], "source": number}},
    )


def specs_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    languages: Sequence[str] = (),
    symbols: Sequence[str] = (),
    speakers: Sequence[str] = (),
    sources: Sequence[str] = (),
    noise_scale: float | None = None,
    duration_noise_scale: float | None = None,
    length_scale: float | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
    precision: str = "float32",
) -> list[ComponentSpec]:
    """The specs of any VITS checkpoint, to be given to ``Registry.register``.

    Args:
        checkpoint: hub id or folder in the layout of transformers (every MMS voice is one); folder
            of an export; or a ``G_*.pth`` of the original code with its ``config.json`` beside it.
        id: of the generator; the others begin with it.
        languages: BCP 47 codes, where the checkpoint does not say its language.
        symbols: of the text in the order of their ids, for a ``.pth`` that was trained on others
            than the original's 178.
        speakers: names of the voices; ``0``, ``1``, ... when not given.
        sources: those of them whose recordings are to be converted: the network must be told who
            speaks.
        noise_scale: of what is drawn for the frames; the checkpoint's own when not given.
        duration_noise_scale: of what is drawn for durations, likewise.
        length_scale: every duration is multiplied by it, likewise.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        weights_license: SPDX id, or a sentence; MMS voices are CC-BY-NC-4.0.
        precision: of the decoder: ``float32``; ``bfloat16``, half the work on processors with units
            for it, with noise about 40 dB below speech; or ``auto``, which takes it there.

    Returns:
        The generator and its front end; where there are several speakers the table of their
        voices, and for each source the tokenizer that reads its recordings. An export that reads
        the phones of another plugin has no front end of its own.

    Raises:
        WeightsError: the checkpoint cannot be found, or is of another model.
        UsageError: too few names, or a source that is none of them.
    """
    from speechloom_vits.alphabets import read_text_side

    text = read_text_side(checkpoint, symbols=symbols, revision=revision, sha256=sha256)
    scales = {
        "noise_scale": noise_scale,
        "duration_noise_scale": duration_noise_scale,
        "length_scale": length_scale,
    }
    config = VitsConfig.model_validate(
        text.config.model_dump() | {name: n for name, n in scales.items() if n is not None}
    )
    alphabet = text.alphabet or id
    spoken = tuple(languages) or text.languages
    names = tuple(speakers) or text.speakers
    if config.speakers > 1 and not names:
        names = tuple(str(number) for number in range(config.speakers))
    if config.speakers > 1 and len(names) != config.speakers:
        raise UsageError(f"{checkpoint} has {config.speakers} speakers, but {len(names)} names")
    shared: dict[str, Any] = {
        "id": id,
        "checkpoint": os.fspath(checkpoint),
        "phones": text.phones,
        "pause": text.pause,
        "alphabet": alphabet,
        "languages": spoken,
        "speakers": names if config.speakers > 1 else (),
        "sources": sources,
        "revision": revision,
        "sha256": sha256,
        "weights_license": weights_license,
        "precision": precision,
    }
    specs = specs_of_config(config, **shared)
    if text.rules is None:
        return specs
    frontend = ComponentSpec(
        id=f"{id}-characters",
        implementation="speechloom_vits.characters:CharacterFrontend",
        facts=FrontendFacts(
            alphabet=alphabet, phones=text.phones, pause=text.pause, languages=spoken
        ),
        summary=f"The {len(text.phones)} symbols that {id} reads",
        license="Apache-2.0",
        requires=("speechloom-vits",),
        install="pip install speechloom-vits",
        homepage=_HOMEPAGE,
        options=text.rules.model_dump(),
    )
    return [*specs, frontend]
