"""The seven protocols: what a component must do to take part.

Four make speech, `Tokenizer`, `Codec`, `Generator` and `Vocoder`; three serve them, `Frontend`,
`SpeakerEncoder` and `Aligner`. All are structural: no base class is needed. Facts are read-only and
live in ``spec.facts``. `speechloom.testing.check_plugin` proves an implementation.

Every method is deterministic in its arguments, keeps no gradients, leaves the global random state
alone and moves nothing to a device that the caller did not name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from speechloom.spec import ComponentSpec
from speechloom.values import Audio, Canvas, Codes, Features, Phones, Tokens, Voice

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Aligner",
    "Codec",
    "Component",
    "Frontend",
    "Generator",
    "HasWeightFiles",
    "SpeakerEncoder",
    "Tokenizer",
    "Vocoder",
    "WeightFile",
]


@runtime_checkable
class Component(Protocol):
    """What all seven share."""

    @property
    def spec(self) -> ComponentSpec:
        """The spec that the entry point announced."""
        ...

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of each weight file in use, by file name; empty without weights."""
        ...

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """Build it with its weights, on one device.

        Raises:
            WeightsError: weights are missing or damaged.
            BackendUnavailable: something that it needs is not installed.
        """
        ...

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """Build it tiny, with random weights: no files, no network; for tests."""
        ...


@dataclass(frozen=True)
class WeightFile:
    """A weight file of a component.

    Attributes:
        path: where it is, or would be.
        sha256: the hash that the plugin promises.
    """

    path: Path
    sha256: str


@runtime_checkable
class HasWeightFiles(Protocol):
    """What a component class adds so that ``speechloom models`` can list and verify its weights."""

    def weight_files(self, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """Weight files by name; a class method, nothing is loaded."""
        ...


@runtime_checkable
class Tokenizer(Component, Protocol):
    """Audio to content: units, or features where its facts say so."""

    def encode(self, audio: Sequence[Audio]) -> Tokens | Features:
        """Encode a batch.

        Args:
            audio: B recordings of any rate and channel count.

        Returns:
            Tokens [B, F] or Features [B, D, F], as the facts name it; item i has
            ceil(seconds_i x frame_rate) frames.
        """
        ...


@runtime_checkable
class Codec(Component, Protocol):
    """Audio to acoustic codes and back."""

    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Encode a batch; item i has ceil(seconds_i x frame_rate) frames."""
        ...

    def decode(self, codes: Codes) -> list[Audio]:
        """Decode a batch.

        Returns:
            One Audio per item at the codec's own rate: exactly as many samples as its frames last
            (rounded to the sample; the caller trims what was padded before encoding).

        Raises:
            UsageError: the codes are of another codec.
        """
        ...


@runtime_checkable
class Generator(Component, Protocol):
    """Fills a canvas.

    One that takes phones also says how long they last; one that gives audio says so in its facts
    and returns a list of `Audio`.
    """

    def fill(self, canvas: Canvas) -> Codes | Tokens | Features | list[Audio]:
        """Fill what is not known; what is known comes back unchanged.

        Args:
            canvas: of a task and a kind that the facts name.

        Returns:
            The kind that the facts name, with the canvas's lengths.

        Raises:
            UnsupportedCapability: a task, content or voice that it does not claim.
        """
        ...

    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Frames that each phone lasts, at least 1 each.

        Args:
            phones: B utterances.
            rate: speed of speech; 2.0 is twice as fast.
            voices: one per utterance, where the tempo depends on the voice.
            seed: names the draws of a generator that draws durations; an utterance's depend on
                the seed alone, not on the utterances beside it.

        Raises:
            UnsupportedCapability: it takes no phones.
        """
        ...


@runtime_checkable
class Vocoder(Component, Protocol):
    """Features to audio."""

    def render(self, features: Features) -> list[Audio]:
        """Render a batch: as many samples per item as its frames last."""
        ...


@runtime_checkable
class Frontend(Component, Protocol):
    """Text to phones."""

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """Split into sentences and spell each in phones.

        Args:
            text: plain text; ``[[hh ax l ow]]`` gives phones directly.
            lexicon: pronunciations that go before its own, by lower-case word.

        Returns:
            One per sentence, nothing left out, with words and their place in `text`.

        Raises:
            TextError: there is nothing to say, or a script that it does not know.
        """
        ...


@runtime_checkable
class SpeakerEncoder(Component, Protocol):
    """A recording to a voice."""

    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """One voice per recording.

        Raises:
            AudioError: a recording is too short or silent.
        """
        ...

    def named(self, name: str) -> Voice:
        """A voice that comes with it.

        Raises:
            UsageError: no voice has that name; the message lists those that exist.
        """
        ...


@runtime_checkable
class Aligner(Component, Protocol):
    """Where each phone lies in a recording."""

    def align(self, audio: Audio, phones: Sequence[Phones]) -> list[list[tuple[float, float]]]:
        """Align consecutive utterances with one recording.

        Args:
            audio: the whole recording.
            phones: its sentences in order.

        Returns:
            For each utterance, (start, end) in seconds of each of its phones: monotonic, inside
            the recording; a pause that was not spoken has start equal to end.

        Raises:
            UsageError: the recording is too short for the phones, or longer than the limit.
        """
        ...
