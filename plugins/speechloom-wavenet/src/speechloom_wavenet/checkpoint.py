"""Checkpoints: the project's own, and those of r9y9/wavenet_vocoder.

Own: ``wavenet.safetensors`` beside ``wavenet.json``, a `WaveNetConfig`. r9y9's: a ``.pth`` beside
the ``hparams.json`` of its training; see `speechloom_wavenet.r9y9`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechloom.checkpoints import find_checkpoint, load_exactly, read_checkpoint, read_tensors
from speechloom.errors import WeightsError
from speechloom_wavenet import r9y9
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.network import WaveNet

__all__ = ["load", "read_config", "save"]

CONFIG, WEIGHTS = "wavenet.json", "wavenet.safetensors"
# Averaged weights sound better, so they go first.
FILES = (
    (WEIGHTS, "checkpoint_latest_ema.pth", "checkpoint_latest.pth"),
    (CONFIG, "hparams.json"),
)


def save(network: WaveNet, folder: Path) -> None:
    """Write a network in the project's own form."""
    from safetensors.torch import save_file

    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CONFIG).write_text(network.config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_config(
    location: str | os.PathLike[str],
    *,
    mel: str | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> WaveNetConfig:
    """The configuration of a checkpoint; arguments as for `load`.

    Raises:
        WeightsError: it cannot be found, or is not that of a WaveNet.
    """
    _, config = find_checkpoint(location, FILES, revision=revision, sha256=sha256).values()
    return _config_of(config, mel)


def load(
    location: str | os.PathLike[str],
    *,
    mel: str | None = None,
    statistics: str | None = None,
    speaker: int | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> tuple[WaveNet, Path]:
    """A network with its weights.

    Args:
        location: folder, weight file or hub id, as `find_checkpoint` takes it.
        mel: kind of the mel spectrogram, where r9y9's settings do not tell.
        statistics: for r9y9's networks on standardised mels, an ``.npz`` with ``mean`` and
            ``scale`` of each band, or ``none`` where nothing was standardised.
        speaker: number of the speaker, for r9y9's networks of several.
        revision: of a hub id.
        sha256: promised hash by file name.

    Returns:
        The network, on the CPU, and its weight file.

    Raises:
        WeightsError: a file is missing, damaged, or of another model.
    """
    path, settings = find_checkpoint(location, FILES, revision=revision, sha256=sha256).values()
    config = _config_of(settings, mel)
    with torch.device("meta"):
        network = WaveNet(config)
    if settings.name == CONFIG:
        tensors = read_tensors(path)
    else:
        content = read_checkpoint(path)
        tensors = r9y9.tensors(content, config, path, speaker=speaker)
        tensors |= _statistics(statistics, config, path)
    load_exactly(network, tensors, path)
    return network, path


def _config_of(path: Path, mel: str | None) -> WaveNetConfig:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if path.name == CONFIG:
            return WaveNetConfig.model_validate(content)
        return r9y9.config(content, path, mel=mel)
    except WeightsError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} does not describe a WaveNet ({type(error).__name__}: {error}); give the "
            f"{path.name} that was written when it was trained"
        ) from error


def _statistics(source: str | None, config: WaveNetConfig, path: Path) -> dict[str, Tensor]:
    import numpy as np

    bands = config.mel_spec.bands
    if source == "none" or (source is None and config.mel_spec.span is not None):
        return {"mean": torch.zeros(bands), "deviation": torch.ones(bands)}
    if source is None:
        raise WeightsError(
            f"{path} was trained on standardised mels; give statistics=FILE.npz with the mean_ and "
            "scale_ of its scaler as `mean` and `scale`, or statistics='none' if it was not"
        )
    try:
        with np.load(source, allow_pickle=False) as file:
            values = {
                "mean": torch.from_numpy(file["mean"]).float(),
                "deviation": torch.from_numpy(file["scale"]).float(),
            }
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{source} cannot be read as statistics ({error}); write them by "
            "numpy.savez(FILE, mean=scaler.mean_, scale=scaler.scale_)"
        ) from error
    return values
