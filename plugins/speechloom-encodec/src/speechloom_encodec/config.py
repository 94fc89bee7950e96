"""The sizes of an EnCodec network. Light: imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from speechloom.errors import UsageError, WeightsError

__all__ = ["NetworkConfig"]


class NetworkConfig(BaseModel):
    """Sizes of an EnCodec network (arXiv:2210.13438), by the names of transformers.

    Attributes:
        sampling_rate: Hz.
        audio_channels: C.
        target_bandwidths: kbit/s that it was trained for; the last uses all codebooks.
        normalize: whether each chunk is brought to the same loudness before encoding.
        chunk_length_s: length of the chunks that are coded on their own, seconds; None for a
            network that codes the whole signal.
        overlap: share of a chunk that the next one repeats.
        hidden_size: D between encoder, quantizer and decoder.
        num_filters: channels of the first layer; each downsampling doubles them.
        num_residual_layers: residual units before each downsampling.
        upsampling_ratios: strides of the decoder, in order; the encoder has them reversed.
        norm_type: normalisation of the convolutions.
        kernel_size: of the first convolution.
        last_kernel_size: of the last convolution.
        residual_kernel_size: of the residual units.
        dilation_growth_rate: base of the dilations of successive residual units.
        use_causal_conv: whether nothing depends on what comes later.
        pad_mode: how convolutions pad.
        compress: how much narrower residual units are inside.
        num_lstm_layers: layers of the recurrent network on either side of the quantizer.
        trim_right_ratio: share of the padding of transposed convolutions trimmed on the right;
            anything but all of it would make a causal decoder hear what comes later.
        codebook_size: ids per codebook.
        use_conv_shortcut: whether residual units have a convolution on their shortcut.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    sampling_rate: int = Field(gt=0)
    audio_channels: int = Field(gt=0, le=2)
    target_bandwidths: tuple[PositiveFloat, ...] = Field(min_length=1)
    normalize: bool = False
    chunk_length_s: float | None = Field(default=None, gt=0)
    overlap: float | None = Field(default=None, ge=0, lt=1)
    hidden_size: int = Field(default=128, gt=0)
    num_filters: int = Field(default=32, gt=0)
    num_residual_layers: int = Field(default=1, gt=0)
    upsampling_ratios: tuple[PositiveInt, ...] = Field(default=(8, 5, 4, 2), min_length=1)
    norm_type: Literal["weight_norm", "time_group_norm"] = "weight_norm"
    kernel_size: int = Field(default=7, gt=0)
    last_kernel_size: int = Field(default=7, gt=0)
    residual_kernel_size: int = Field(default=3, gt=0)
    dilation_growth_rate: int = Field(default=2, gt=0)
    use_causal_conv: bool = True
    pad_mode: Literal["reflect", "replicate", "constant"] = "reflect"
    compress: int = Field(default=2, gt=0)
    num_lstm_layers: int = Field(default=2, gt=0)
    trim_right_ratio: float = Field(default=1.0, ge=1, le=1)
    codebook_size: int = Field(default=1024, gt=1)
    use_conv_shortcut: bool = True

    @model_validator(mode="after")
    def _is_one_of_the_two_kinds(self) -> NetworkConfig:
        whole = self.chunk_length_s is None
        if (
            whole != (self.overlap is None)
            or whole != self.use_causal_conv
            or whole == (self.normalize)
        ):
            raise ValueError(
                "chunk_length_s: only causal networks for the whole signal, and networks for "
                "normalised, overlapping chunks are known"
            )
        if self.chunk == 0:
            raise ValueError(f"chunk_length_s: chunks of {self.chunk_length_s} s hold no sample")
        return self

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], source: object) -> NetworkConfig:
        """Of the ``config.json`` of a checkpoint.

        Args:
            config: its content.
            source: where it comes from, for the message.

        Raises:
            WeightsError: it is of another model, incomplete, or of an unknown kind.
        """
        family = config.get("model_type")
        if family != "encodec":
            raise WeightsError(
                f"{source} is a checkpoint of {family!r}, not of 'encodec'; give an EnCodec "
                f"checkpoint, or use the plugin for {family!r}"
            )
        return cls._checked(config, source)

    def of_sizes(self, source: object, **sizes: Any) -> NetworkConfig:
        """The same kind of network in other sizes, which shapes of tensors told.

        Args:
            source: where they come from, for the message.
            sizes: those that differ.

        Raises:
            WeightsError: there is no such network.
        """
        return self._checked({**self.model_dump(), **sizes}, source)

    @classmethod
    def _checked(cls, fields: Mapping[str, Any], source: object) -> NetworkConfig:
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()
            )
            raise WeightsError(
                f"{source} does not describe an EnCodec network that can be read: {wrong}"
            ) from error

    @property
    def hop(self) -> int:
        """Samples per frame, within a chunk."""
        return math.prod(self.upsampling_ratios)

    @property
    def chunk(self) -> int | None:
        """Samples of a chunk; None for a network that codes the whole signal."""
        return (
            None if self.chunk_length_s is None else int(self.chunk_length_s * self.sampling_rate)
        )

    @property
    def stride(self) -> int | None:
        """Samples from one chunk to the next."""
        if self.chunk is None or self.overlap is None:
            return None
        return max(1, int((1 - self.overlap) * self.chunk))

    @property
    def chunk_frames(self) -> int | None:
        """Frames of a whole chunk."""
        return None if self.chunk is None else -(-self.chunk // self.hop)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second of the codes of a long signal, overlaps included."""
        if self.chunk_frames is None or self.stride is None:
            return Fraction(self.sampling_rate, self.hop)
        return Fraction(self.chunk_frames * self.sampling_rate, self.stride)

    @property
    def codebooks(self) -> int:
        """K of the full network."""
        return self.codebooks_at(self.target_bandwidths[-1])

    def codebooks_at(self, bandwidth: float) -> int:
        """Codebooks that a bandwidth uses, counted as the original does.

        Args:
            bandwidth: kbit/s.

        Raises:
            UsageError: the network was not trained for it.
        """
        if bandwidth not in self.target_bandwidths:
            known = ", ".join(f"{one:g}" for one in self.target_bandwidths)
            raise UsageError(f"bandwidth must be one of {known} kbit/s, but is {bandwidth}")
        frames = math.ceil(Fraction(self.sampling_rate, self.hop))
        return max(1, int(bandwidth * 1000 // (frames * int(math.log2(self.codebook_size)))))
