"""Sampling with cached convolutions: pack the weights once, then make samples block by block.

The definition is the network's own full convolution, drawn from sample by sample with the uniform
numbers of the core's counter-based noise (see `distribution.draw`). A sample's draw depends on
(seed, item, position) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechloom.errors import WeightsError
from speechloom.values import pad_stack
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.distribution import STAGE, check_temperature, start
from speechloom_wavenet.kernels import (
    GAUSSIAN,
    LANES,
    LOGISTIC,
    MULAW,
    PANEL,
    make_samples,
    padded,
)
from speechloom_wavenet.network import ROOT_HALF, Layer, WaveNet

__all__ = ["CompiledSampler"]

BLOCK = 256
"""Samples of a block: its conditioning for all layers (6 MB for a large network) stays cached."""

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Packed:
    """A network's weights in the order of use; see `kernels.make_samples`."""

    shape: tuple[int, int, int, int, int, int, int]
    dilations: Integers
    weights: Floats | Halves
    biases: Floats
    entry: Floats
    places: Integers
    slots: int
    conditioning: Tensor
    conditioning_bias: Tensor

    @classmethod
    def of(cls, network: WaveNet, dtype: torch.dtype) -> _Packed:
        config = network.config
        kinds = {"mulaw": MULAW, "logistic": LOGISTIC, "gaussian": GAUSSIAN}
        mixtures = {"mulaw": config.classes, "logistic": config.mixtures, "gaussian": 1}
        layers = [cast(Layer, layer) for layer in network.layers]
        weights, biases = [], []
        for layer, gain in zip(layers, config.skip_gains, strict=True):
            factors = _factors(config, gain)
            weights += [_panels(tap) for tap in layer.dilated.weight.unbind(-1)]
            weights.append(_panels(layer.out.weight[:, :, 0] * factors[:, None]))
            biases.append(_filled(_bias(layer.out) * factors))
        for matrix in (network.hidden, network.last):
            weights.append(_panels(matrix.weight[:, :, 0]))
            biases.append(_filled(_bias(matrix)))
        panels = torch.cat([part.reshape(-1) for part in weights])
        rings = [(config.kernel - 1) * dilation + 1 for dilation in config.dilations]
        return cls(
            shape=(
                kinds[config.output],
                config.kernel,
                config.residual,
                config.gate,
                config.skip,
                config.outputs,
                mixtures[config.output],
            ),
            dilations=np.array(config.dilations, np.int64),
            weights=_aligned(panels.numpy() if dtype == torch.float32 else _halves(panels)),
            biases=torch.cat(biases).numpy(),
            entry=torch.cat([network.first.weight[:, :, 0].T, _bias(network.first)[None]]).numpy(),
            places=np.cumsum([0, *rings[:-1]]).astype(np.int64),
            slots=sum(rings),
            conditioning=torch.cat([layer.conditioning.weight[:, :, 0] for layer in layers]).T,
            conditioning_bias=torch.cat(
                [_bias(layer.conditioning) + _bias(layer.dilated) for layer in layers]
            ),
        )


def _factors(config: WaveNetConfig, gain: float) -> Tensor:
    """The scales of a layer's two projections, [R + S]."""
    return torch.cat([torch.full((config.residual,), ROOT_HALF), torch.full((config.skip,), gain)])


def _bias(convolution: torch.nn.Conv1d) -> Tensor:
    none = convolution.weight.new_zeros(convolution.out_channels)
    return none if convolution.bias is None else convolution.bias


def _panels(matrix: Tensor) -> Tensor:
    """[outputs, inputs] to [panels, inputs, 64], filled up with zeros."""
    outputs, inputs = matrix.shape
    filled = torch.nn.functional.pad(matrix, (0, 0, 0, padded(outputs) - outputs))
    return filled.reshape(-1, PANEL, inputs).transpose(1, 2).contiguous()


def _filled(vector: Tensor) -> Tensor:
    return torch.nn.functional.pad(vector, (0, padded(len(vector)) - len(vector)))


def _halves(panels: Tensor) -> Halves:
    """Rounded to bfloat16, two vectors lane by lane, as `kernels` reads them."""
    bits = panels.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return np.ascontiguousarray(bits.reshape(-1, 2, LANES).swapaxes(1, 2)).reshape(-1)


def _aligned(values: Floats | Halves) -> Floats | Halves:
    """A copy that begins at a cache line, so that no register's load crosses one."""
    line = 64 // values.itemsize
    room = np.empty(values.size + line, values.dtype)
    first = (-room.ctypes.data % 64) // values.itemsize
    copy = room[first : first + values.size]
    copy[:] = values
    return copy


