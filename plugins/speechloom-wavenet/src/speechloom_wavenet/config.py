"""The shape of a WaveNet, checked once. Importing this imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from speechloom.mel import MelSpec

__all__ = ["WaveNetConfig"]


class WaveNetConfig(BaseModel):
    """A WaveNet vocoder (van den Oord et al. 2016, arXiv:1609.03499, section 2).

    Names follow the paper; the details are those of r9y9/wavenet_vocoder, so that its checkpoints
    fit: residual sums are scaled by sqrt(1/2), and skip sums by a factor that `skip_sum` names.

    Attributes:
        mel: the kind of mel spectrogram that conditions it (`MelSpec.kind`); its hop is the
            product of `scales`.
        output: what is drawn for a sample: one of 2^8 mu-law ``mulaw`` classes, a mixture of
            ``logistic`` distributions (Salimans et al. 2017, arXiv:1701.05517), or one
            ``gaussian`` (ClariNet, arXiv:1807.07281).
        classes: mu-law classes; they are also the input, one-hot.
        mixtures: logistic components.
        levels: steps of the recordings' amplitude, over which a logistic is discretised.
        log_scale_min: smallest logarithm of a scale.
        clamp_scales: whether `log_scale_min` also holds while sampling, not only in training.
        layers: dilated convolutions in all.
        stacks: cycles of dilations 1, 2, 4, ...
        residual: channels between layers.
        gate: channels of a dilated convolution, half of them gates.
        skip: channels of the skip sum.
        kernel: taps of a dilated convolution.
        context: mel frames on either side that a frame's conditioning sees.
        mixed_bands: channels that the mel bands are mixed down to at frame rate, which makes every
            layer cheaper; None keeps the bands.
        upsampling: how mel frames become samples: ``stretch`` (repeat, then smooth) or
            ``transposed`` (transposed convolutions with ReLU), by `scales` in turn.
        scales: upsampling factors.
        smoothing_bands: mel bands that an upsampling kernel spans; odd.
        conditioning_bias: whether a layer's conditioning projection has a bias.
        skip_sum: the skip sum is divided by the root of the number of layers (``mean``), scaled
            by sqrt(1/2) after each layer (``halving``), or left (``plain``).
        preemphasis: k of the filter that the samples went through before training; undone after
            sampling.
        gain: factor that the samples were multiplied by before training; undone too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mel: str
    output: Literal["mulaw", "logistic", "gaussian"] = "mulaw"
    classes: int = Field(default=256, gt=1, le=65_536)
    mixtures: int = Field(default=10, gt=0)
    levels: int = Field(default=65_536, gt=1)
    log_scale_min: float = -9.0
    clamp_scales: bool = False
    layers: int = Field(gt=0)
    stacks: int = Field(gt=0)
    residual: int = Field(gt=0)
    gate: int = Field(gt=0)
    skip: int = Field(gt=0)
    kernel: int = Field(default=3, gt=0)
    context: int = Field(default=0, ge=0)
    mixed_bands: int | None = Field(default=None, gt=0)
    upsampling: Literal["stretch", "transposed"] = "stretch"
    scales: tuple[int, ...] = Field(min_length=1)
    smoothing_bands: int = Field(default=1, gt=0)
    conditioning_bias: bool = False
    skip_sum: Literal["mean", "halving", "plain"] = "mean"
    preemphasis: float = Field(default=0.0, ge=0, lt=1)
    gain: float = Field(default=1.0, gt=0)

    @field_validator("mel")
    @classmethod
    def _mel_kind(cls, value: str) -> str:
        return MelSpec.from_kind(value).kind

    @model_validator(mode="after")
    def _parts_fit(self) -> WaveNetConfig:
        problems = {
            f"layers {self.layers} must be a multiple of stacks {self.stacks}": self.layers
            % self.stacks,
            f"gate {self.gate} must be even": self.gate % 2,
            f"the product of scales {list(self.scales)} must be the mel's hop, "
            f"{self.mel_spec.hop}": math.prod(self.scales) != self.mel_spec.hop,
            f"smoothing_bands {self.smoothing_bands} must be odd": self.smoothing_bands % 2 == 0,
            "mixed_bands and context belong to upsampling by stretch": self.upsampling != "stretch"
            and (self.mixed_bands is not None or self.context > 0),
        }
        wrong = [problem for problem, is_so in problems.items() if is_so]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def mel_spec(self) -> MelSpec:
        """The parameters of the mel spectrogram."""
        return MelSpec.from_kind(self.mel)

    @property
    def conditioning(self) -> int:
        """Channels that condition a sample."""
        return self.mel_spec.bands if self.mixed_bands is None else self.mixed_bands

    @property
    def inputs(self) -> int:
        """Channels of a sample on its way in: one-hot classes, or its value."""
        return self.classes if self.output == "mulaw" else 1

    @property
    def outputs(self) -> int:
        """Channels of a distribution."""
        return {"mulaw": self.classes, "logistic": 3 * self.mixtures, "gaussian": 2}[self.output]

    @property
    def dilations(self) -> tuple[int, ...]:
        """Samples between the taps of each layer."""
        cycle = self.layers // self.stacks
        return tuple(2 ** (layer % cycle) for layer in range(self.layers))

    @property
    def receptive_field(self) -> int:
        """Samples, this one included, that a distribution depends on."""
        return (self.kernel - 1) * sum(self.dilations) + 1

    @property
    def skip_gains(self) -> tuple[float, ...]:
        """What each layer's contribution to the skip sum is multiplied by, all told."""
        if self.skip_sum == "mean":
            return (1 / math.sqrt(self.layers),) * self.layers
        if self.skip_sum == "plain":
            return (1.0,) * self.layers
        halvings = [self.layers - max(layer, 1) for layer in range(self.layers)]
        return tuple(math.sqrt(0.5) ** count for count in halvings)
