"""From a checkpoint, or from a seed, to a `SpeechEncoder`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from speechloom.checkpoints import (
    find_checkpoint,
    fold_weight_norm,
    lasting_location,
    load_exactly,
    local_path,
    read_tensors,
    sha256_of,
)
from speechloom.errors import UsageError, WeightsError
from speechloom.published import buildable, read_json
from speechloom_hubert._spec import CONTEXT_SECONDS, WINDOW_SECONDS
from speechloom_hubert.architecture import FAMILIES, Architecture
from speechloom_hubert.encoder import SAMPLE_RATE, SpeechEncoder

__all__ = ["load_encoder", "random_encoder"]

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
PREPROCESSOR = "preprocessor_config.json"
PARTS = ("feature_extractor.", "feature_projection.", "encoder.")
"""What hidden states need; heads and masks of training are left in the file."""


def load_encoder(
    checkpoint: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    layers: int | None = None,
    name: str | None = None,
    normalize: bool | None = None,
    window_seconds: float | None = WINDOW_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
    device: str = "cpu",
) -> SpeechEncoder:
    """Load a HuBERT or WavLM checkpoint in the layout of ``transformers``.

    Args:
        checkpoint: hub id, local folder with ``config.json`` and weights, or the weights file
            itself with the rest beside it.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name.
        layers: load only the first so many; None loads all.
        name: of the features; the last part of `checkpoint` without.
        normalize: see `SpeechEncoder`; None does what ``preprocessor_config.json`` says, and in
            a folder without that file what the published models do: those with layer-normed
            convolutions normalise.
        window_seconds: see `SpeechEncoder`.
        context_seconds: see `SpeechEncoder`.
        device: where it runs.

    Raises:
        WeightsError: files are missing, damaged, of another family, rate or hash.
        UsageError: it has no such layer, or the windows make no sense.
    """
    find = partial(find_checkpoint, revision=revision, sha256=sha256)
    weights_path, config_path = find(checkpoint, [WEIGHT_FILES, "config.json"]).values()
    config = read_json(config_path)
    architecture = Architecture.of(config, config_path)
    kept = architecture.depth if layers is None else layers
    if not 0 <= kept <= architecture.depth:
        raise UsageError(
            f"{checkpoint} has hidden layers 0 to {architecture.depth}, but layer {kept} was asked "
            "for"
        )
    with buildable(config_path):
        network = _network(config, kept)
    tensors = _tensors(read_tensors(weights_path), architecture.family, kept)
    load_exactly(network, tensors, weights_path)
    says = _preprocessor(checkpoint, weights_path, find) if normalize is None else {}
    if says.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise WeightsError(
            f"{checkpoint} works at {says['sampling_rate']} Hz, but speechloom-hubert reads models "
            f"of {SAMPLE_RATE} Hz; give one of that rate"
        )
    if normalize is None:
        normalize = bool(says.get("do_normalize", architecture.layer_normed_convolutions))
    return SpeechEncoder(
        network,
        architecture,
        name=name or Path(lasting_location(checkpoint)).name,
        normalize=normalize,
        window_seconds=window_seconds,
        context_seconds=context_seconds,
        weights={weights_path.name: sha256_of(weights_path)},
        device=device,
    )


def random_encoder(
    family: str = "hubert",
    *,
    hop: int = 320,
    layers: int = 2,
    late_norm: bool = False,
    seed: int = 0,
    window_seconds: float | None = WINDOW_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
) -> SpeechEncoder:
    """A tiny encoder with random weights, for tests: no files, no network.

    Args:
        family: ``hubert`` or ``wavlm``.
        hop: samples per frame.
        layers: transformer layers.
        late_norm: built like the large models (layer-normed convolutions, normalised input)
            instead of the base ones.
        seed: of the weights; the global random state is left alone.
        window_seconds: see `SpeechEncoder`.
        context_seconds: see `SpeechEncoder`.

    Raises:
        UsageError: there is no such family.
    """
    if family not in FAMILIES:
        raise UsageError(f"the family must be one of {', '.join(FAMILIES)}, but is {family!r}")
    config = _tiny(family, hop, layers, late_norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(config, layers, device="cpu")
    return SpeechEncoder(
        network,
        Architecture.of(config, "the tiny configuration"),
        name=f"random-{family}",
        normalize=late_norm,
        window_seconds=window_seconds,
        context_seconds=context_seconds,
    )


def _tiny(family: str, hop: int, layers: int, late_norm: bool) -> dict[str, Any]:
    """A configuration with the frame layout of the published models; 320 gives theirs exactly."""
    strides = _prime_factors(hop)
    kernels = [2 * strides[0], *(s + 1 for s in strides[1:-2]), *strides[1:][-2:]]
    return {
        "model_type": family,
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": [8] * len(strides),
        "conv_stride": strides,
        "conv_kernel": kernels,
        "num_feat_extract_layers": len(strides),
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": "layer" if late_norm else "group",
        "do_stable_layer_norm": late_norm,
        "conv_bias": late_norm,
    }


def _prime_factors(number: int) -> list[int]:
    """Prime factors, the largest first."""
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors[::-1]


def _network(config: Mapping[str, Any], layers: int, device: str = "meta") -> nn.Module:
    """The network without what only training needs; on ``meta`` it has no values yet."""
    from torch.nn.utils import parametrize
    from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel

    wanted = {
        **config,
        "num_hidden_layers": layers,
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        "add_adapter": False,
    }
    wanted.pop("gradient_checkpointing", None)
    network: nn.Module
    with torch.device(device):
        if config["model_type"] == "hubert":
            network = HubertModel(HubertConfig(**wanted))
        else:
            network = WavLMModel(WavLMConfig(**wanted))
    positions = network.get_submodule("encoder.pos_conv_embed.conv")
    if parametrize.is_parametrized(positions):
        parametrize.remove_parametrizations(positions, "weight", leave_parametrized=True)
    return network


def _tensors(tensors: Mapping[str, Tensor], family: str, layers: int) -> dict[str, Tensor]:
    """The tensors that a network of so many layers has, by its names."""
    kept = {}
    for key, value in tensors.items():
        name = key.removeprefix(f"{family}.")
        layer = re.match(r"encoder\.layers\.(\d+)\.", name)
        if name.startswith(PARTS) and (layer is None or int(layer[1]) < layers):
            kept[name] = value
    return fold_weight_norm(kept)


def _preprocessor(
    checkpoint: str | os.PathLike[str], weights: Path, find: Callable[..., Mapping[str, Path]]
) -> Mapping[str, Any]:
    """What ``preprocessor_config.json`` says; nothing where local weights lie without it."""
    is_local = local_path(checkpoint) is not None
    if is_local and not (weights.parent / PREPROCESSOR).is_file():
        return {}
    found = find(weights.parent if is_local else checkpoint, [PREPROCESSOR])
    return read_json(found[PREPROCESSOR])
