"""The sizes of X-E-Speech. Light: imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speechloom.errors import WeightsError
from speechloom.mel import MelSpec
from speechloom_vits.config import DecoderConfig, VitsConfig

__all__ = ["Alphabet", "XEConfig", "XESizes"]

_DECODER = DecoderConfig(rates=(10, 8, 2, 2), kernels=(20, 16, 4, 4), speaker_size=256)


class XESizes(BaseModel):
    """Sizes of the networks.

    Attributes:
        voice: of the parts that are those of VITS; its decoder's ``speaker_size`` is that of the
            style vector, and ``spectrum_bins`` is not used.
        content_size: D of the content features: of the Whisper encoder.
        bands: of the mel spectrogram of the posterior and the style encoder.
        content_layers: of the posterior encoder of the content.
        attention_layers: of the transformer in each coupling of the two flows.
        style_layers: of the recurrent style encoder.
        style_hidden: inside it.
        language_size: of the language vector.
        languages: codes, in the order of their vectors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    voice: VitsConfig = VitsConfig(symbols=203, decoder=_DECODER)
    content_size: int = Field(default=1280, gt=0)
    bands: int = Field(default=80, gt=0)
    content_layers: int = Field(default=16, gt=0)
    attention_layers: int = Field(default=2, ge=0)
    style_layers: int = Field(default=3, gt=0)
    style_hidden: int = Field(default=256, gt=0)
    language_size: int = Field(default=256, gt=0)
    languages: tuple[str, ...] = Field(default=("en",), min_length=1)

    @model_validator(mode="after")
    def _has_a_style(self) -> XESizes:
        if self.voice.speaker_size == 0:
            raise ValueError("voice.decoder.speaker_size, that of the style, must be above 0")
        return self

    @classmethod
    def changed(cls, changes: Mapping[str, Any]) -> XESizes:
        """The published sizes but for `changes`, which may be nested.

        Raises:
            ValueError: they disagree.
        """
        return cls.model_validate(_changed(cls().model_dump(), changes))

    @property
    def mel(self) -> MelSpec:
        """The mel spectrogram that the network sees: 1024 points, natural logarithm."""
        rate, hop = self.voice.sample_rate, self.voice.hop
        window = max(1024, hop)
        return MelSpec(
            rate=rate,
            fft=window,
            win=window,
            hop=hop,
            bands=self.bands,
            low=0,
            high=rate / 2,
            edges="hop",
        )


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    nested = {
        name: _changed(values[name], change)
        for name, change in changes.items()
        if isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
    }
    return {**values, **changes, **nested}


class Alphabet(BaseModel):
    """The phones of one front end.

    Attributes:
        phones: in the order of their ids there.
        pause: which of them is silence.
        language: whose vector goes with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phones: tuple[str, ...]
    pause: str
    language: str


class XEConfig(BaseModel):
    """The content of a checkpoint's ``config.json``.

    Attributes:
        format: ``speechloom-xe-1``.
        sizes: of the networks.
        symbols: of the text, in the order of their vectors.
        alphabets: by name; their phones are among the symbols.
        content: name of the feature kind that it takes.
        content_language: whose vector goes with content from a recording.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "speechloom-xe-1"
    sizes: XESizes
    symbols: tuple[str, ...]
    alphabets: Mapping[str, Alphabet]
    content: str
    content_language: str

    @classmethod
    def read(cls, path: Path) -> XEConfig:
        """Read it.

        Raises:
            WeightsError: it is not such a file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise WeightsError(
                f"{path} is no configuration of X-E-Speech: {error.errors()[0]['msg']}; export the "
                "run again"
            ) from error
