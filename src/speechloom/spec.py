"""What a component says of itself before any of its code is loaded.

A plugin's entry point names a `ComponentSpec`: light, frozen data that the registry lists and the
router reasons over. The module that holds it imports neither torch nor the implementation.

Values travel between components under a *kind*, a string of two parts:

========================  ===========================================================
``phones:<alphabet>``     phones of one alphabet, from a front end
``tokens:<vocabulary>``   content units [B, F] of one vocabulary
``codes:<codec>``         acoustic codes [B, K, F] of one codec
``features:<kind>``       features [B, D, F], the kind naming their exact parameters
``audio``                 samples
========================  ===========================================================
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from speechloom.errors import UsageError

__all__ = [
    "API_VERSION",
    "KINDS",
    "TASKS",
    "AlignerFacts",
    "CodecFacts",
    "ComponentSpec",
    "Facts",
    "FrontendFacts",
    "GeneratorFacts",
    "Rate",
    "SpeakerEncoderFacts",
    "TokenizerFacts",
    "VocoderFacts",
]

API_VERSION = "1.0"
"""The version of the component protocols that this core speaks (major.minor)."""

Kind = Literal[
    "tokenizer", "codec", "generator", "vocoder", "frontend", "speaker_encoder", "aligner"
]
Task = Literal["synthesize", "edit", "continue", "convert"]
"""What a user can ask for."""

KINDS: tuple[Kind, ...] = (
    "tokenizer",
    "codec",
    "generator",
    "vocoder",
    "frontend",
    "speaker_encoder",
    "aligner",
)
"""All kinds of components, in the order of the listings."""
TASKS: tuple[Task, ...] = ("synthesize", "edit", "continue", "convert")
"""All tasks, in the order of the listings."""


def _as_fraction(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f"rate {value} is a float; write it exactly, as 50 or '44100/512'")
    try:
        return Fraction(value) if isinstance(value, (str, int)) else value
    except ZeroDivisionError as error:
        raise ValueError(f"rate {value!r} divides by zero") from error


Rate = Annotated[
    Fraction,
    BeforeValidator(_as_fraction),
    PlainSerializer(str, return_type=str),
    Field(gt=0),
]
"""Frames per second as an exact fraction: ``50``, ``"44100/512"``. Never a rounded float."""


class Facts(BaseModel):
    """Base of the facts: frozen, and unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class TokenizerFacts(Facts):
    """Audio in, content out: tokens [B, F], or features [B, D, F].

    Attributes:
        vocabulary: name of the id set, or of the feature kind; equal names mean interchangeable
            content.
        vocabulary_size: ids are 0 to vocabulary_size - 1; of features it is D.
        sample_rate: Hz that the model works at; other rates are resampled by the core.
        frame_rate: tokens per second.
        context_frames: frames on either side that one token can depend on; None when unbounded.
        max_seconds: the longest audio taken in one call; None when there is no limit.
        form: ``tokens`` (ids) or ``features`` (continuous content).
    """

    kind: Literal["tokenizer"] = "tokenizer"
    vocabulary: str
    vocabulary_size: int = Field(gt=1)
    sample_rate: int = Field(gt=0)
    frame_rate: Rate
    context_frames: int | None = None
    max_seconds: float | None = None
    form: Literal["tokens", "features"] = "tokens"

    @property
    def gives(self) -> str:
        """The kind of its content."""
        return f"{self.form}:{self.vocabulary}"


class CodecFacts(Facts):
    """Audio to codes [B, K, F] and back.

    Attributes:
        codes: name of the code set; a generator that was trained on it names the same.
        sample_rate: Hz.
        frame_rate: frames per second.
        codebooks: K.
        codebook_size: ids per codebook.
        channels: channels of the audio that it takes and gives.
        context_frames: frames on either side that one decoded frame depends on; None when
            unbounded, and then decoding cannot be streamed.
        max_seconds: the longest audio taken in one call; None when there is no limit.
    """

    kind: Literal["codec"] = "codec"
    codes: str
    sample_rate: int = Field(gt=0)
    frame_rate: Rate
    codebooks: int = Field(gt=0)
    codebook_size: int = Field(gt=1)
    channels: int = Field(default=1, gt=0)
    context_frames: int | None = None
    max_seconds: float | None = None

    @property
    def takes(self) -> str:
        """The kind of its codes."""
        return f"codes:{self.codes}"