class CompiledSampler:
    """Draws from a WaveNet on the CPU, without Python per sample.

    Items go their own ways only in their draws: what one becomes does not depend on the others.
    They are shared out among as many threads as torch uses.

    Args:
        network: on the CPU, float32; its weights are copied.
        dtype: of the copy: float32; or bfloat16, half of what is read for every sample, which is
            what a single item waits for. Sums are float32 all the same.
    """

    @torch.no_grad()
    def __init__(self, network: WaveNet, dtype: torch.dtype = torch.float32) -> None:
        self.config = network.config
        self._network = network
        self._packed = _Packed.of(network, dtype)

    def sample(
        self,
        mels: Sequence[Tensor],
        *,
        seeds: Sequence[int],
        items: Sequence[int],
        temperature: float = 1.0,
    ) -> list[Tensor]:
        """Make the samples of some mel spectrograms.

        Args:
            mels: each float32 [D, F], F at least 1.
            seeds: of each item's request.
            items: number of each item in its request.
            temperature: see `distribution.draw`.

        Returns:
            For each, float32 [F x hop]: classes or values, as the network sees them.

        Raises:
            WeightsError: the network gives NaN or infinity.
        """
        check_temperature(temperature)
        order = sorted(range(len(mels)), key=lambda index: -mels[index].shape[-1])
        workers = min(torch.get_num_threads(), len(mels))
        shares = [order[worker::workers] for worker in range(workers)]

        def run(share: list[int]) -> list[Tensor]:
            return self._together(
                [mels[i] for i in share], *_keys(share, seeds, items), temperature
            )

        with ThreadPoolExecutor(workers) as pool:
            done = list(pool.map(run, shares)) if workers > 1 else [run(order)]
        made = dict(zip(sum(shares, []), sum(done, []), strict=True))
        return [made[index] for index in range(len(mels))]

    @torch.no_grad()
    def distributions(self, mel: Tensor, samples: Tensor) -> Tensor:
        """What the sampler computes when it is fed given samples, for comparison.

        Args:
            mel: [D, F].
            samples: [F x hop] classes or values.

        Returns:
            float32 [C, F x hop].
        """
        state = _State(self._packed, self.config, np.zeros(1, np.int64), np.zeros(1, np.int64))
        conditioning = self._network.condition(mel[None])
        forced = samples[None].float().numpy()
        parts = []
        for first in range(0, len(samples), BLOCK):
            block = conditioning[..., first : first + BLOCK]
            outputs = np.empty((block.shape[-1], 1, self.config.outputs), np.float32)
            state.advance(
                block, 1.0, outputs, np.ascontiguousarray(forced[:, first : first + BLOCK])
            )
            parts.append(torch.from_numpy(outputs[:, 0].T.copy()))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def _together(
        self, mels: Sequence[Tensor], seeds: Integers, items: Integers, temperature: float
    ) -> list[Tensor]:
        """Longest first; an item leaves when it is done."""
        conditioned = [self._network.condition(mel[None])[0] for mel in mels]
        lengths = [one.shape[-1] for one in conditioned]
        state = _State(self._packed, self.config, seeds, items)
        nothing = np.empty((0, 0, 0), np.float32)
        parts: list[list[Tensor]] = [[] for _ in mels]
        for first in range(0, lengths[0], BLOCK):
            open_ = sum(length > first for length in lengths)
            state.keep(open_)
            block = pad_stack([one[:, first : first + BLOCK] for one in conditioned[:open_]])
            made = state.advance(block, temperature, nothing, np.empty((open_, 0), np.float32))
            for part, samples in zip(parts, made, strict=False):
                part.append(samples)
        return [torch.cat(part)[:length] for part, length in zip(parts, lengths, strict=True)]


def _keys(
    share: Sequence[int], seeds: Sequence[int], items: Sequence[int]
) -> tuple[Integers, Integers]:
    return (
        np.array([seeds[i] for i in share], np.int64),
        np.array([items[i] for i in share], np.int64),
    )


class _State:
    """Where some items are: the layers' past inputs, and the sample that comes before the next."""

    def __init__(
        self, packed: _Packed, config: WaveNetConfig, seeds: Integers, items: Integers
    ) -> None:
        self.packed, self.config = packed, config
        self.seeds, self.items = seeds, items
        self.position = 0
        self.history = np.zeros((packed.slots, len(seeds), config.residual), np.float32)
        self.current = np.full(len(seeds), start(config), np.float32)

    def keep(self, count: int) -> None:
        """Let go of all items but the first `count`."""
        if count < len(self.seeds):
            self.seeds, self.items = self.seeds[:count], self.items[:count]
            self.current = self.current[:count].copy()
            self.history = np.ascontiguousarray(self.history[:, :count])

    def advance(
        self, conditioning: Tensor, temperature: float, outputs: Floats, forced: Floats
    ) -> list[Tensor]:
        """Make a block: conditioning [B, N, T] to float32 [T] for each item."""
        packed, config = self.packed, self.config
        batch, _, block = conditioning.shape
        rows = conditioning.permute(2, 0, 1).reshape(block * batch, -1)
        projected = torch.addmm(packed.conditioning_bias, rows, packed.conditioning)
        samples = np.empty((batch, block), np.float32)
        make_samples(
            packed.shape,
            packed.dilations,
            packed.weights,
            packed.biases,
            packed.entry,
            projected.numpy().reshape(block, batch, config.layers, config.gate),
            self.history.reshape(-1),
            packed.places * (batch * config.residual),
            self.current,
            forced,
            self.position,
            self.seeds,
            self.items,
            STAGE << 24,
            temperature,
            config.log_scale_min if config.clamp_scales else -np.inf,
            samples,
            outputs,
        )
        self.position += block
        if not np.isfinite(samples).all():
            raise WeightsError(
                "the WaveNet gives values that are NaN or infinite; check its weights"
            )
        return list(torch.from_numpy(samples))
