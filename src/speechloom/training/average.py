"""The moving average of the weights, which is often better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["MovingAverage", "weights_of"]


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors of a network, by name."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


class MovingAverage:
    """Exponential moving average of a network's floating-point tensors.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so that the first weights are soon
    forgotten. Tensors that are not floating point (counters) are the network's own.

    Args:
        network: whose weights are averaged, now and later.
        decay: share of the average that stays in every step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._average = weights_of(network)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        kept = min(self._decay, (1 + step) / (10 + step))
        current = self._network.state_dict()
        moving = [name for name, value in current.items() if value.is_floating_point()]
        if moving:
            torch._foreach_lerp_(
                [self._average[name] for name in moving],
                [current[name] for name in moving],
                1 - kept,
            )
        for name in current.keys() - set(moving):
            self._average[name].copy_(current[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights for a while; its own come back to the bit."""
        own = weights_of(self._network)
        self._network.load_state_dict(self._average)
        try:
            yield
        finally:
            self._network.load_state_dict(own)

    def state(self) -> dict[str, Tensor]:
        """The averages by name."""
        return dict(self._average)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, value in self._average.items():
            value.copy_(state[name])