class GeneratorFacts(Facts):
    """Fills a canvas.

    Attributes:
        tasks: the tasks whose canvases it can fill.
        content: kinds of content that it takes (``phones:...``, ``tokens:...``,
            ``features:...``).
        content_size: D of the features that it takes as content; None when it takes none.
        gives: kind of what it fills in (``tokens:``, ``codes:``, ``features:`` or ``audio``).
        frame_rate: frames per second of its canvas.
        codebooks: K of its canvas (1 for tokens).
        codebook_size: ids per codebook.
        free_tasks: tasks that it can do with no content at all.
        voice: the speaker encoder kind whose vectors it takes; None when it takes no voice.
        voice_size: D of those vectors.
        voice_required: whether it refuses to run without a voice.
        styles: style controls that it honours, such as ``rate``.
        languages: BCP 47 codes; empty when it does not depend on the language.
        max_seconds: the longest canvas that it fills well.
        sample_rate: Hz, only where it gives audio itself.
    """

    kind: Literal["generator"] = "generator"
    tasks: tuple[Task, ...] = Field(min_length=1)
    content: tuple[str, ...]
    content_size: int | None = Field(default=None, gt=0)
    gives: str
    frame_rate: Rate
    codebooks: int = Field(default=1, gt=0)
    codebook_size: int = Field(gt=1)
    free_tasks: tuple[Task, ...] = ()
    voice: str | None = None
    voice_size: int | None = Field(default=None, gt=0)
    voice_required: bool = False
    styles: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    max_seconds: float = Field(default=30.0, gt=0)
    sample_rate: int | None = None

    @field_validator("content")
    @classmethod
    def _content_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if not kind.startswith(("phones:", "tokens:", "features:")):
                raise ValueError(
                    f"content kind {kind!r} must start with phones:, tokens: or features:"
                )
        return value

    @field_validator("gives")
    @classmethod
    def _gives_kind(cls, value: str) -> str:
        if value != "audio" and not value.startswith(("tokens:", "codes:", "features:")):
            raise ValueError(f"gives {value!r} must be audio, tokens:, codes: or features:")
        return value

    @model_validator(mode="after")
    def _audio_has_a_rate(self) -> GeneratorFacts:
        if (self.gives == "audio") != (self.sample_rate is not None):
            raise ValueError("sample_rate belongs to a generator that gives audio, and only there")
        takes_features = any(kind.startswith("features:") for kind in self.content)
        if takes_features != (self.content_size is not None):
            raise ValueError("content_size belongs to a generator that takes features as content")
        if self.voice_required and self.voice is None:
            raise ValueError("voice_required needs the voice kind to be named")
        return self


class VocoderFacts(Facts):
    """Features [B, D, F] to audio.

    Attributes:
        features: the feature kind that it takes; its name fixes every parameter.
        any_mel: whether it can be built for every kind of mel spectrogram
            (`speechloom.mel.MelSpec`), of which `features` then names one. It is a fallback: a
            vocoder of the very kind goes before it.
        size: D, values per frame.
        sample_rate: Hz.
        frame_rate: feature frames per second.
        context_frames: frames on either side that one output frame depends on, or None.
    """

    kind: Literal["vocoder"] = "vocoder"
    features: str
    size: int = Field(gt=0)
    sample_rate: int = Field(gt=0)
    frame_rate: Rate
    context_frames: int | None = None
    any_mel: bool = False

    @property
    def takes(self) -> str:
        """The kind of its features."""
        return f"features:{self.features}"

    def playing(self, kind: str) -> VocoderFacts:
        """These facts for a kind that it can be built for; as they are for any other.

        Args:
            kind: as `takes` gives it.
        """
        if not self.any_mel or kind == self.takes:
            return self
        from speechloom.mel import MelSpec

        try:
            mel = MelSpec.from_kind(kind)
        except UsageError:
            return self
        changed = {
            "features": mel.kind,
            "size": mel.bands,
            "sample_rate": mel.rate,
            "frame_rate": mel.frame_rate,
        }
        return self.model_copy(update=changed)


