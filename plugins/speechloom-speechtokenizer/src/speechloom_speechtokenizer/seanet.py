"""SEANet with an LSTM at frame rate, as SpeechTokenizer uses it.

The network of EnCodec (Défossez et al. 2022, arXiv:2210.13438) with an encoder LSTM that may run
both ways. Parameters have the names of the original, after ``weight_g`` and ``weight_v`` of its
weight normalisation are put together; padding is its own to the sample, at any length.

Encoder and decoder are each a convolutional part, the LSTM and another convolutional part. A
convolutional part has a bounded reach, so it can be run in windows with the result of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom_speechtokenizer.config import SpeechTokenizerConfig

__all__ = ["Decoder", "Encoder", "Recurrent"]

State = tuple[Tensor, Tensor]
"""Hidden and cell state of an LSTM."""

_OUTER_KERNEL = 7


class _Layer(Protocol):
    def reach_before(self, reach: int) -> int:
        """Input positions to either side that `reach` output positions to either side need."""
        ...


def reach_of(layers: Iterable[nn.Module]) -> int:
    """Input positions to either side that one output position depends on, at most."""
    reach = 0
    for layer in reversed(list(layers)):
        reach = cast("_Layer", layer).reach_before(reach)
    return reach


class Conv(nn.Module):
    """Convolution whose output has ceil(T / stride) positions.

    The input is padded with its reflection; one that is too short to be reflected gets zeros first.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        # The name of the parameter in the original is `conv.conv.weight`.
        conv = nn.Conv1d(inputs, outputs, kernel, stride, dilation=dilation)
        self.conv = nn.ModuleDict({"conv": conv})
        self.stride = stride
        self.span = (kernel - 1) * dilation
        padding = self.span - (stride - 1)
        self.right = padding // 2
        self.left = padding - self.right

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to [B, C', ceil(T / stride)]."""
        to_full_window = -x.shape[-1] % self.stride
        x = _reflected(x, self.left, self.right + to_full_window)
        result: Tensor = self.conv["conv"](x)
        return result

    def reach_before(self, reach: int) -> int:
        """See `reach_of`."""
        return reach * self.stride + max(self.left, self.span - self.left)


def _reflected(x: Tensor, left: int, right: int) -> Tensor:
    """Pad with the reflection; zeros are put behind what is too short for it, and removed."""
    if not left and not right:
        return x  # padding by nothing would copy
    missing = max(0, max(left, right) - x.shape[-1] + 1)
    if missing:
        x = F.pad(x, (0, missing))
    padded = F.pad(x, (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


class TransposedConv(nn.Module):
    """Transposed convolution whose output has exactly T x stride positions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.convtr = nn.ModuleDict(
            {"convtr": nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride)}
        )
        self.stride = stride
        self.left = stride - stride // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to [B, C', T x stride]."""
        full: Tensor = self.convtr["convtr"](x)
        return full[..., self.left : self.left + x.shape[-1] * self.stride]

    def reach_before(self, reach: int) -> int:
        """See `reach_of`."""
        return -(-(reach + 2 * self.stride - 1 - self.left) // self.stride)


class Elu(nn.Module):
    """Exponential linear unit; `inplace` where nobody else reads its input."""

    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to the same."""
        return F.elu(x, inplace=self.inplace)

    def reach_before(self, reach: int) -> int:
        """See `reach_of`."""
        return reach


class Snake(nn.Module):
    """x + sin²(αx) / α with a learnt α per channel (Liu et al. 2020, arXiv:2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to the same."""
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)

    def reach_before(self, reach: int) -> int:
        """See `reach_of`."""
        return reach


def _activation(config: SpeechTokenizerConfig, channels: int, *, inplace: bool = True) -> nn.Module:
    return Snake(channels) if config.activation == "Snake" else Elu(inplace=inplace)


class ResidualBlock(nn.Module):
    """A dilated convolution and one over channels, beside a learnt shortcut."""

    def __init__(self, channels: int, config: SpeechTokenizerConfig, depth: int) -> None:
        super().__init__()
        hidden = channels // 2
        dilation = config.dilation_base**depth
        self.block = nn.Sequential(
            _activation(config, channels, inplace=False),  # the shortcut reads its input too
            Conv(channels, hidden, config.residual_kernel_size, dilation=dilation),
            _activation(config, hidden),
            Conv(hidden, channels, 1),
        )
        self.shortcut = Conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, T] to the same."""
        result: Tensor = self.shortcut(x)
        return result.add_(self.block(x))

    def reach_before(self, reach: int) -> int:
        """See `reach_of`."""
        return reach + reach_of(self.block)


class Recurrent(nn.Module):
    """LSTM over frames with its input added, which is repeated for one that runs both ways."""

    def __init__(self, channels: int, layers: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Map [B, C, F] to [B, C or 2C, F], going on from `state` where it is given."""
        frames = x.permute(2, 0, 1)
        y, state = self.lstm(frames, state)
        both = torch.cat([frames, frames], -1) if self.lstm.bidirectional else frames
        return (y + both).permute(1, 2, 0), state


class _Network(nn.Module):
    """Layers in one list, as the original has them, and where its three parts are."""

    def __init__(
        self, front: list[nn.Module], recurrent: Recurrent | None, back: list[nn.Module]
    ) -> None:
        super().__init__()
        middle = [] if recurrent is None else [recurrent]
        self.model = nn.Sequential(*front, *middle, *back)
        self._front_size, self._back_size = len(front), len(back)

    @property
    def front(self) -> nn.Sequential:
        """The convolutional part before the LSTM."""
        return nn.Sequential(*self._layers[: self._front_size])

    @property
    def recurrent(self) -> Recurrent | None:
        """The LSTM, where there is one."""
        middle = self._layers[self._front_size : len(self.model) - self._back_size]
        return cast("Recurrent", middle[0]) if middle else None

    @property
    def back(self) -> nn.Sequential:
        """The convolutional part after the LSTM."""
        return nn.Sequential(*self._layers[len(self.model) - self._back_size :])

    @property
    def _layers(self) -> list[nn.Module]:
        return list(self.model)


class Encoder(_Network):
    """Samples [B, 1, T] to latents [B, D, ceil(T / hop)]."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        channels = config.n_filters
        front: list[nn.Module] = [Conv(1, channels, _OUTER_KERNEL)]
        for stride in reversed(config.strides):
            front += [ResidualBlock(channels, config, j) for j in range(config.n_residual_layers)]
            front += [
                _activation(config, channels),
                Conv(channels, 2 * channels, 2 * stride, stride=stride),
            ]
            channels *= 2
        recurrent = None
        if config.lstm_layers:
            both = config.bidirectional
            recurrent = Recurrent(channels, config.lstm_layers, bidirectional=both)
            channels *= 2 if both else 1
        first = _activation(config, channels, inplace=False)  # its input may be the caller's
        back = [first, Conv(channels, config.dimension, _OUTER_KERNEL)]
        super().__init__(front, recurrent, back)


class Decoder(_Network):
    """Latents [B, D, F] to samples [B, 1, F x hop]."""

    def __init__(self, config: SpeechTokenizerConfig) -> None:
        channels = config.n_filters * 2 ** len(config.strides)
        front = [Conv(config.dimension, channels, _OUTER_KERNEL)]
        recurrent = None
        if config.lstm_layers:
            recurrent = Recurrent(channels, config.lstm_layers, bidirectional=False)
        back: list[nn.Module] = []
        for stride in config.strides:
            # The input of the first may be the caller's; those of the others nobody else reads.
            activation = _activation(config, channels, inplace=bool(back))
            back += [activation, TransposedConv(channels, channels // 2, stride)]
            channels //= 2
            back += [ResidualBlock(channels, config, j) for j in range(config.n_residual_layers)]
        back += [_activation(config, channels), Conv(channels, 1, _OUTER_KERNEL)]
        super().__init__([*front], recurrent, back)
