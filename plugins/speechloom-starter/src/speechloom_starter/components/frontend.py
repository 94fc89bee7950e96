"""The starter's English front end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec
from speechloom.values import Phones
from speechloom_starter.english import phonemize

__all__ = ["StarterEnglish"]


class StarterEnglish:
    """English text to the ``radio`` phones; see `speechloom_starter.english`."""

    def __init__(self, spec: ComponentSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> ComponentSpec:
        """The spec that the entry point announced."""
        return self._spec

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of the lexicon and of the letter-to-sound network."""
        return {name: file.sha256 for name, file in self.weight_files(self._spec).items()}

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The lexicon and the letter-to-sound network; nothing is loaded."""
        from speechloom_starter.english.files import data_files

        return data_files()

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterEnglish:
        """The front end; it runs on the host."""
        return cls(spec)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterEnglish:
        """The same: it is small and needs no weights that could be random."""
        return cls(spec)

    def phonemize(
        self, text: str, *, lexicon: Mapping[str, Sequence[str]] | None = None
    ) -> list[Phones]:
        """One `Phones` per sentence.

        Raises:
            TextError: nothing to say, letters of another script, or an unknown phone.
        """
        return [utterance.to_phones() for utterance in phonemize(text, lexicon=lexicon)]
