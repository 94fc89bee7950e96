"""The two ways in which EnCodec codes a signal: as a stream, or chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecConvTranspose1d,
    EncodecLSTM,
    EncodecResnetBlock,
)

from speechloom.values import frames_in
from speechloom_encodec.config import NetworkConfig

__all__ = ["MIN_WINDOW", "SPEECH_LEVEL", "ChunkedNetwork", "Network", "StreamNetwork", "embedded"]

MIN_WINDOW = 8
"""Frames that a stream needs at once: a convolution of 7 mirrors the beginning of its input, so
that the first frame depends on the six that follow."""

SPEECH_LEVEL = 0.1
"""Root mean square at which chunks are played whose codes say nothing of their loudness."""


class Network(Protocol):
    """What the codec needs of either."""

    def encode(self, samples: Tensor, levels: int, window: int) -> tuple[Tensor, Tensor | None]:
        """Ids int64 [K, F] of samples [C, T], and the scale of each frame, or None.

        Args:
            samples: float32, at least one, of the network's rate and channels.
            levels: K.
            window: frames to be coded at once.
        """
        ...

    def play(self, ids: Tensor, scales: Tensor | None, window: int) -> Iterator[Tensor]:
        """Samples [C, n] of ids [k, F], piece by piece.

        Args:
            ids: int64.
            scales: of each frame, float32 [F], where the network has them.
            window: frames to be decoded at once.
        """
        ...


def embedded(model: EncodecModel, ids: Tensor) -> Tensor:
    """The sum of the entries, float32 [B, D, F], of ids [B, k, F]."""
    total: Tensor = model.quantizer.decode(ids.transpose(0, 1))
    return total


def _quantized(model: EncodecModel, latents: Tensor, levels: int) -> Tensor:
    """Ids int64 [K, F] of latents [1, D, F], level by level of what is left."""
    left = latents
    ids = []
    layers: Any = model.quantizer.layers[:levels]
    for layer in layers:
        found = layer.encode(left)
        left = left - layer.decode(found)
        ids.append(found[0])
    return torch.stack(ids)


# The layers, with less copying -------------------------------------------------------------

Layers = Sequence[nn.Module]


def _lean(layers: nn.ModuleList) -> Layers:
    """Layers of transformers that give the same bits, but copy less.

    An activation before a convolution that is padded writes into the padded signal; others write
    where nobody reads any more. The first one behind an LSTM does not, because a stream keeps its
    input.
    """
    lean: list[nn.Module] = []
    activation: nn.ELU | None = None
    after_lstm = False
    for layer in layers:
        if isinstance(layer, nn.ELU):
            activation = layer
            continue
        if isinstance(layer, EncodecResnetBlock):
            lean.append(_Residual(layer))
        else:
            lean += _activated(activation, layer, inplace=not after_lstm)
        activation, after_lstm = None, isinstance(layer, EncodecLSTM)
    return lean


def _activated(
    activation: nn.ELU | None, layer: nn.Module, *, inplace: bool
) -> Sequence[nn.Module]:
    """A layer with the activation before it, which may write over its input where `inplace`."""
    if isinstance(layer, EncodecConv1d) and layer.pad_mode == "reflect":
        if activation is None or _padding(layer):
            return [_Convolution(layer, activation)]
        layer = _Convolution(layer, None)
    return [layer] if activation is None else [nn.ELU(activation.alpha, inplace=inplace), layer]


class _Residual(nn.Module):
    """A residual block of transformers, by its own weights; see `_lean`."""

    def __init__(self, block: EncodecResnetBlock) -> None:
        super().__init__()
        first, convolution, second, last = block.block
        assert isinstance(first, nn.ELU)
        assert isinstance(second, nn.ELU)
        # The shortcut reads the input too, so that the first activation must leave it.
        self.block = nn.Sequential(
            *_activated(first, convolution, inplace=False), *_activated(second, last, inplace=True)
        )
        self.shortcut = nn.Sequential(*_activated(None, block.shortcut, inplace=False))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to the same."""
        total: Tensor = self.block(x)
        return total.add_(self.shortcut(x))


def _padding(layer: EncodecConv1d) -> int:
    """Samples that a convolution adds to whole steps."""
    (kernel,), (stride,), (dilation,) = (
        layer.conv.kernel_size, layer.conv.stride, layer.conv.dilation,
    )  # fmt: skip
    return int((kernel - 1) * dilation + 1 - stride)


