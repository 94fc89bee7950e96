"""Checkpoints that this project writes: ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from speechloom.checkpoints import fold_weight_norm
from speechloom.errors import WeightsError
from speechloom_vits.config import VitsConfig

__all__ = ["FORMAT", "OwnConfig", "write_checkpoint"]

FORMAT = "speechloom-vits-1"
"""Says in the metadata of a file whose layout it has."""
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class OwnConfig(BaseModel):
    """The content of ``config.json``.

    Attributes:
        format: `FORMAT`.
        network: sizes.
        phones: in the order of their ids.
        pause: which of them is silence.
        alphabet: name of the phone set.
        languages: BCP 47 codes.
        speakers: names of the voices; empty where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    network: VitsConfig
    phones: tuple[str, ...]
    pause: str
    alphabet: str
    languages: tuple[str, ...]
    speakers: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> OwnConfig:
        """Read it.

        Raises:
            WeightsError: it is not such a file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WeightsError(
                f"{path} is no configuration of speechloom-vits: {error.errors()[0]['msg']}; "
                "export the run again"
            ) from error


def write_checkpoint(
    folder: Path,
    config: VitsConfig,
    tensors: Mapping[str, Tensor],
    *,
    phones: Sequence[str],
    pause: str,
    alphabet: str,
    languages: Sequence[str],
    speakers: Sequence[str] = (),
) -> None:
    """Write a trained network, weight normalisation folded in.

    Args:
        folder: exists.
        config: sizes.
        tensors: the state dict, normalised or not.
        phones: in the order of their ids.
        pause: which of them is silence.
        alphabet: name of the phone set.
        languages: BCP 47 codes.
        speakers: names of the voices; empty where there is one.
    """
    content = OwnConfig(
        network=config,
        phones=tuple(phones),
        pause=pause,
        alphabet=alphabet,
        languages=tuple(languages),
        speakers=tuple(speakers),
    )
    (folder / CONFIG_FILE).write_text(content.model_dump_json(indent=2), encoding="utf-8")
    folded = fold_weight_norm(tensors)
    plain = {name: value.detach().to(torch.float32).contiguous() for name, value in folded.items()}
    save_file(plain, folder / WEIGHTS_FILE)
