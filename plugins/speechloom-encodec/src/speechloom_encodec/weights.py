"""EnCodec checkpoints of both layouts, as one: sizes, and tensors by the names of transformers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from speechloom.checkpoints import find_checkpoint, fold_weight_norm, read_tensors
from speechloom.errors import WeightsError
from speechloom_encodec._spec import CONFIG_24KHZ, CONFIG_48KHZ
from speechloom_encodec.config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["read_config", "read_weights"]

_WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "encodec_24khz-d7cc33bc.th",
    "encodec_48khz-7e698e3e.th",
)
_TRANSFORMERS = (".safetensors", ".bin")
"""File endings of the layout of transformers; others hold the original's own."""


def read_config(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> NetworkConfig:
    """The sizes of a checkpoint.

    Args:
        checkpoint: hub id, folder or file.
        revision: of a hub id.
        sha256: promised hash by file name.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    if Path(checkpoint).expanduser().exists():
        weights = _weights_file(checkpoint, revision, sha256)
        if weights.suffix not in _TRANSFORMERS:
            return _original_config(_original_tensors(weights), weights)
        return _transformers_config(weights.parent, None, sha256)
    return _transformers_config(checkpoint, revision, sha256)


def read_weights(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> tuple[NetworkConfig, dict[str, Tensor], Path]:
    """A whole checkpoint.

    Args:
        checkpoint: hub id, folder or file.
        revision: of a hub id.
        sha256: promised hash by file name.

    Returns:
        The sizes, the tensors by the names of transformers' ``EncodecModel`` with weight
        normalisation folded in, and the file that they come from.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    weights = _weights_file(checkpoint, revision, sha256)
    if weights.suffix in _TRANSFORMERS:
        local = Path(checkpoint).expanduser().exists()
        config = _transformers_config(weights.parent if local else checkpoint, revision, sha256)
        return config, fold_weight_norm(read_tensors(weights)), weights
    tensors = _original_tensors(weights)
    return _original_config(tensors, weights), tensors, weights


def _weights_file(
    checkpoint: str | os.PathLike[str], revision: str | None, sha256: Mapping[str, str] | None
) -> Path:
    (path,) = find_checkpoint(checkpoint, [_WEIGHTS], revision=revision, sha256=sha256).values()
    return path


def _transformers_config(
    checkpoint: str | os.PathLike[str], revision: str | None, sha256: Mapping[str, str] | None
) -> NetworkConfig:
    found = find_checkpoint(checkpoint, ["config.json"], revision=revision, sha256=sha256)
    path = found["config.json"]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}); get the checkpoint again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not the configuration of a model; get it again")
    return NetworkConfig.from_transformers(content, path)


# The original's layout ----------------------------------------------------------------------

_NAMES = (
    (re.compile(r"^(encoder|decoder)\.model\."), r"\1.layers."),
    (re.compile(r"\.(?:conv\.conv|convtr\.convtr)\."), ".conv."),
    (re.compile(r"\.(?:conv|convtr)\.norm\."), ".norm."),
    (re.compile(r"^quantizer\.vq\.layers\.(\d+)\._codebook\."), r"quantizer.layers.\1.codebook."),
)


def _original_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.th``, by the names of transformers."""
    renamed = {}
    for name, value in read_tensors(path).items():
        for pattern, replacement in _NAMES:
            name = pattern.sub(replacement, name)
        renamed[name] = value
    return fold_weight_norm(renamed)


def _original_config(tensors: Mapping[str, Tensor], path: Path) -> NetworkConfig:
    """The sizes that the shapes tell: a ``.th`` holds nothing but tensors.

    The original has two models, so that the rest follows from the number of channels.
    """
    first, codebook = "encoder.layers.0.conv.weight", "quantizer.layers.0.codebook.embed"
    if first not in tensors or codebook not in tensors:
        raise WeightsError(
            f"{path} is no EnCodec checkpoint: it has no {first} or no {codebook}; give a .th of "
            "the original package, or a folder with config.json and model.safetensors"
        )
    filters, channels, _ = tensors[first].shape
    known = CONFIG_24KHZ if channels == 1 else CONFIG_48KHZ
    entries, hidden = tensors[codebook].shape
    ratios = [
        tensors[f"decoder.layers.{layer}.conv.weight"].shape[-1] // 2
        for layer in range(3, 3 + 3 * len(known.upsampling_ratios), 3)
        if f"decoder.layers.{layer}.conv.weight" in tensors
    ]
    return known.model_copy(
        update={
            "num_filters": filters,
            "hidden_size": hidden,
            "codebook_size": entries,
            "upsampling_ratios": tuple(ratios),
        }
    )
