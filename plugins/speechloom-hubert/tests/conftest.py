"""Checkpoints and k-means for the tests: tiny, random, written where a test wants them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if importlib.util.find_spec("speechloom_hubert") is None:
    # A session that installs only the default plugins collects this folder all the same.
    collect_ignore_glob = ["*"]

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
"""A network of the published frame layout: seven convolutions, 400 samples, a hop of 320."""

LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
"""What the large models have instead of the base ones."""

MakeOriginal = Callable[..., torch.nn.Module]
MakeCheckpoint = Callable[..., Path]
MakeKMeans = Callable[..., Path]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may ask the network; where a file of the hub is missing, that is the answer."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # for the processes that a test starts


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One core is enough, and tests run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def original() -> MakeOriginal:
    """Make a model of ``transformers`` with random weights: family, and fields of its config."""
    from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel

    def make(family: str = "hubert", **fields: Any) -> torch.nn.Module:
        config = {**TINY, **fields}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            if family == "hubert":
                model: Any = HubertModel(HubertConfig(**config))
            else:
                model = WavLMModel(WavLMConfig(**config))
            for parameter in model.parameters():
                # Far from the initial values, so that a parameter that is not read shows.
                parameter.data += 0.05 * torch.randn_like(parameter)
        return model.eval()

    return make


@pytest.fixture
def checkpoint(tmp_path: Path, original: MakeOriginal) -> MakeCheckpoint:
    """Write such a model as a folder: as safetensors or, as older ones are, as a pickle."""
    from safetensors.torch import save_file

    def make(
        family: str = "hubert",
        *,
        model: torch.nn.Module | None = None,
        prefix: str = "",
        pickled: bool = False,
        preprocessor: dict[str, Any] | None = None,
        name: str = "encoder",
        **fields: Any,
    ) -> Path:
        network: Any = model or original(family, **fields)
        folder = tmp_path / name
        folder.mkdir()
        config = {**network.config.to_dict(), "model_type": family}
        (folder / "config.json").write_text(json.dumps(config))
        state = {prefix + key: value.clone() for key, value in network.state_dict().items()}
        if pickled:
            torch.save(
                {_old_name(key): value for key, value in state.items()},
                folder / "pytorch_model.bin",
            )
        else:
            save_file(state, folder / "model.safetensors")
        if preprocessor is not None:
            (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return folder

    return make


def _old_name(key: str) -> str:
    """Weight normalisation as torch before 2.0 named it."""
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        key = key.replace(f"parametrizations.weight.{new}", old)
    return key


@pytest.fixture
def kmeans(tmp_path: Path) -> MakeKMeans:
    """Write k-means: clusters, width and what it says of itself."""
    from speechloom_hubert.kmeans import KMeans, write_kmeans

    def make(clusters: int = 12, width: int = 16, *, name: str = "km", **facts: Any) -> Path:
        path = tmp_path / f"{name}.safetensors"
        centroids = np.random.default_rng(clusters).standard_normal((clusters, width))
        write_kmeans(path, KMeans(centroids.astype(np.float32), **facts))
        return path

    return make