class FrontendFacts(Facts):
    """Text to phones.

    Attributes:
        alphabet: name of the phone set.
        phones: the phones, in the order of their ids.
        pause: the phone that stands for silence.
        languages: BCP 47 codes that it speaks.
    """

    kind: Literal["frontend"] = "frontend"
    alphabet: str
    phones: tuple[str, ...] = Field(min_length=2)
    pause: str
    languages: tuple[str, ...] = Field(min_length=1)

    @property
    def gives(self) -> str:
        """The kind of its phones."""
        return f"phones:{self.alphabet}"


class SpeakerEncoderFacts(Facts):
    """Audio to a voice vector [D].

    Attributes:
        voice: name of the vector space; a generator that was trained on it names the same.
        size: D.
        sample_rate: Hz.
        min_seconds: shorter references are refused.
        named_voices: voices that come with it, by name.
        recordings: whether it takes voices from recordings; a table of trained voices does not.
    """

    kind: Literal["speaker_encoder"] = "speaker_encoder"
    voice: str
    size: int = Field(gt=0)
    sample_rate: int = Field(gt=0)
    min_seconds: float = 0.5
    named_voices: tuple[str, ...] = ()
    recordings: bool = True

    @model_validator(mode="after")
    def _gives_voices(self) -> SpeakerEncoderFacts:
        if not self.recordings and not self.named_voices:
            raise ValueError("an encoder that takes no recordings must have named voices")
        return self


class AlignerFacts(Facts):
    """Audio and its phones to the time of each.

    Attributes:
        alphabet: phone set that it takes.
        sample_rate: Hz.
        frame_rate: resolution of the times, frames per second.
        languages: BCP 47 codes.
        max_seconds: the longest audio taken in one call.
    """

    kind: Literal["aligner"] = "aligner"
    alphabet: str
    sample_rate: int = Field(gt=0)
    frame_rate: Rate
    languages: tuple[str, ...] = Field(min_length=1)
    max_seconds: float | None = None


AnyFacts = Annotated[
    TokenizerFacts
    | CodecFacts
    | GeneratorFacts
    | VocoderFacts
    | FrontendFacts
    | SpeakerEncoderFacts
    | AlignerFacts,
    Field(discriminator="kind"),
]


class ComponentSpec(BaseModel):
    """One component, as its entry point announces it.

    Attributes:
        id: short name, unique among the components of its kind.
        implementation: ``package.module:Class``; imported only when the component is loaded.
        facts: what it takes and gives; its type says what kind of component this is.
        summary: one line for listings.
        api_version: version of the component protocols that it was written for.
        license: SPDX id of the code.
        weights_license: SPDX id, or a sentence, of the weights; None when it has none.
        requires: distributions that must be installed, as PEP 508 requirements.
        install: the command that installs it, shown when it is missing.
        homepage: where to read more.
        options: keyword arguments given to ``from_pretrained`` of the implementation, so that
            one class can serve several components. ``checkpoint`` is where its weights are, as
            `speechloom.checkpoints.find_checkpoint` takes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    implementation: str = Field(pattern=r"^[\w.]+:\w+$")
    facts: AnyFacts
    summary: str = Field(min_length=1, max_length=120)
    api_version: str = Field(default=API_VERSION, pattern=r"^\d+\.\d+$")
    license: str
    weights_license: str | None = None
    requires: tuple[str, ...] = ()
    install: str = ""
    homepage: str = ""
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Which protocol it implements."""
        return self.facts.kind

    @property
    def has_weights_at_hand(self) -> bool:
        """Whether its weights come with a package or lie on this disk; others are fetched first."""
        from speechloom.checkpoints import is_at_hand

        checkpoint = self.options.get("checkpoint")
        return checkpoint is None or is_at_hand(checkpoint)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks that it claims; empty for components that serve every task."""
        return self.facts.tasks if isinstance(self.facts, GeneratorFacts) else ()
