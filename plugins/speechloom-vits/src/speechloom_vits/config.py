"""The sizes of a VITS network, from every kind of file that states them. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speechloom.errors import WeightsError

__all__ = ["DecoderConfig", "VitsConfig"]


class DecoderConfig(BaseModel):
    """Sizes of a HiFi-GAN generator (arXiv:2010.05646, appendix A).

    Attributes:
        latent_size: D of what it takes.
        channels: of the first layer; each upsampling halves them.
        rates: factors of the upsamplings; their product is the hop.
        kernels: of the upsamplings.
        block_kernels: one residual block of each kernel runs behind every upsampling.
        block_dilations: of the layers of each of them.
        block: ``1`` has two convolutions a layer, ``2`` one.
        slope: of the leaky rectifiers.
        speaker_size: of the vector that is added to the first layer; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    latent_size: int = Field(default=192, gt=0)
    channels: int = Field(default=512, gt=0)
    rates: tuple[int, ...] = Field(default=(8, 8, 2, 2), min_length=1)
    kernels: tuple[int, ...] = (16, 16, 4, 4)
    block_kernels: tuple[int, ...] = Field(default=(3, 7, 11), min_length=1)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5),) * 3
    block: Literal["1", "2"] = "1"
    slope: float = 0.1
    speaker_size: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _agrees(self) -> DecoderConfig:
        if len(self.rates) != len(self.kernels):
            raise ValueError("rates and kernels of the upsamplings differ in number")
        if len(self.block_kernels) != len(self.block_dilations):
            raise ValueError("kernels and dilations of the residual blocks differ in number")
        if self.channels % 2 ** len(self.rates):
            raise ValueError(f"channels {self.channels} cannot be halved {len(self.rates)} times")
        return self

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)


