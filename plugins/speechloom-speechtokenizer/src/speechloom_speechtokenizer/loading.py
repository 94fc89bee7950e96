"""From a checkpoint to a network, which the components of one checkpoint share."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from speechloom.checkpoints import (
    find_checkpoint,
    fold_weight_norm,
    load_exactly,
    read_checkpoint,
    sha256_of,
    tensors_in,
)
from speechloom.published import buildable, check_promises
from speechloom.spec import CodecFacts, ComponentSpec, TokenizerFacts
from speechloom_speechtokenizer.config import CONFIG_FILE, SpeechTokenizerConfig, read_config
from speechloom_speechtokenizer.network import SpeechTokenizerNetwork

__all__ = ["Loaded", "load", "random_network"]

WEIGHTS_FILES = ("SpeechTokenizer.pt", "SpeechTokenizer_best_dev.pt", "ckpt.dev")
"""What the published weights are called, and what the original's trainer calls its best ones."""

_UNUSED = re.compile(
    # The projection to the semantic teacher, and what the codebooks are averaged with in training.
    r"transform\..*|quantizer\.vq\.layers\.\d+\._codebook\.(inited|cluster_size|embed_avg)"
)


@dataclass(eq=False)
class Loaded:
    """A network with the hashes of the files that it was read from.

    Attributes:
        network: in evaluation mode, without gradients.
        weights: sha256 by file name.
    """

    network: SpeechTokenizerNetwork
    weights: Mapping[str, str]


_loaded: weakref.WeakValueDictionary[tuple[Any, ...], Loaded] = weakref.WeakValueDictionary()
_lock = Lock()


def load(spec: ComponentSpec, device: str) -> Loaded:
    """The network of a spec's checkpoint, loaded once for each device while it is in use.

    Raises:
        WeightsError: files are missing, damaged, unsafe, of another model or of other rates.
    """
    options = spec.options
    folder = f"{options['folder']}/" if options.get("folder") else ""
    weights_names = (*(folder + name for name in WEIGHTS_FILES), *(WEIGHTS_FILES if folder else ()))
    config_names = (folder + CONFIG_FILE, *([CONFIG_FILE] if folder else ()))
    weights, config = find_checkpoint(
        options["checkpoint"],
        [weights_names, config_names],
        revision=options.get("revision"),
        sha256=options.get("sha256"),
    ).values()
    _check_facts(spec, read_config(config), config)
    key = (weights.resolve(), _version(weights), config.resolve(), _version(config), device)
    with _lock:
        found = _loaded.get(key)
        if found is None:
            found = _loaded[key] = _read(weights, config, device)
        return found


def _version(path: Path) -> tuple[int, int]:
    """What changes when a file is replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _read(weights: Path, config: Path, device: str) -> Loaded:
    sizes = read_config(config)
    # On meta nothing is drawn for weights that are about to be replaced.
    with torch.device("meta"), buildable(config):
        network = SpeechTokenizerNetwork(sizes)
    tensors = {k: v for k, v in _state_dict(weights).items() if not _UNUSED.fullmatch(k)}
    load_exactly(network, fold_weight_norm(tensors), weights)
    network.eval().requires_grad_(False).to(device)
    return Loaded(network, {path.name: sha256_of(path) for path in (weights, config)})


def _state_dict(path: Path) -> Mapping[str, torch.Tensor]:
    """The network's tensors, also out of a training state that the original's trainer saved."""
    content = read_checkpoint(path)
    if isinstance(content, Mapping) and "generator" in content:
        return tensors_in(content["generator"], path)
    return tensors_in(content, path)


def _check_facts(spec: ComponentSpec, config: SpeechTokenizerConfig, path: Path) -> None:
    """Refuse a checkpoint of other rates or codebooks than the spec announced."""
    facts = spec.facts
    assert isinstance(facts, (CodecFacts, TokenizerFacts)), spec.kind
    size = facts.codebook_size if isinstance(facts, CodecFacts) else facts.vocabulary_size
    claims = (
        ("sample rate", facts.sample_rate, config.sample_rate),
        ("frame rate", facts.frame_rate, config.frame_rate),
        ("ids per codebook", size, config.codebook_size),
    )
    check_promises(spec, path, claims, codebooks=config.n_q)


def random_network(spec: ComponentSpec, seed: int) -> SpeechTokenizerNetwork:
    """A tiny network with the rates and codebooks that a spec promises."""
    facts = spec.facts
    assert isinstance(facts, (CodecFacts, TokenizerFacts)), spec.kind
    config = SpeechTokenizerConfig.tiny(
        sample_rate=facts.sample_rate,
        strides=tuple(spec.options["strides"]),
        levels=facts.codebooks if isinstance(facts, CodecFacts) else 1,
        size=facts.codebook_size if isinstance(facts, CodecFacts) else facts.vocabulary_size,
        lstm_layers=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SpeechTokenizerNetwork(config).eval().requires_grad_(False)
        for level, codebook in enumerate(network.quantizer.codebooks):
            # About what latents of these sizes span, less from level to level.
            codebook.embed.normal_(std=0.1 * 0.7**level)
    return network
