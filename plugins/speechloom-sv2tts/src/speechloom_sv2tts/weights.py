"""Tacotron 2 checkpoints: ours, NVIDIA's and torchaudio's, by one set of names.

NVIDIA/tacotron2 saves ``{"state_dict": ...}`` with each layer wrapped (``conv.weight``,
``linear_layer.weight``); its DeepLearningExamples put ``module.`` before every name; torchaudio has
the same network without the wrappers. Real-Time-Voice-Cloning's synthesizer is another network (a
Tacotron 1 with CBHG blocks) and so is Mellotron (style tokens, pitch): both are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechloom.checkpoints import find_checkpoint, read_checkpoint
from speechloom.errors import WeightsError

__all__ = ["NVIDIA", "cache_folder", "local_checkpoint", "read_tacotron2"]

NVIDIA = "nvidia:"
"""Before a file name: a checkpoint that has to be put into `cache_folder` by hand."""

_NAMES = ("tacotron2.safetensors", "tacotron2.pt", "tacotron2_statedict.pt")

_RULES = (
    (r"module\.", ""),
    (
        r"(encoder|postnet)\.convolutions\.(\d+)\.0\.(?:conv\.)?(weight|bias)",
        r"\1.blocks.\2.conv.\3",
    ),
    (r"(encoder|postnet)\.convolutions\.(\d+)\.1\.(\w+)", r"\1.blocks.\2.norm.\3"),
    (r"decoder\.prenet\.layers\.(\d)\.(?:linear_layer\.)?weight", r"decoder.prenet.\1.weight"),
    (
        r"decoder\.attention_layer\.(query|memory)_layer\.(?:linear_layer\.)?weight",
        r"decoder.attention.\1.weight",
    ),
    (r"decoder\.attention_layer\.v\.(?:linear_layer\.)?weight", "decoder.attention.score.weight"),
    (
        r"decoder\.attention_layer\.location_layer\.location_conv\.(?:conv\.)?weight",
        "decoder.attention.location_conv.weight",
    ),
    (
        r"decoder\.attention_layer\.location_layer\.location_dense\.(?:linear_layer\.)?weight",
        "decoder.attention.location.weight",
    ),
    (r"decoder\.decoder_rnn\.(weight|bias)_(ih|hh)$", r"decoder.decoder_rnn.\1_\2_l0"),
    (r"decoder\.linear_projection\.(?:linear_layer\.)?(\w+)", r"decoder.project.\1"),
    (r"decoder\.gate_layer\.(?:linear_layer\.)?(\w+)", r"decoder.stop.\1"),
)
"""A name of theirs, as far as it goes, and ours."""


def cache_folder() -> Path:
    """Where checkpoints are put that no hub has: ``$SPEECHLOOM_SV2TTS``, or a folder at home."""
    home = Path.home() / ".cache" / "speechloom" / "sv2tts"
    return Path(os.environ.get("SPEECHLOOM_SV2TTS", home))


def local_checkpoint(checkpoint: str) -> str | Path:
    """A checkpoint as `find_checkpoint` takes it."""
    if checkpoint.startswith(NVIDIA):
        return cache_folder() / checkpoint.removeprefix(NVIDIA)
    return checkpoint


def read_tacotron2(
    checkpoint: str, sha256: Mapping[str, str] | None
) -> tuple[dict[str, Tensor], Path]:
    """The tensors of a checkpoint by our names, and its file.

    Raises:
        WeightsError: it is not there, is damaged, or holds no Tacotron 2.
    """
    location = local_checkpoint(checkpoint)
    if checkpoint.startswith(NVIDIA) and not Path(location).is_file():
        raise WeightsError(
            f"the weights are not at {location}: download tacotron2_statedict.pt as the README of "
            "github.com/NVIDIA/tacotron2 says and put it there, or make a spec of another file "
            "with speechloom_sv2tts.tacotron2_spec"
        )
    (path,) = find_checkpoint(location, [_NAMES], sha256=sha256).values()
    content = read_checkpoint(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in state.values()
    ):
        raise WeightsError(
            f"{path} holds no state dict; give a file of tensors by name, or one with them under "
            "state_dict"
        )
    tensors = {_renamed(name): value for name, value in state.items()}
    _refuse_relatives(tensors, path)
    return tensors, path


def _renamed(name: str) -> str:
    for pattern, ours in _RULES:
        found = re.match(pattern, name)
        if found is not None:
            name = found.expand(ours) + name[found.end() :]
    return name


def _refuse_relatives(tensors: Mapping[str, Any], path: Path) -> None:
    """Networks that share a name with Tacotron 2, but not its layers."""
    relatives = {
        "gst.": "Mellotron's, with style tokens and pitch",
        "encoder.cbhg.": "Real-Time-Voice-Cloning's synthesizer, a Tacotron 1 with CBHG blocks",
    }
    for prefix, what in relatives.items():
        if any(name.startswith(prefix) for name in tensors):
            raise WeightsError(f"{path} is {what}; this is another network: give a Tacotron 2")
