"""Reading and writing the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from speechloom.checkpoints import find_checkpoint, load_exactly, read_tensors, sha256_of
from speechloom.errors import WeightsError
from speechloom.spec import ComponentSpec
from speechloom_speechsec.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    CheckpointConfig,
    read_config,
)
from speechloom_speechsec.convnext import build_seeded
from speechloom_speechsec.duration_model import DurationModel
from speechloom_speechsec.model import SpeechSEC

__all__ = ["Networks", "ReadCheckpoint", "read_checkpoint", "write_checkpoint"]


class Networks(nn.Module):
    """What a checkpoint holds: the generator, and the durations of phones where it takes phones.

    Args:
        config: sizes.
        seed: of the initial weights; None leaves the networks without memory.
    """

    def __init__(self, config: CheckpointConfig, *, seed: int | None = 0) -> None:
        super().__init__()
        self.generator = SpeechSEC(config.network, seed=seed)
        self.durations: DurationModel | None = None
        sizes = config.durations
        if sizes is not None and seed is None:
            with torch.device("meta"):
                self.durations = DurationModel(sizes)
        elif sizes is not None and seed is not None:
            self.durations = build_seeded(lambda: DurationModel(sizes), seed)


@dataclass(frozen=True)
class ReadCheckpoint:
    """A checkpoint as it was read.

    Attributes:
        config: its configuration.
        generator: the masked network.
        durations: the duration network, or None.
        weights: sha256 by file name.
    """

    config: CheckpointConfig
    generator: SpeechSEC
    durations: DurationModel | None
    weights: Mapping[str, str]


def read_checkpoint(spec: ComponentSpec) -> ReadCheckpoint:
    """The checkpoint that a spec's options name.

    Raises:
        WeightsError: it cannot be found, is damaged, or is not what the spec says.
    """
    options = spec.options
    config_path, weights_path = find_checkpoint(
        options["checkpoint"],
        [CONFIG_FILE, WEIGHTS_FILE],
        revision=options["revision"],
        sha256=options["sha256"],
    ).values()
    config = read_config(config_path)
    if config.facts != spec.facts:
        raise WeightsError(
            f"{config_path} says other facts than {spec.id}: {config.facts} instead of "
            f"{spec.facts}; make its spec with speechloom_speechsec.spec_for"
        )
    networks = Networks(config, seed=None)
    load_exactly(networks, read_tensors(weights_path), weights_path)
    hashes = {path.name: sha256_of(path) for path in (config_path, weights_path)}
    return ReadCheckpoint(config, networks.generator, networks.durations, hashes)


def write_checkpoint(
    folder: Path, config: CheckpointConfig, tensors: Mapping[str, Tensor], *, half: bool = False
) -> None:
    """Write ``config.json`` and ``model.safetensors``.

    Args:
        folder: exists.
        config: of the generator.
        tensors: the state dict of `Networks`.
        half: store float16, half the size; it is read as float32 again.
    """
    config.write(folder)
    dtype = torch.float16 if half else torch.float32
    small = {name: value.detach().to(dtype).contiguous() for name, value in tensors.items()}
    save_file(small, folder / WEIGHTS_FILE)
