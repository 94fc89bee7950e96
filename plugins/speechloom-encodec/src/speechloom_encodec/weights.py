"""EnCodec checkpoints of both layouts, as one: sizes, and tensors by the names of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from speechloom.checkpoints import fold_weight_norm, read_tensors
from speechloom.errors import WeightsError
from speechloom.published import PublicCheckpoint
from speechloom_encodec._spec import CONFIG_24KHZ, CONFIG_48KHZ
from speechloom_encodec.config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WEIGHT_NAMES", "read_config", "read_weights"]

WEIGHT_NAMES = (
    "model.safetensors",
    "pytorch_model.bin",
    "encodec_24khz-d7cc33bc.th",
    "encodec_48khz-7e698e3e.th",
)
"""Files of weights in a folder, the first that is there."""


def read_config(checkpoint: PublicCheckpoint) -> NetworkConfig:
    """The sizes of a checkpoint.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    config = checkpoint.config()
    if config is None:
        path = checkpoint.weights()
        return _original_config(_original_tensors(path), path)
    return NetworkConfig.from_transformers(config, checkpoint.location)


def read_weights(checkpoint: PublicCheckpoint) -> tuple[NetworkConfig, dict[str, Tensor], Path]:
    """A whole checkpoint.

    Returns:
        The sizes, the tensors by the names of transformers' ``EncodecModel`` with weight
        normalisation folded in, and the file that they come from.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    path, config = checkpoint.weights(), checkpoint.config()
    if config is not None:
        sizes = NetworkConfig.from_transformers(config, checkpoint.location)
        return sizes, fold_weight_norm(read_tensors(path)), path
    tensors = _original_tensors(path)
    return _original_config(tensors, path), tensors, path


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
    dimensions = [tensors[name].ndim for name in (first, codebook) if name in tensors]
    if dimensions != [3, 2]:
        raise WeightsError(
            f"{path} is no EnCodec checkpoint: it has no {first} or no {codebook} of the right "
            "shape; give a .th of the original package, or a folder with config.json and "
            "model.safetensors"
        )
    filters, channels, _ = tensors[first].shape
    known = CONFIG_24KHZ if channels == 1 else CONFIG_48KHZ
    entries, hidden = tensors[codebook].shape
    upsampling = [
        tensors.get(f"decoder.layers.{layer}.conv.weight")
        for layer in range(3, 3 + 3 * len(known.upsampling_ratios), 3)
    ]
    return known.of_sizes(
        path,
        num_filters=filters,
        hidden_size=hidden,
        codebook_size=entries,
        upsampling_ratios=[
            one.shape[-1] // 2 for one in upsampling if one is not None and one.ndim
        ],
    )
