"""The network as full convolutions: what is trained, and what defines the sampler.

Source: van den Oord et al. 2016, "WaveNet: a generative model for raw audio", arXiv:1609.03499. We
differ in that the residual and skip projections are one matrix, and that a layer's gain in the skip
sum is applied where it is summed.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom_wavenet.config import WaveNetConfig

__all__ = ["Layer", "Upsampler", "WaveNet"]

ROOT_HALF = math.sqrt(0.5)


class Upsampler(nn.Module):
    """Mel frames to one vector a sample.

    Args:
        config: its `context`, `upsampling`, `scales` and `smoothing_bands` count.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.context = config.context
        self.is_stretch = config.upsampling == "stretch"
        bands, taps = config.mel_spec.bands, 2 * config.context + 1
        self.look_around = (
            nn.Conv1d(bands, config.conditioning, taps, bias=False) if self.is_stretch else None
        )
        self.scales = config.scales
        across, pad = config.smoothing_bands, config.smoothing_bands // 2
        self.steps = nn.ModuleList(
            nn.Conv2d(1, 1, (across, 2 * scale + 1), padding=(pad, scale), bias=False)
            if self.is_stretch
            else nn.ConvTranspose2d(1, 1, (across, scale), stride=(1, scale), padding=(pad, 0))
            for scale in config.scales
        )
        for step in self.steps:
            nn.init.constant_(cast(Tensor, step.weight), 1 / cast(Tensor, step.weight).numel())

    def forward(self, mel: Tensor, *, is_padded: bool) -> Tensor:
        """Upsample mel [B, D, F] to [B, N, F x hop]; see `WaveNet.condition`."""
        if self.look_around is not None:
            if not is_padded:
                mel = F.pad(mel, (self.context, self.context), mode="replicate")
            mel = self.look_around(mel)
        image = mel[:, None]
        for scale, step in zip(self.scales, self.steps, strict=True):
            if self.is_stretch:
                image = step(image.repeat_interleave(scale, dim=-1))
            else:
                image = step(image).relu()
        return image[:, 0]


class Layer(nn.Module):
    """A gated dilated convolution with its residual and skip projections."""

    def __init__(self, config: WaveNetConfig, dilation: int) -> None:
        super().__init__()
        self.reach = (config.kernel - 1) * dilation
        self.split = [config.residual, config.skip]
        half = config.gate // 2
        self.dilated = nn.Conv1d(config.residual, config.gate, config.kernel, dilation=dilation)
        self.conditioning = nn.Conv1d(
            config.conditioning, config.gate, 1, bias=config.conditioning_bias
        )
        self.out = nn.Conv1d(half, config.residual + config.skip, 1)

    def forward(self, x: Tensor, conditioning: Tensor) -> tuple[Tensor, Tensor]:
        """From x [B, R, T] to the next x and the contribution to the skip sum [B, S, T]."""
        gates = self.dilated(F.pad(x, (self.reach, 0))) + self.conditioning(conditioning)
        residual, skip = self.project(gates)
        return (x + residual) * ROOT_HALF, skip

    def project(self, gates: Tensor) -> tuple[Tensor, Tensor]:
        """The residual [B, R, T] and the contribution to the skip sum from gates [B, G, T]."""
        value, gate = gates.chunk(2, dim=1)
        residual, skip = self.out(value.tanh() * gate.sigmoid()).split(self.split, dim=1)
        return residual, skip


class WaveNet(nn.Module):
    """Samples so far and a mel spectrogram to the distribution of each next sample.

    Args:
        config: the shape.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config = config
        bands = config.mel_spec.bands
        # Of each band over a corpus, for networks that were trained on standardised mels.
        self.register_buffer("mean", torch.zeros(bands))
        self.register_buffer("deviation", torch.ones(bands))
        self.upsampler = Upsampler(config)
        self.first = nn.Conv1d(config.inputs, config.residual, 1)
        self.layers = nn.ModuleList(Layer(config, dilation) for dilation in config.dilations)
        self.hidden = nn.Conv1d(config.skip, config.skip, 1)
        self.last = nn.Conv1d(config.skip, config.outputs, 1)
        for convolution in self.modules():
            if isinstance(convolution, nn.Conv1d):
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                if convolution.bias is not None:
                    nn.init.zeros_(convolution.bias)

    def condition(self, mel: Tensor, *, is_padded: bool = False) -> Tensor:
        """What conditions each sample.

        Args:
            mel: [B, D, F].
            is_padded: whether `config.context` frames on either side are there only to be seen;
                otherwise the outermost frames stand for what lies beyond.

        Returns:
            [B, N, T] with a hop of samples for each frame.
        """
        scaled = (mel - self.mean[:, None]) / self.deviation[:, None]
        return cast(Tensor, self.upsampler(scaled, is_padded=is_padded))

    def forward(self, samples: Tensor, conditioning: Tensor) -> Tensor:
        """The distribution of each sample, from those before it.

        Args:
            samples: what precedes each sample: float [B, T] values, or int64 [B, T] classes.
            conditioning: [B, N, T], as `condition` gives it.

        Returns:
            [B, C, T], C = `config.outputs`; `distribution` says what the channels mean.
        """
        x = self.enter(samples)
        total = torch.zeros(())
        for layer, gain in zip(self.layers, self.config.skip_gains, strict=True):
            x, skip = layer(x, conditioning)
            total = total + gain * skip
        return self.leave(total)

    def leave(self, total: Tensor) -> Tensor:
        """The skip sum [B, S, T] to distributions [B, C, T]."""
        return cast(Tensor, self.last(self.hidden(total.relu()).relu()))

    def enter(self, samples: Tensor) -> Tensor:
        """What precedes each sample, [B, T], to the first layer's input [B, R, T]."""
        if self.config.output != "mulaw":
            return cast(Tensor, self.first(samples[:, None]))
        table = self.first.weight[:, :, 0].T  # one-hot times a matrix is a row of it
        bias = cast(Tensor, self.first.bias)
        return (F.embedding(samples, table) + bias).transpose(1, 2)
