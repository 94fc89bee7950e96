"""The HiFi-GAN decoder for speaking: the weights of `Decoder`, on a faster way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechloom.decoding import keep_freed_memory
from speechloom_vits.decoder import Decoder, ResidualBlock

__all__ = ["FastDecoder"]

_Convolution = nn.Conv1d | nn.ConvTranspose1d


class FastDecoder:
    """Runs a decoder; on a CPU as two-dimensional convolutions of height 1, channels last.

    There the channels of a sample lie together in memory, which the convolutions of oneDNN read
    without reordering them between layers, and everything between two convolutions happens in
    place. In float32 the samples are those of `Decoder` but for rounding.

    Args:
        decoder: with weight normalisation folded in, on its device; its weights do not change.
        dtype: float32; or bfloat16, half the work on processors with units for it.
    """

    def __init__(self, decoder: Decoder, dtype: torch.dtype = torch.float32) -> None:
        self._decoder = decoder
        self._dtype = dtype
        self._device = decoder.conv_pre.weight.device.type
        self._weights: dict[nn.Module, tuple[Tensor, Tensor | None]] = {}
        if self._device == "cpu":
            keep_freed_memory()
            layers = [one for one in decoder.modules() if isinstance(one, _Convolution)]
            self._weights = {one: self._prepared(one) for one in layers}

    def _prepared(self, layer: _Convolution) -> tuple[Tensor, Tensor | None]:
        bias = None if layer.bias is None else layer.bias.detach().to(self._dtype)
        return _flat(layer.weight.detach().to(self._dtype)), bias

    def __call__(self, latent: Tensor, condition: Tensor | None) -> Tensor:
        """Samples float32 [B, 1, T] of latents [B, L, F]."""
        if self._device == "cpu":
            return self._decoded(latent, condition)
        with torch.autocast(self._device, self._dtype, enabled=self._dtype != torch.float32):
            samples: Tensor = self._decoder(latent, condition)
        return samples.float()

    def _decoded(self, latent: Tensor, condition: Tensor | None) -> Tensor:
        decoder, config = self._decoder, self._decoder.config
        hidden = self._convolved(decoder.conv_pre, _flat(latent.to(self._dtype)))
        if condition is not None:
            hidden = hidden + decoder.cond(condition)[:, :, None].to(self._dtype)
        count = len(config.block_kernels)
        for stage, upsample in enumerate(decoder.upsampler):
            hidden = self._upsampled(upsample, functional.leaky_relu_(hidden, config.slope))
            blocks = decoder.resblocks[stage * count : (stage + 1) * count]
            total = self._through(blocks[0], hidden)
            for block in list(blocks)[1:]:
                total += self._through(block, hidden)
            hidden = total.div_(count)
        hidden = self._convolved(decoder.conv_post, functional.leaky_relu_(hidden))
        return torch.tanh(hidden.float())[:, :, 0]

    def _through(self, block: nn.Module, hidden: Tensor) -> Tensor:
        assert isinstance(block, ResidualBlock)
        for layer, first in enumerate(block.convs1):
            inner = self._convolved(first, functional.leaky_relu(hidden, block.slope))
            if block.paired:
                inner = self._convolved(
                    block.convs2[layer], functional.leaky_relu_(inner, block.slope)
                )
            hidden = inner.add_(hidden)
        return hidden

    def _convolved(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        assert isinstance(layer, nn.Conv1d)
        padding, dilation = int(layer.padding[0]), layer.dilation[0]
        weight, bias = self._weights[layer]
        return functional.conv2d(
            hidden,
            weight,
            bias,
            padding=(0, padding),
            dilation=(1, dilation),
        )

    def _upsampled(self, layer: nn.Module, hidden: Tensor) -> Tensor:
        assert isinstance(layer, nn.ConvTranspose1d)
        weight, bias = self._weights[layer]
        return functional.conv_transpose2d(
            hidden,
            weight,
            bias,
            stride=(1, layer.stride[0]),
            padding=(0, int(layer.padding[0])),
        )


def _flat(values: Tensor) -> Tensor:
    """[A, B, T] as [A, B, 1, T] with the channels B last in memory."""
    return values[:, :, None].contiguous(memory_format=torch.channels_last)
