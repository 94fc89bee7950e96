"""DAC checkpoints of both layouts, as one: sizes, and tensors by the names of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.checkpoints import fold_weight_norm, read_checkpoint, read_tensors, tensors_in
from speechloom.errors import WeightsError
from speechloom.published import PublicCheckpoint
from speechloom_dac.config import NetworkConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["WEIGHT_NAMES", "read_config", "read_weights"]

WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin", "weights.pth")
"""Files of weights in a folder, the first that is there."""


def read_config(checkpoint: PublicCheckpoint) -> NetworkConfig:
    """The sizes of a checkpoint.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    config = checkpoint.config()
    if config is None:
        path = checkpoint.weights()
        return _original_config(_original_content(path), path)
    return NetworkConfig.from_transformers(config, checkpoint.location)


def read_weights(checkpoint: PublicCheckpoint) -> tuple[NetworkConfig, dict[str, Tensor], Path]:
    """A whole checkpoint.

    Returns:
        The sizes, the tensors by the names of transformers' ``DacModel`` with weight
        normalisation folded in, and the file that they come from.

    Raises:
        WeightsError: it cannot be found or read, or is of another model.
    """
    path, config = checkpoint.weights(), checkpoint.config()
    if config is not None:
        sizes = NetworkConfig.from_transformers(config, checkpoint.location)
        return sizes, fold_weight_norm(read_tensors(path)), path
    content = _original_content(path)
    state = tensors_in(content["state_dict"], path)
    tensors = {_renamed(name): value for name, value in state.items()}
    return _original_config(content, path), fold_weight_norm(tensors), path


def _original_content(path: Path) -> Mapping[str, Any]:
    content = read_checkpoint(path)
    if not isinstance(content, Mapping) or not {"state_dict", "metadata"} <= set(content):
        raise WeightsError(
            f"{path} is no DAC checkpoint: the original weights.pth holds state_dict and metadata; "
            "give that file, or a folder with config.json and model.safetensors"
        )
    return content


def _original_config(content: Mapping[str, Any], path: Path) -> NetworkConfig:
    metadata = content["metadata"]
    arguments = metadata.get("kwargs") if isinstance(metadata, Mapping) else None
    if not isinstance(arguments, Mapping):
        raise WeightsError(
            f"{path} does not say how its network was made: its metadata hold no kwargs; give the "
            "weights.pth of the original package"
        )
    return NetworkConfig.from_original(arguments, path)


# Names ------------------------------------------------------------------------------------
#
# The original nests nn.Sequential; transformers names the layers. With n for the number of a block
# among the first and last layers of its half:
#
#   encoder.block.0                conv1            decoder.model.0             conv1
#   encoder.block.n.block.0..2     res_unit1..3     decoder.model.n.block.0, 1  snake1, conv_t1
#   encoder.block.n.block.3, 4     snake1, conv1    decoder.model.n.block.2..4  res_unit1..3
#   encoder.block.-2, -1           snake1, conv2    decoder.model.-2, -1        snake1, conv2
#   (unit).block.0..3              snake1, conv1, snake2, conv2

_UNIT = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
_ENCODER_BLOCK = {
    "0": "res_unit1", "1": "res_unit2", "2": "res_unit3", "3": "snake1", "4": "conv1",
}  # fmt: skip
_DECODER_BLOCK = {
    "0": "snake1", "1": "conv_t1", "2": "res_unit1", "3": "res_unit2", "4": "res_unit3",
}  # fmt: skip
_IN_BLOCK = re.compile(
    r"(?P<half>encoder\.block|decoder\.model)\.(?P<n>\d+)\.block\.(?P<layer>\d)"
    r"(?:\.block\.(?P<unit>\d))?\.(?P<rest>\w+)"
)
_AROUND = re.compile(r"(?P<half>encoder\.block|decoder\.model)\.(?P<n>\d+)\.(?P<rest>\w+)")


def _renamed(name: str) -> str:
    """A name of the original as transformers has it; names of no DAC network are kept."""
    inside = _IN_BLOCK.fullmatch(name)
    if inside is not None:
        half = inside["half"].partition(".")[0]
        layers = _ENCODER_BLOCK if half == "encoder" else _DECODER_BLOCK
        path = [half, "block", str(int(inside["n"]) - 1), layers.get(inside["layer"], "")]
        path += [_UNIT[inside["unit"]]] if inside["unit"] in _UNIT else []
        return ".".join([*path, inside["rest"]])
    around = _AROUND.fullmatch(name)
    if around is not None:
        half = around["half"].partition(".")[0]
        if around["rest"] == "alpha":
            return f"{half}.snake1.alpha"
        return f"{half}.{'conv1' if around['n'] == '0' else 'conv2'}.{around['rest']}"
    return name