class VitsConfig(BaseModel):
    """Sizes of a VITS network (arXiv:2106.06103), and how it speaks.

    Attributes:
        sample_rate: Hz.
        symbols: ids of the text.
        hidden: D inside the encoders.
        latent_size: D of the latent that the decoder takes.
        text_layers: of the text encoder.
        heads: of its attention.
        window: farthest relative position with a vector of its own.
        feed_forward: inner size of its feed-forward layers.
        text_kernel: of those.
        norm_epsilon: of its layer norms.
        dropout: of the text encoder, in training.
        spectrum_bins: of the linear spectrogram that the posterior encoder takes.
        posterior_layers: of the posterior encoder.
        flows: couplings between posterior and prior.
        flow_layers: of each.
        gated_kernel: of the gated convolutions in both.
        gated_dilation: their dilation grows by this factor.
        stochastic: whether durations are drawn from flows.
        duration_flows: how many.
        duration_kernel: of the duration predictors.
        duration_layers: of each separable stack.
        duration_bins: of the splines.
        duration_bound: outside of it splines are the identity.
        duration_filter: inner size of the deterministic predictor.
        duration_dropout: in training.
        speakers: voices that it was trained on.
        decoder: sizes of the decoder.
        noise_scale: of the prior when speaking.
        duration_noise_scale: of the durations.
        length_scale: every duration is multiplied by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate: int = Field(default=16_000, gt=0)
    symbols: int = Field(gt=1)
    hidden: int = Field(default=192, gt=0)
    latent_size: int = Field(default=192, gt=0, multiple_of=2)
    text_layers: int = Field(default=6, ge=0)
    heads: int = Field(default=2, gt=0)
    window: int = Field(default=4, gt=0)
    feed_forward: int = Field(default=768, gt=0)
    text_kernel: int = Field(default=3, gt=0)
    norm_epsilon: float = 1e-5
    dropout: float = Field(default=0.1, ge=0, lt=1)
    spectrum_bins: int = Field(default=513, gt=0)
    posterior_layers: int = Field(default=16, gt=0)
    flows: int = Field(default=4, gt=0)
    flow_layers: int = Field(default=4, gt=0)
    gated_kernel: int = Field(default=5, gt=0)
    gated_dilation: int = Field(default=1, gt=0)
    stochastic: bool = True
    duration_flows: int = Field(default=4, gt=0)
    duration_kernel: int = Field(default=3, gt=0)
    duration_layers: int = Field(default=3, gt=0)
    duration_bins: int = Field(default=10, gt=1)
    duration_bound: float = 5.0
    duration_filter: int = Field(default=256, gt=0)
    duration_dropout: float = Field(default=0.5, ge=0, lt=1)
    speakers: int = Field(default=1, gt=0)
    decoder: DecoderConfig = DecoderConfig()
    noise_scale: float = Field(default=0.667, ge=0)
    duration_noise_scale: float = Field(default=0.8, ge=0)
    length_scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _agrees(self) -> VitsConfig:
        if self.decoder.latent_size != self.latent_size:
            raise ValueError("the decoder takes another latent_size than the network gives")
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        if self.speakers > 1 and self.speaker_size == 0:
            raise ValueError(f"{self.speakers} speakers need a speaker_size above 0")
        return self

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.decoder.hop

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.sample_rate, self.hop)

    @property
    def speaker_size(self) -> int:
        """Values of a speaker vector; 0 where there is one speaker."""
        return self.decoder.speaker_size

    @property
    def window_samples(self) -> int:
        """Window of the linear spectrogram."""
        return 2 * (self.spectrum_bins - 1)

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], source: object) -> VitsConfig:
        """Of the ``config.json`` of a ``VitsModel``.

        Args:
            config: its content.
            source: where it comes from, for the message.

        Raises:
            WeightsError: it is of another model, or has parts that no published VITS has.
        """
        family = config.get("model_type")
        if family != "vits":
            raise WeightsError(
                f"{source} is a checkpoint of {family!r}, not of 'vits'; give a VITS checkpoint"
            )
        for name, only in _ONLY.items():
            if config.get(name, only) != only:
                raise WeightsError(
                    f"{source} has {name} {config[name]!r}; only {only!r} is known here"
                )
        speakers = config.get("num_speakers", 1)
        names = {ours: config[theirs] for ours, theirs in _TRANSFORMERS.items() if theirs in config}
        decoder = {
            ours: config[theirs] for ours, theirs in _DECODER.items() if theirs in config
        } | {"speaker_size": config.get("speaker_embedding_size", 0)}
        if "latent_size" in names:
            decoder["latent_size"] = names["latent_size"]
        rate = config.get("speaking_rate", 1.0)
        return _checked(
            source,
            **names,
            speakers=speakers,
            decoder=decoder,
            length_scale=1.0 / rate if rate else 0.0,
        )

    @classmethod
    def from_original(cls, config: Mapping[str, Any], symbols: int, source: object) -> VitsConfig:
        """Of the ``config.json`` of the original code (sections ``data`` and ``model``).

        Args:
            config: its content.
            symbols: rows of the text embedding, which that file does not state.
            source: where it comes from, for the message.

        Raises:
            WeightsError: it is not such a file.
        """
        data, model = config.get("data"), config.get("model")
        if not isinstance(data, Mapping) or not isinstance(model, Mapping):
            raise WeightsError(
                f"{source} has no sections data and model; give the configuration that the "
                "checkpoint was trained with"
            )
        decoder = {
            ours: model[theirs] for ours, theirs in _ORIGINAL_DECODER.items() if theirs in model
        }
        names = {ours: model[theirs] for ours, theirs in _ORIGINAL.items() if theirs in model}
        return _checked(
            source,
            **names,
            symbols=symbols,
            sample_rate=data.get("sampling_rate"),
            spectrum_bins=data.get("filter_length", 1024) // 2 + 1,
            stochastic=model.get("use_sdp", True),
            speakers=max(1, data.get("n_speakers", 1)),
            decoder=decoder,
        )


_ONLY = {"hidden_act": "relu", "use_bias": True, "depth_separable_channels": 2}

_TRANSFORMERS = {
    "sample_rate": "sampling_rate",
    "symbols": "vocab_size",
    "hidden": "hidden_size",
    "latent_size": "flow_size",
    "text_layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "window": "window_size",
    "feed_forward": "ffn_dim",
    "text_kernel": "ffn_kernel_size",
    "norm_epsilon": "layer_norm_eps",
    "spectrum_bins": "spectrogram_bins",
    "posterior_layers": "posterior_encoder_num_wavenet_layers",
    "flows": "prior_encoder_num_flows",
    "flow_layers": "prior_encoder_num_wavenet_layers",
    "gated_kernel": "wavenet_kernel_size",
    "gated_dilation": "wavenet_dilation_rate",
    "stochastic": "use_stochastic_duration_prediction",
    "duration_flows": "duration_predictor_num_flows",
    "duration_kernel": "duration_predictor_kernel_size",
    "duration_layers": "depth_separable_num_layers",
    "duration_bins": "duration_predictor_flow_bins",
    "duration_bound": "duration_predictor_tail_bound",
    "duration_filter": "duration_predictor_filter_channels",
    "noise_scale": "noise_scale",
    "duration_noise_scale": "noise_scale_duration",
}
_DECODER = {
    "channels": "upsample_initial_channel",
    "rates": "upsample_rates",
    "kernels": "upsample_kernel_sizes",
    "block_kernels": "resblock_kernel_sizes",
    "block_dilations": "resblock_dilation_sizes",
    "slope": "leaky_relu_slope",
}
_ORIGINAL = {
    "hidden": "hidden_channels",
    "latent_size": "inter_channels",
    "text_layers": "n_layers",
    "heads": "n_heads",
    "feed_forward": "filter_channels",
    "text_kernel": "kernel_size",
}
_ORIGINAL_DECODER = {
    "latent_size": "inter_channels",
    "channels": "upsample_initial_channel",
    "rates": "upsample_rates",
    "kernels": "upsample_kernel_sizes",
    "block_kernels": "resblock_kernel_sizes",
    "block_dilations": "resblock_dilation_sizes",
    "block": "resblock",
    "speaker_size": "gin_channels",
}


def _checked(source: object, **sizes: Any) -> VitsConfig:
    try:
        return VitsConfig.model_validate(sizes)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "its sizes"
        raise WeightsError(
            f"{source} does not describe a VITS network: {where}: {first['msg']}; give a whole "
            "checkpoint"
        ) from error