class _Convolution(nn.Module):
    """A convolution of transformers over a mirrored signal, by its own weights; see `_lean`.

    Args:
        layer: whose weights it has.
        activation: of its input; it does not write over it.
    """

    def __init__(self, layer: EncodecConv1d, activation: nn.ELU | None) -> None:
        super().__init__()
        self.layer = layer
        self.activation = activation
        (self.stride,) = layer.conv.stride
        self.padding = _padding(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to [B, C', ceil(T / stride)]."""
        missing = -x.shape[-1] % self.stride  # the last step is filled up
        right = missing if self.layer.causal else self.padding // 2 + missing
        left = self.padding + missing - right
        if max(left, right) >= x.shape[-1]:
            short: Tensor = self.layer(x if self.activation is None else self.activation(x))
            return short
        result: Tensor = self.layer.conv(_mirrored(x, left, right, self.activation))
        return self.layer.norm(result) if self.layer.norm_type == "time_group_norm" else result


def _mirrored(x: Tensor, left: int, right: int, activation: nn.ELU | None) -> Tensor:
    """Pad [B, C, T], after its activation, by its reflection."""
    if not left and not right and activation is None:
        return x
    length = x.shape[-1]
    padded = x.new_empty(*x.shape[:-1], left + length + right)
    inner = padded[..., left : left + length]
    if activation is None:
        inner.copy_(x)
    else:
        torch.ops.aten.elu.out(x, activation.alpha, out=inner)
    padded[..., :left] = inner[..., 1 : left + 1].flip(-1)
    padded[..., left + length :] = inner[..., length - 1 - right : length - 1].flip(-1)
    return padded


# The whole signal, as a stream ------------------------------------------------------------


class StreamNetwork:
    """A causal network for the whole signal, run piece by piece.

    Its convolutions hear a bounded stretch of what came before, which they are given again, and
    its LSTM, which hears everything, carries its state along. So the pieces equal the whole, but
    for the rounding of sums that are grouped otherwise. Only the first piece must have
    `MIN_WINDOW` frames.
    """

    def __init__(self, model: EncodecModel, config: NetworkConfig) -> None:
        self._model = model
        self._hop = config.hop
        self._encoder = _parts(_lean(model.encoder.layers))
        self._decoder = _parts(_lean(model.decoder.layers))

    def encode(self, samples: Tensor, levels: int, window: int) -> tuple[Tensor, Tensor | None]:
        """Ids int64 [K, F] of samples [1, T]; there are no scales."""
        before, lstm, after = self._encoder
        hop = self._hop
        reach = -(-_reach(before) // hop) * hop
        stages = (_Bounded(before, reach, takes=hop), _Recurrent(lstm), _Bounded(after))
        # One place for all ids: nothing small and lasting is made between the large results of the
        # layers, where it might split the memory that the next piece could use again.
        ids = samples.new_empty(levels, -(-samples.shape[-1] // hop), dtype=torch.int64)
        at = 0
        for piece in torch.split(samples[None], max(window, MIN_WINDOW) * hop, -1):
            found = _quantized(self._model, _through(stages, piece), levels)
            ids[:, at : at + found.shape[-1]] = found
            at += found.shape[-1]
        return ids, None

    def play(self, ids: Tensor, scales: Tensor | None, window: int) -> Iterator[Tensor]:
        """Samples [1, n x hop] of ids [k, F], piece by piece."""
        before, lstm, after = self._decoder
        stages = (_Bounded(before), _Recurrent(lstm), _Bounded(after, gives=self._hop))
        for piece in torch.split(ids, max(window, MIN_WINDOW), -1):
            yield _through(stages, embedded(self._model, piece[None]))[0]


def _parts(layers: Layers) -> tuple[Layers, nn.LSTM, Layers]:
    """What comes before the LSTM, it, and what comes after it."""
    (at,) = [index for index, layer in enumerate(layers) if isinstance(layer, EncodecLSTM)]
    lstm = layers[at].lstm
    assert isinstance(lstm, nn.LSTM)
    return layers[:at], lstm, layers[at + 1 :]


def _reach(layers: Layers) -> int:
    """Inputs before the present one that an output of causal layers depends on."""
    low = 0
    for module in reversed([module for layer in layers for module in layer.modules()]):
        if isinstance(module, EncodecConv1d):
            (kernel,), (stride,), (dilation,) = (
                module.conv.kernel_size, module.conv.stride, module.conv.dilation,
            )  # fmt: skip
            low = low * stride - ((kernel - 1) * dilation + 1 - stride)
        elif isinstance(module, EncodecConvTranspose1d):
            (kernel,), (stride,) = module.conv.kernel_size, module.conv.stride
            low = -((kernel - 1 - low) // stride)
    return -low


class _Bounded:
    """Causal layers of bounded reach; each piece is heard together with what it depends on.

    Args:
        layers: one after the other.
        reach: inputs that are kept for the next piece, a multiple of `takes`; what the layers
            need when not given.
        takes: inputs per step.
        gives: outputs per step.
    """

    def __init__(
        self, layers: Layers, reach: int | None = None, *, takes: int = 1, gives: int = 1
    ) -> None:
        self._layers = layers
        self._reach = _reach(layers) if reach is None else reach
        self._takes, self._gives = takes, gives
        self._heard: Tensor | None = None

    def __call__(self, piece: Tensor) -> Tensor:
        given = piece if self._heard is None else torch.cat([self._heard, piece], -1)
        known = given.shape[-1] - piece.shape[-1]
        # A copy: a view would keep all of the piece.
        self._heard = given[..., max(0, given.shape[-1] - self._reach) :].clone()
        for layer in self._layers:
            given = layer(given)
        return given[..., known // self._takes * self._gives :]


class _Recurrent:
    """The LSTM with its skip connection, whose state goes from piece to piece."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self._lstm = lstm
        self._state: tuple[Tensor, Tensor] | None = None

    def __call__(self, piece: Tensor) -> Tensor:
        steps = piece.permute(2, 0, 1)
        result, self._state = self._lstm(steps, self._state)
        total: Tensor = result + steps
        return total.permute(1, 2, 0)


def _through(stages: Sequence[_Bounded | _Recurrent], piece: Tensor) -> Tensor:
    for stage in stages:
        piece = stage(piece)
    return piece


# Chunk by chunk ---------------------------------------------------------------------------


class ChunkedNetwork:
    """A network for chunks that overlap and are brought to the same loudness.

    Each chunk takes the same number of frames, so that frames stay in step with time: where a
    chunk that is cut short at the end has fewer, the rest is filled with frames of id 0 and
    scale 0, which are not played. Memory is that of one chunk, however long the signal is.
    """

    def __init__(self, model: EncodecModel, config: NetworkConfig) -> None:
        assert config.chunk is not None
        assert config.stride is not None
        assert config.chunk_frames is not None
        self._model = model
        self._config = config
        self._encoder = nn.Sequential(*_lean(model.encoder.layers))
        self._decoder = nn.Sequential(*_lean(model.decoder.layers))
        self._chunk, self._stride, self._frames = config.chunk, config.stride, config.chunk_frames

    def encode(self, samples: Tensor, levels: int, window: int) -> tuple[Tensor, Tensor | None]:
        """Ids int64 [K, F] and scales [F] of samples [C, T]; chunks are what is coded at once."""
        length = samples.shape[-1]
        total = frames_in(length, self._config.sampling_rate, self._config.frame_rate)
        ids = samples.new_zeros(levels, total, dtype=torch.int64)
        scales = samples.new_zeros(total)
        for number, offset in enumerate(range(0, length, self._stride)):
            chunk = samples[None, :, offset : offset + self._chunk]
            scale = 1e-8 + chunk.mean(1, keepdim=True).pow(2).mean(2, keepdim=True).sqrt()
            found = _quantized(self._model, self._encoder(chunk / scale), levels)
            first = number * self._frames
            ids[:, first : first + found.shape[-1]] = found
            scales[first : first + found.shape[-1]] = scale.flatten()
        return ids, scales

    def play(self, ids: Tensor, scales: Tensor | None, window: int) -> Iterator[Tensor]:
        """Samples [C, n] of ids [k, F], chunk by chunk; scales are `SPEECH_LEVEL` when None."""
        if scales is None:
            scales = torch.full((ids.shape[-1],), SPEECH_LEVEL, device=ids.device)
        chunks = zip(
            torch.split(ids, self._frames, -1), torch.split(scales, self._frames), strict=True
        )
        yield from _overlapped((self._chunk_of(*chunk) for chunk in chunks), self._stride)

    def _chunk_of(self, ids: Tensor, scales: Tensor) -> Tensor:
        """Samples [C, n] of one chunk."""
        heard = int((scales > 0).sum())
        if heard == 0:
            return torch.zeros(self._config.audio_channels, self._stride, device=ids.device)
        played: Tensor = self._decoder(embedded(self._model, ids[None, :, :heard]))[0]
        return played * scales[0]


@dataclass(frozen=True)
class _Sum:
    """Chunks added under their weights, so far: values [C, n] and weights [n]."""

    values: Tensor
    weights: Tensor

    def plus(self, other: _Sum) -> _Sum:
        length = max(self.weights.shape[-1], other.weights.shape[-1])
        return _Sum(
            _longer(self.values, length) + _longer(other.values, length),
            _longer(self.weights, length) + _longer(other.weights, length),
        )

    def mean(self, stop: int | None = None) -> Tensor:
        """The weighted mean up to a sample; silence where nothing was added."""
        weights = self.weights[:stop]
        return self.values[:, :stop] / torch.where(weights > 0, weights, 1)


def _longer(values: Tensor, length: int) -> Tensor:
    return functional.pad(values, (0, length - values.shape[-1]))


def _overlapped(chunks: Iterator[Tensor], stride: int) -> Iterator[Tensor]:
    """Chunks [C, n] laid `stride` apart and faded into each other, in pieces of `stride`.

    The weight of a chunk is a triangle over it, as in the original.
    """
    total: _Sum | None = None
    size = 0
    for chunk in chunks:
        length = chunk.shape[-1]
        size = max(size, length)
        at = torch.linspace(0, 1, size + 2, device=chunk.device)[1:-1]
        weights = (0.5 - (at - 0.5).abs())[:length]
        added = _Sum(chunk * weights, weights)
        if total is None:
            total = added
            continue
        total = (
            _Sum(_longer(total.values, stride), _longer(total.weights, stride))
            if (total.weights.shape[-1] < stride)
            else total
        )
        yield total.mean(stride)
        total = _Sum(total.values[:, stride:], total.weights[stride:]).plus(added)
    if total is not None:
        yield total.mean()
