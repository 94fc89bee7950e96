"""The HiFi-GAN generator: latent frames to samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from speechloom_vits.config import DecoderConfig
from speechloom_vits.gated import GatedStack

__all__ = ["Decoder", "normalise_weights"]


class ResidualBlock(nn.Module):
    """Dilated convolutions with residuals around one or two of them.

    Args:
        channels: in and out.
        kernel: odd.
        dilations: of the layers.
        slope: of the leaky rectifiers.
        double: whether a second, undilated convolution follows each.
    """

    def __init__(
        self, channels: int, kernel: int, dilations: tuple[int, ...], slope: float, *, double: bool
    ) -> None:
        super().__init__()
        self.slope = slope
        self.convs1 = nn.ModuleList(_same(channels, kernel, dilation) for dilation in dilations)
        if double:
            self.convs2 = nn.ModuleList(_same(channels, kernel, 1) for _ in dilations)
        self.paired = double

    def forward(self, hidden: Tensor) -> Tensor:
        """Run on [B, C, T]."""
        for layer, convolve in enumerate(self.convs1):
            inner = convolve(functional.leaky_relu(hidden, self.slope))
            if self.paired:
                inner = self.convs2[layer](functional.leaky_relu(inner, self.slope))
            hidden = hidden + inner
        return hidden


def _same(channels: int, kernel: int, dilation: int) -> nn.Conv1d:
    padding = dilation * (kernel - 1) // 2
    return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding)


class Decoder(nn.Module):
    """HiFi-GAN (arXiv:2010.05646) without biases in its last layer, as VITS has it.

    This is the form for training and the definition; `speechloom_vits.fast` runs the same weights
    faster.

    Args:
        config: sizes.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.conv_pre = nn.Conv1d(config.latent_size, channels, 7, padding=3)
        if config.speaker_size:
            self.cond = nn.Conv1d(config.speaker_size, channels, 1)
        self.upsampler = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(config.rates, config.kernels, strict=True):
            self.upsampler.append(
                nn.ConvTranspose1d(
                    channels, channels // 2, kernel, stride=rate, padding=(kernel - rate) // 2
                )
            )
            channels //= 2
            for size, dilations in zip(config.block_kernels, config.block_dilations, strict=True):
                self.resblocks.append(
                    ResidualBlock(
                        channels, size, dilations, config.slope, double=config.block == "1"
                    )
                )
        self.conv_post = nn.Conv1d(channels, 1, 7, padding=3, bias=False)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Decode.

        Args:
            latent: float32 [B, L, F].
            condition: float32 [B, S, 1], of the speaker, or None.

        Returns:
            float32 [B, 1, T] in -1 to 1, T about F times the hop.
        """
        hidden = self.conv_pre(latent)
        if condition is not None:
            hidden = hidden + self.cond(condition)
        count = len(self.config.block_kernels)
        for stage, upsample in enumerate(self.upsampler):
            hidden = upsample(functional.leaky_relu(hidden, self.config.slope))
            blocks = self.resblocks[stage * count : (stage + 1) * count]
            hidden = torch.stack([block(hidden) for block in blocks]).mean(0)
        samples: Tensor = torch.tanh(self.conv_post(functional.leaky_relu(hidden)))
        return samples


def normalise_weights(network: nn.Module) -> None:
    """Train weights as length and direction (arXiv:1602.07868) where the original does.

    In gated stacks, upsamplings and residual blocks; `speechloom.checkpoints.fold_weight_norm`
    takes it out again.
    """
    for module in list(network.modules()):
        if isinstance(module, (GatedStack, ResidualBlock)):
            layers: list[nn.Module] = [
                one for one in module.modules() if isinstance(one, nn.Conv1d)
            ]
        elif isinstance(module, Decoder):
            layers = list(module.upsampler)
        else:
            continue
        for layer in layers:
            weight_norm(layer)
