"""The sizes of a DAC network, and how far its inputs reach. Light: imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from speechloom.errors import WeightsError

__all__ = ["NetworkConfig"]

DILATIONS = (1, 3, 9)
"""Of the three residual units of each block, as in the paper."""

UNIT_KERNEL = 7
LAST_ENCODER_KERNEL = 3


class NetworkConfig(BaseModel):
    """Sizes of a DAC network (arXiv:2306.06546, table of appendix A).

    Attributes:
        sample_rate: Hz.
        rates: strides of the encoder's blocks, in order; the decoder has them reversed.
        codebooks: K of the full network.
        codebook_size: ids per codebook.
        codebook_dim: dimensions that codes are looked up in.
        latent_size: D between encoder, quantizer and decoder.
        encoder_size: channels of the encoder's first layer; each block doubles them.
        decoder_size: channels of the decoder's first layer; each block halves them.
    """

    model_config = ConfigDict(frozen=True)

    sample_rate: int = Field(gt=0)
    rates: tuple[PositiveInt, ...] = Field(min_length=1)
    codebooks: int = Field(gt=0)
    codebook_size: int = Field(gt=1)
    codebook_dim: int = Field(gt=0)
    latent_size: int = Field(gt=0)
    encoder_size: int = Field(gt=0)
    decoder_size: int = Field(gt=0)

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], source: object) -> NetworkConfig:
        """Of the ``config.json`` of a checkpoint in the layout of transformers.

        Args:
            config: its content.
            source: where it comes from, for the message.

        Raises:
            WeightsError: it is of another model, or incomplete.
        """
        family = config.get("model_type")
        if family != "dac":
            raise WeightsError(
                f"{source} is a checkpoint of {family!r}, not of 'dac'; give a DAC checkpoint, or "
                f"use the plugin for {family!r}"
            )
        encoder_size, rates = config.get("encoder_hidden_size"), config.get("downsampling_ratios")
        latent_size = config.get("hidden_size")
        if latent_size is None and encoder_size and rates:
            latent_size = encoder_size * 2 ** len(rates)
        return _checked(
            source,
            sample_rate=config.get("sampling_rate"),
            rates=rates,
            codebooks=config.get("n_codebooks"),
            codebook_size=config.get("codebook_size"),
            codebook_dim=config.get("codebook_dim"),
            latent_size=latent_size,
            encoder_size=encoder_size,
            decoder_size=config.get("decoder_hidden_size"),
        )

    @classmethod
    def from_original(cls, arguments: Mapping[str, Any], source: object) -> NetworkConfig:
        """Of the arguments that the original package keeps beside its weights.

        Args:
            arguments: ``metadata["kwargs"]`` of a ``weights.pth``.
            source: where it comes from, for the message.

        Raises:
            WeightsError: something is missing, or the decoder does not mirror the encoder.
        """
        config = _checked(
            source,
            sample_rate=arguments.get("sample_rate"),
            rates=arguments.get("encoder_rates"),
            codebooks=arguments.get("n_codebooks"),
            codebook_size=arguments.get("codebook_size"),
            codebook_dim=arguments.get("codebook_dim"),
            latent_size=arguments.get("latent_dim"),
            encoder_size=arguments.get("encoder_dim"),
            decoder_size=arguments.get("decoder_dim"),
        )
        mirrored = arguments.get("decoder_rates")
        if mirrored != list(config.rates)[::-1]:
            raise WeightsError(
                f"{source} has encoder rates {list(config.rates)} and decoder rates {mirrored}; "
                "only networks whose decoder mirrors the encoder can be read"
            )
        return config

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)

    @property
    def encoder_reach(self) -> int:
        """Frames on either side whose samples the codes of one frame depend on."""
        low, high = _conv((0, 0), kernel=LAST_ENCODER_KERNEL, padding=LAST_ENCODER_KERNEL // 2)
        for rate in reversed(self.rates):
            low, high = _conv((low, high), kernel=2 * rate, padding=-(-rate // 2), stride=rate)
            low, high = _units((low, high))
        low, high = _conv((low, high), kernel=UNIT_KERNEL, padding=UNIT_KERNEL // 2)
        return max(-(low // self.hop), high // self.hop)

    @property
    def decoder_reach(self) -> int:
        """Frames on either side whose codes the samples of one frame depend on."""
        low, high = _conv((0, self.hop - 1), kernel=UNIT_KERNEL, padding=UNIT_KERNEL // 2)
        for rate in self.rates:
            low, high = _units((low, high))
            low, high = _transposed((low, high), rate)
        low, high = _conv((low, high), kernel=UNIT_KERNEL, padding=UNIT_KERNEL // 2)
        return max(-low, high)


def _checked(source: object, **sizes: Any) -> NetworkConfig:
    try:
        return NetworkConfig.model_validate(sizes)
    except ValidationError as error:
        wrong = ", ".join(sorted({str(one["loc"][0]) for one in error.errors()}))
        raise WeightsError(
            f"{source} does not describe a DAC network: {wrong} missing or not usable; give a "
            "whole checkpoint"
        ) from error


# Which inputs an interval of outputs depends on, layer by layer, from the last to the first ----

Interval = tuple[int, int]


def _conv(
    outputs: Interval, *, kernel: int, padding: int, stride: int = 1, dilation: int = 1
) -> Interval:
    low, high = outputs
    return low * stride - padding, high * stride - padding + dilation * (kernel - 1)


def _units(outputs: Interval) -> Interval:
    for dilation in reversed(DILATIONS):
        padding = dilation * (UNIT_KERNEL // 2)
        outputs = _conv(outputs, kernel=UNIT_KERNEL, padding=padding, dilation=dilation)
    return outputs


def _transposed(outputs: Interval, stride: int) -> Interval:
    """Through a transposed convolution of kernel 2 x stride, padded by stride / 2 rounded up."""
    low, high = outputs
    padding = -(-stride // 2)
    return -((2 * stride - 1 - low - padding) // stride), (high + padding) // stride
