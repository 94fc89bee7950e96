"""VITS checkpoints of three layouts, as one: sizes, and tensors by the names of transformers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.checkpoints import (
    find_checkpoint,
    fold_weight_norm,
    read_checkpoint,
    sha256_of,
)
from speechloom.errors import WeightsError
from speechloom.spec import ComponentSpec
from speechloom_vits.checkpoint import FORMAT, OwnConfig
from speechloom_vits.config import VitsConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ReadWeights", "read_config_file", "read_weights", "renamed"]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
CONFIG = "config.json"


@dataclass(frozen=True)
class ReadWeights:
    """A checkpoint as it was read.

    Attributes:
        config: sizes.
        tensors: by the names of transformers' ``VitsModel``, weight normalisation folded in.
        source: the weight file.
        hashes: sha256 by file name.
    """

    config: VitsConfig
    tensors: Mapping[str, Tensor]
    source: Path
    hashes: Mapping[str, str]


def read_weights(spec: ComponentSpec) -> ReadWeights:
    """The checkpoint that a spec's options name.

    Raises:
        WeightsError: it cannot be found or read, or is not what the spec says.
    """
    options = spec.options
    where = {"revision": options["revision"], "sha256": options["sha256"]}
    location = Path(options["checkpoint"]).expanduser()
    if location.is_file() and location.suffix == ".pth":
        config, tensors = read_original(location, options["network"])
        source = location
    else:
        config_path, source = find_checkpoint(
            options["checkpoint"], [CONFIG, WEIGHTS], **where
        ).values()
        config = read_config_file(config_path)
        tensors = fold_weight_norm(read_checkpoint(source))
    promised = VitsConfig.model_validate(options["network"])
    if _shape(config) != _shape(promised):
        raise WeightsError(
            f"{source} is of another network than {spec.id} was made for; make its specs again "
            "with speechloom_vits.specs_for"
        )
    return ReadWeights(promised, tensors, source, {source.name: sha256_of(source)})


def _shape(config: VitsConfig) -> Mapping[str, Any]:
    """What decides the shapes of weights; scales are the spec's to choose."""
    return config.model_dump(exclude={"noise_scale", "duration_noise_scale", "length_scale"})


def read_config_file(path: Path) -> VitsConfig:
    """The sizes in a ``config.json``, of transformers or of this project.

    Raises:
        WeightsError: it is of another model, or no JSON.
    """
    content = read_json(path)
    if content.get("format") == FORMAT:
        return OwnConfig.read(path).network
    return VitsConfig.from_transformers(content, path)


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        WeightsError: it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON ({error}); get the checkpoint again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path} is not the configuration of a model; get it again")
    return content


# The original's ---------------------------------------------------------------------------


def read_original(
    path: str | os.PathLike[str], network: Mapping[str, Any] | None = None
) -> tuple[VitsConfig, dict[str, Tensor]]:
    """A ``.pth`` of the original code, with its ``config.json`` beside it.

    Args:
        path: the weights.
        network: sizes, where they are known already; else the configuration is read.

    Raises:
        WeightsError: a file is missing or of another model.
    """
    content = read_checkpoint(Path(path))
    state = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or "enc_p.emb.weight" not in state:
        raise WeightsError(
            f"{path} is no checkpoint of the original VITS: it has no model with enc_p.emb.weight; "
            "give a G_*.pth, or a folder in the layout of transformers"
        )
    tensors = fold_weight_norm(state)
    if network is not None:
        config = VitsConfig.model_validate(network)
    else:
        found = find_checkpoint(Path(path).parent, [CONFIG])[CONFIG]
        symbols = len(tensors["enc_p.emb.weight"])
        config = VitsConfig.from_original(read_json(found), symbols, found)
    names = {name: renamed(name, stochastic=config.stochastic) for name in tensors}
    return config, {new: _linear(new, tensors[name]) for name, new in names.items()}


