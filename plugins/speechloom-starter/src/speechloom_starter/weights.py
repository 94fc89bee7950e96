"""The shipped weights: float16 safetensors, each with its network's sizes as JSON metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from speechloom.errors import WeightsError
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.codec_model import CodecConfig, CodecModel
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.duration_model import DurationConfig, DurationModel
from speechloom_starter.voice_model import VoiceConfig, VoiceEncoder

SHIPPED = Path(__file__).parent / "weights"
MANIFEST = "MANIFEST.json"
NAMES = ("codec", "content", "units", "voice", "durations", "t2u", "u2c", "voices")

Network = TypeVar("Network", bound=nn.Module)
Config = TypeVar("Config", bound=BaseModel)


def read_tensors(name: str, folder: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """Tensors (floating ones as float32) and the JSON configuration of ``<name>.safetensors``.

    Raises:
        WeightsError: the file is missing or not a safetensors file.
    """
    path = (folder or SHIPPED) / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"the starter's weights file {path} is missing; reinstall speechloom-starter, or make "
            "weights with `python -m speechloom_starter.recipe`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); reinstall speechloom-starter"
        ) from error
    wide = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    return wide, metadata.get("config", "{}")


def write_tensors(
    name: str, tensors: dict[str, Tensor], folder: Path, config: BaseModel | None = None
) -> None:
    """Write ``<name>.safetensors``: floating tensors as float16, the configuration as metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    small = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in tensors.items()
    }
    metadata = {"config": config.model_dump_json() if config else "{}"}
    (folder / f"{name}.safetensors").write_bytes(save(small, metadata))


def write_manifest(folder: Path) -> None:
    """Write ``MANIFEST.json``: size and SHA-256 of every weights file of the folder."""
    entries = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.glob("*.safetensors"))
    }
    (folder / MANIFEST).write_text(json.dumps(entries, indent=2) + "\n")


def manifest(folder: Path | None = None) -> dict[str, str]:
    """The promised SHA-256 of every weights file, by file name.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    path = (folder or SHIPPED) / MANIFEST
    try:
        return {name: entry["sha256"] for name, entry in json.loads(path.read_text()).items()}
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path} cannot be read ({error}); reinstall speechloom-starter"
        ) from error


def check_manifest(folder: Path | None = None) -> None:
    """Compare every weights file with the manifest.

    Raises:
        WeightsError: a file is missing or differs.
    """
    base = folder or SHIPPED
    for name, entry in json.loads((base / MANIFEST).read_text()).items():
        path = base / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
        if found != entry["sha256"]:
            raise WeightsError(
                f"{path} should have SHA-256 {entry['sha256']} but has {found}; reinstall "
                "speechloom-starter"
            )


def _load(
    name: str,
    folder: Path | None,
    config_type: type[Config],
    make: Callable[[Config], Network],
) -> Network:
    tensors, config = read_tensors(name, folder)
    try:
        # Nothing is drawn for weights that are about to be replaced.
        with torch.device("meta"):
            network = make(config_type.model_validate_json(config))
        network.load_state_dict(tensors, assign=True)
    except (ValidationError, RuntimeError) as error:
        raise WeightsError(
            f"{name}.safetensors does not hold the network that this version expects ({error}); "
            "use weights and code of the same version"
        ) from error
    return network.eval().requires_grad_(False)


def load_codec(folder: Path | None = None) -> CodecModel:
    """The codec, in float32, for inference."""
    return _load("codec", folder, CodecConfig, CodecModel)


def load_content(folder: Path | None = None) -> ContentModel:
    """The content network, in float32, for inference."""
    return _load("content", folder, ContentConfig, ContentModel)


def load_units_codebook(folder: Path | None = None) -> Tensor:
    """The content units: float32 [512, 105]."""
    return read_tensors("units", folder)[0]["codebook"]


def load_voice_encoder(folder: Path | None = None) -> VoiceEncoder:
    """The voice encoder, in float32, for inference."""
    return _load("voice", folder, VoiceConfig, VoiceEncoder)


def load_durations(folder: Path | None = None) -> DurationModel:
    """The duration network, in float32, for inference."""
    return _load("durations", folder, DurationConfig, DurationModel)


def load_t2u(folder: Path | None = None) -> SpeechSEC:
    """Text to units: content ids ``phone * 3 + third``, one level of 512 units."""
    return _load_generator("t2u", folder)


def load_u2c(folder: Path | None = None) -> SpeechSEC:
    """Units to codes: 512 unit ids and a voice vector, eight levels of 1024 codes."""
    return _load_generator("u2c", folder)


def _load_generator(name: str, folder: Path | None) -> SpeechSEC:
    tensors, config = read_tensors(name, folder)
    try:
        network = SpeechSEC(SpeechSECConfig.model_validate_json(config))
        network.load_state_dict(tensors)
    except (ValidationError, RuntimeError) as error:
        raise WeightsError(
            f"{name}.safetensors does not hold the network that this version expects ({error}); "
            "use weights and code of the same version"
        ) from error
    return network.eval().requires_grad_(False)


def named_voices(folder: Path | None = None) -> dict[str, Tensor]:
    """The built-in voices: name to unit vector float32 [128]."""
    tensors, _ = read_tensors("voices", folder)
    return {name: torch.nn.functional.normalize(v, dim=0) for name, v in tensors.items()}
