"""Stage ``export``: the newest checkpoints as float16 safetensors with a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechloom_starter.weights import write_manifest, write_tensors

if TYPE_CHECKING:
    from speechloom_starter.recipe.pipeline import Recipe

POLISHED = "codec."


def codec_tensors(recipe: Recipe) -> dict[str, Tensor]:
    """The codec after polishing, or before it when that stage has not run."""
    if not (recipe.work / "polish.pt").exists():
        return dict(recipe.state("codec")["network"])
    network = recipe.state("polish")["network"]
    return {k.removeprefix(POLISHED): v for k, v in network.items() if k.startswith(POLISHED)}


def voice_tensors(recipe: Recipe) -> dict[str, Tensor]:
    """The named voices: the mean direction of their speakers' utterances."""
    corpus, voices = recipe.corpus(), recipe.encoded().voices
    made = {}
    for name, speaker in recipe.config.named_voices.items():
        mean = torch.from_numpy(voices[corpus.by_speaker[speaker]]).mean(0)
        made[name] = torch.nn.functional.normalize(mean, dim=0)
    return made


def export(recipe: Recipe) -> None:
    """Write ``weights/``: one file for each network, the units, the voices, the manifest."""
    folder, config = recipe.folder / "weights", recipe.config
    write_tensors("codec", codec_tensors(recipe), folder, config.codec_model)
    for name, model in (
        ("content", config.content_model),
        ("voice", config.voice_model),
        ("durations", config.duration_model),
        ("t2u", config.t2u_model),
        ("u2c", config.u2c_model),
    ):
        write_tensors(name, recipe.state(name)["network"], folder, model)
    write_tensors("units", {"codebook": recipe.codebook()}, folder)
    write_tensors("voices", voice_tensors(recipe), folder)
    write_manifest(folder)