_SIMPLE = {
    "enc_p.emb.": "text_encoder.embed_tokens.",
    "enc_p.proj.": "text_encoder.project.",
    "enc_q.pre.": "posterior_encoder.conv_pre.",
    "enc_q.proj.": "posterior_encoder.conv_proj.",
    "enc_q.enc.": "posterior_encoder.wavenet.",
    "dec.ups.": "decoder.upsampler.",
    "dec.": "decoder.",
    "emb_g.": "embed_speaker.",
}
_ENCODER = {
    "attn_layers": {
        "conv_q": "attention.q_proj",
        "conv_k": "attention.k_proj",
        "conv_v": "attention.v_proj",
        "conv_o": "attention.out_proj",
        "emb_rel_k": "attention.emb_rel_k",
        "emb_rel_v": "attention.emb_rel_v",
    },
    "ffn_layers": {"conv_1": "feed_forward.conv_1", "conv_2": "feed_forward.conv_2"},
    "norm_layers_1": {"gamma": "layer_norm.weight", "beta": "layer_norm.bias"},
    "norm_layers_2": {"gamma": "final_layer_norm.weight", "beta": "final_layer_norm.bias"},
}
_IN_ENCODER = re.compile(r"enc_p\.encoder\.(\w+)\.(\d+)\.(\w+)(.*)")
_IN_FLOW = re.compile(r"flow\.flows\.(\d+)\.(pre|enc|post)\.(.*)")
_FLOW = {"pre": "conv_pre", "enc": "wavenet", "post": "conv_post"}
_IN_DURATION_FLOW = re.compile(r"dp\.(post_flows|flows)\.(\d+)\.(\w+)\.?(.*)")
_SPLINE = {"pre": "conv_pre", "convs": "conv_dds", "proj": "conv_proj"}
_AFFINE = {"m": "translate", "logs": "log_scale"}
_DURATION = {
    "dp.pre.": "duration_predictor.conv_pre.",
    "dp.proj.": "duration_predictor.conv_proj.",
    "dp.convs.": "duration_predictor.conv_dds.",
    "dp.post_pre.": "duration_predictor.post_conv_pre.",
    "dp.post_proj.": "duration_predictor.post_conv_proj.",
    "dp.post_convs.": "duration_predictor.post_conv_dds.",
    "dp.": "duration_predictor.",
}


def renamed(name: str, *, stochastic: bool = True) -> str:
    """A name of the original as transformers has it; names of no VITS network are kept.

    Args:
        name: without weight normalisation.
        stochastic: of the duration predictor; the deterministic one calls its last layer ``proj``
            in both.
    """
    if match := _IN_ENCODER.fullmatch(name):
        group, layer, part, rest = match.groups()
        return f"text_encoder.encoder.layers.{layer}.{_ENCODER.get(group, {}).get(part, '')}{rest}"
    if match := _IN_FLOW.fullmatch(name):
        # Every second one is a flip without weights.
        return f"flow.flows.{int(match[1]) // 2}.{_FLOW[match[2]]}.{match[3]}"
    if match := _IN_DURATION_FLOW.fullmatch(name):
        return _renamed_duration_flow(*match.groups())
    if not stochastic and name.startswith("dp.proj."):
        return f"duration_predictor.{name.removeprefix('dp.')}"
    for old, new in {**_SIMPLE, **_DURATION}.items():
        if name.startswith(old):
            return _renamed_separable(new + name.removeprefix(old)).replace(".convs.", ".convs1.")
    return name


def _renamed_duration_flow(flows: str, number: str, part: str, rest: str) -> str:
    """Flow 0 is affine; splines and flips take turns behind it."""
    place = f"duration_predictor.{flows}.{(int(number) + 1) // 2}"
    if part in _AFFINE:
        return f"{place}.{_AFFINE[part]}"
    return _renamed_separable(f"{place}.{_SPLINE.get(part, part)}.{rest}")


def _renamed_separable(name: str) -> str:
    name = name.replace(".convs_sep.", ".convs_dilated.").replace(
        ".convs_1x1.", ".convs_pointwise."
    )
    if ".norm" in name:
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    return name


def _linear(name: str, value: Tensor) -> Tensor:
    """The original's attention projects with convolutions of one sample."""
    return value[..., 0] if re.search(r"\.(q|k|v|out)_proj\.weight$", name) else value
