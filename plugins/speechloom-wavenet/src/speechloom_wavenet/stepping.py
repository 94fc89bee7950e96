"""Sampling in torch operations, one step at a time: any device; on CUDA one captured graph.

A step reads and writes fixed places, so that it can be captured once and replayed for every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from speechloom.errors import WeightsError
from speechloom.ops.masked_decode import NoiseKeys, uniforms
from speechloom.values import pad_stack
from speechloom_wavenet.distribution import STAGE, check_temperature, draw, start
from speechloom_wavenet.network import ROOT_HALF, Layer, WaveNet

__all__ = ["SteppingSampler"]

WARM_UPS = 3
"""Steps before a capture, as CUDA graphs want them."""


class SteppingSampler:
    """Draws from a WaveNet on any device.

    Args:
        network: on its device.
    """

    def __init__(self, network: WaveNet) -> None:
        self._network = network

    @torch.no_grad()
    def sample(
        self,
        mels: Sequence[Tensor],
        *,
        seeds: Sequence[int],
        items: Sequence[int],
        temperature: float = 1.0,
    ) -> list[Tensor]:
        """Make the samples of some mel spectrograms; see `CompiledSampler.sample`.

        Args:
            mels: one for each item, float32 [D, F].
            seeds: one for each item.
            items: number of each item in its request.
            temperature: scales the randomness.

        Returns:
            Samples float32 [T] of each item.

        Raises:
            UsageError: the temperature is negative, infinite or NaN.
            WeightsError: the network gives values that are not finite.
        """
        check_temperature(temperature)
        conditioned = [self._network.condition(mel[None])[0] for mel in mels]
        lengths = [one.shape[-1] for one in conditioned]
        step = _Step(self._network, pad_stack(conditioned), seeds, items, temperature)
        advance = _captured(step) if step.samples.is_cuda else step
        for _ in range(max(lengths)):
            advance()
        if not bool(step.is_finite):
            raise WeightsError(
                "the WaveNet gives values that are NaN or infinite; check its weights"
            )
        return [row[:length] for row, length in zip(step.samples, lengths, strict=True)]


class _Step:
    """All that one step reads and writes; calling it makes the next sample of every item."""

    def __init__(
        self,
        network: WaveNet,
        conditioning: Tensor,
        seeds: Sequence[int],
        items: Sequence[int],
        temperature: float,
    ) -> None:
        config, device = network.config, conditioning.device
        self.network, self.conditioning, self.temperature = network, conditioning, temperature
        batch, _, length = conditioning.shape
        self.seeds = torch.tensor(seeds, device=device)
        self.items = torch.tensor(items, device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.samples = torch.zeros(batch, length, device=device)
        self.is_finite = torch.ones((), dtype=torch.bool, device=device)
        dtype = torch.int64 if config.output == "mulaw" else torch.float32
        self.current = torch.full((batch,), start(config), dtype=dtype, device=device)
        self.past = [
            torch.zeros((config.kernel - 1) * dilation + 1, batch, config.residual, device=device)
            for dilation in config.dilations
        ]

    def reset(self) -> None:
        """Go back to the beginning, in place."""
        self.position.zero_()
        self.is_finite.fill_(True)
        self.current.fill_(start(self.network.config))
        for past in self.past:
            past.zero_()

    def __call__(self) -> None:
        """Make a sample of every item."""
        network, config = self.network, self.network.config
        at = self.position[None]
        conditioning = self.conditioning.index_select(2, at)
        x = network.enter(self.current[:, None])
        total = torch.zeros((), device=x.device)
        for index, gain in enumerate(config.skip_gains):
            layer = cast(Layer, network.layers[index])
            x, skip = self._layer(layer, index, x, conditioning)
            total = total + gain * skip
        outputs = network.leave(total)[:, :, 0]
        self.is_finite &= torch.isfinite(outputs).all()
        keys = NoiseKeys(
            seed=self.seeds,
            item=self.items,
            position=self.position.expand(len(self.seeds)),
            stage=STAGE,
        )
        drawn = draw(config, outputs, *uniforms(keys), self.temperature)
        self.samples.index_copy_(1, at, drawn.float()[:, None])
        self.current.copy_(drawn)
        self.position += 1

    def _layer(
        self, layer: Layer, index: int, x: Tensor, conditioning: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A layer for one sample: its taps are read from the ring of its past inputs."""
        config, past = self.network.config, self.past[index]
        dilation, ring = config.dilations[index], len(past)
        past.index_copy_(0, (self.position % ring)[None], x[None, :, :, 0])
        behind = torch.arange(config.kernel - 1, -1, -1, device=x.device) * dilation
        taps = past.index_select(0, (self.position - behind) % ring)
        gates = torch.einsum("kbr,grk->bg", taps, layer.dilated.weight)
        gates = gates[..., None] + layer.conditioning(conditioning)
        if layer.dilated.bias is not None:
            gates = gates + layer.dilated.bias[:, None]
        residual, skip = layer.project(gates)
        return (x + residual) * ROOT_HALF, skip


def _captured(step: _Step) -> Callable[[], None]:
    """A step as one CUDA graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
            step.reset()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    step.reset()
    return graph.replay
