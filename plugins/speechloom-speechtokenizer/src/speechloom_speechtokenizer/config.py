"""The ``config.json`` of a SpeechTokenizer checkpoint. Light: importing this imports no torch."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from speechloom.errors import WeightsError

__all__ = ["CONFIG_FILE", "SpeechTokenizerConfig", "read_config"]

CONFIG_FILE = "config.json"
"""Sizes of a network, beside its weights."""


class SpeechTokenizerConfig(BaseModel):
    """Sizes of the network, under the names of the original; its training settings are passed over.

    Attributes:
        sample_rate: Hz.
        strides: of the decoder's upsampling; the encoder has them in reverse.
        n_filters: channels at full rate; they double with each stride.
        n_residual_layers: residual blocks at each rate.
        residual_kernel_size: of their first convolution.
        dilation_base: the dilation of residual block j is its j-th power.
        activation: ``ELU``, or the learnt ``Snake`` (arXiv:2306.06546).
        lstm_layers: LSTM layers at frame rate, in the encoder and in the decoder; 0 for none.
        bidirectional: whether the encoder's LSTM runs both ways; the decoder's never does.
        dimension: values of a latent frame.
        n_q: levels of the residual quantiser.
        codebook_size: ids per level.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sample_rate: int = Field(gt=0)
    strides: tuple[PositiveInt, ...] = Field(min_length=1)
    n_filters: int = Field(gt=0)
    n_residual_layers: int = Field(ge=0)
    residual_kernel_size: int = Field(gt=0)
    dilation_base: int = Field(gt=0)
    activation: Literal["ELU", "Snake"]
    lstm_layers: int = Field(ge=0)
    bidirectional: bool
    dimension: int = Field(gt=0)
    n_q: int = Field(gt=0)
    codebook_size: int = Field(gt=1)

    @model_validator(mode="after")
    def _both_ways_needs_an_lstm(self) -> SpeechTokenizerConfig:
        if self.bidirectional and not self.lstm_layers:
            raise ValueError("bidirectional needs lstm_layers of 1 or more")
        return self

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return prod(self.strides)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.sample_rate, self.hop)

    @classmethod
    def tiny(
        cls, *, sample_rate: int, strides: tuple[int, ...], levels: int, size: int, lstm_layers: int
    ) -> SpeechTokenizerConfig:
        """A network small enough for a unit test, with the rates and codebooks of a large one."""
        return cls(
            sample_rate=sample_rate,
            strides=strides,
            n_filters=2,
            n_residual_layers=1,
            residual_kernel_size=3,
            dilation_base=2,
            activation="ELU",
            lstm_layers=lstm_layers,
            bidirectional=bool(lstm_layers),
            dimension=16,
            n_q=levels,
            codebook_size=size,
        )


def read_config(path: Path) -> SpeechTokenizerConfig:
    """Read the ``config.json`` of a checkpoint.

    Raises:
        WeightsError: it is no JSON, or not the configuration of a SpeechTokenizer.
    """
    try:
        return SpeechTokenizerConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(
            f"{path} is not the configuration of a SpeechTokenizer: "
            f"{where + ': ' if where else ''}{first['msg']}; give the config.json that belongs to "
            "the checkpoint"
        ) from error
