"""Tiny networks with random weights, for tests: the same rates, symbols and speakers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from speechloom.spec import ComponentSpec
from speechloom_vits.config import VitsConfig
from speechloom_vits.network import Vits

__all__ = ["build_drawn", "build_tiny", "tiny_config"]

_N = TypeVar("_N", bound=nn.Module)


def tiny_config(config: VitsConfig) -> VitsConfig:
    """The smallest network of the same interface; the latent is part of it."""
    rates = config.decoder.rates
    decoder = config.decoder.model_copy(
        update={
            "channels": 2 ** (len(rates) + 1),
            "block_kernels": (3,),
            "block_dilations": ((1, 3),),
        }
    )
    return config.model_copy(
        update={
            "hidden": 8,
            "text_layers": 1,
            "feed_forward": 8,
            "posterior_layers": 1,
            "flows": 2,
            "flow_layers": 1,
            "duration_flows": 2,
            "duration_layers": 1,
            "duration_filter": 8,
            "decoder": decoder,
        }
    )


def build_tiny(spec: ComponentSpec, seed: int, *, posterior: bool) -> Vits:
    """The tiny network of a spec's options, with drawn weights."""
    config = tiny_config(VitsConfig.model_validate(spec.options["network"]))
    return build_drawn(lambda: Vits(config, posterior=posterior), seed)


def build_drawn(build: Callable[[], _N], seed: int) -> _N:
    """A network whose weights depend on the seed alone, of a size that keeps signals alive."""
    with torch.device("meta"):
        network = build()
    draw = torch.Generator().manual_seed(seed)
    tensors = {name: _drawn(value, draw) for name, value in network.state_dict().items()}
    network.load_state_dict(tensors, assign=True)
    return network


def _drawn(value: Tensor, draw: torch.Generator) -> Tensor:
    fan_in = math.prod(value.shape[1:]) if value.ndim > 1 else 4
    return torch.randn(value.shape, generator=draw) / math.sqrt(fan_in)
