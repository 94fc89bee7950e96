"""The sizes of the two networks. Light: imports no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Ge2eConfig", "TacotronConfig"]


class Ge2eConfig(BaseModel):
    """Sizes of a GE2E speaker encoder (Wan et al. 2018, arXiv:1710.10467).

    Attributes:
        bands: mel bands of its input.
        hidden: units of each LSTM layer.
        layers: LSTM layers.
        size: D of the embedding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: int = Field(default=40, gt=0)
    hidden: int = Field(default=256, gt=0)
    layers: int = Field(default=3, gt=0)
    size: int = Field(default=256, gt=0)


class TacotronConfig(BaseModel):
    """Sizes of a Tacotron 2 (Shen et al. 2018, arXiv:1712.05884); the defaults are the paper's.

    Attributes:
        symbols: entries of the embedding, the unused one for padding included.
        bands: mel bands per frame.
        reduction: frames that one decoder step gives.
        embedding: size of a symbol's embedding, and of the encoder's convolutions.
        encoder_layers: convolutions of the encoder.
        encoder_kernel: their width, symbols.
        encoder: units of the bidirectional LSTM, both directions together.
        voice: D of the speaker vector that is joined to every encoder step; 0 for none.
        prenet: units of each of the two pre-net layers.
        attention_rnn: units of the LSTM that asks the attention.
        decoder_rnn: units of the LSTM that speaks.
        attention: size in which queries and memory are compared.
        location_filters: convolutions over earlier attention weights.
        location_kernel: their width, symbols.
        postnet: channels of the post-net.
        postnet_layers: convolutions of the post-net.
        postnet_kernel: their width, frames.
        withheld: share of the decoder's steps that do not hear the frame before them; as with the
            pre-net's dropout, in training and in speaking.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    symbols: int = Field(default=148, gt=1)
    bands: int = Field(default=80, gt=0)
    reduction: int = Field(default=1, gt=0)
    embedding: int = Field(default=512, gt=0)
    encoder_layers: int = Field(default=3, gt=0)
    encoder_kernel: int = Field(default=5, gt=0)
    encoder: int = Field(default=512, gt=0)
    voice: int = Field(default=0, ge=0)
    prenet: int = Field(default=256, gt=0)
    attention_rnn: int = Field(default=1024, gt=0)
    decoder_rnn: int = Field(default=1024, gt=0)
    attention: int = Field(default=128, gt=0)
    location_filters: int = Field(default=32, gt=0)
    location_kernel: int = Field(default=31, gt=0)
    postnet: int = Field(default=512, gt=0)
    postnet_layers: int = Field(default=5, gt=1)
    postnet_kernel: int = Field(default=5, gt=0)
    withheld: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _shapes_fit(self) -> TacotronConfig:
        if self.encoder % 2:
            raise ValueError(f"encoder must be even, for two directions, but is {self.encoder}")
        for name in ("encoder_kernel", "location_kernel", "postnet_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, but is {getattr(self, name)}")
        return self

    @property
    def memory(self) -> int:
        """Size of an encoder step with the speaker vector joined to it."""
        return self.encoder + self.voice

    @classmethod
    def tiny(cls, *, symbols: int, bands: int, voice: int, reduction: int = 1) -> TacotronConfig:
        """A network for tests: the same parts, nothing larger than 16."""
        return cls(
            symbols=symbols,
            bands=bands,
            reduction=reduction,
            embedding=8,
            encoder=8,
            voice=voice,
            prenet=8,
            attention_rnn=16,
            decoder_rnn=16,
            attention=8,
            location_filters=4,
            location_kernel=7,
            postnet=8,
        )
