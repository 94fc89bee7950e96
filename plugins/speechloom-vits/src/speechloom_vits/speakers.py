"""The voices that a checkpoint was trained on, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from speechloom.errors import UnsupportedCapability, UsageError, WeightsError
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, SpeakerEncoderFacts
from speechloom.values import Audio, Voice
from speechloom_vits.tiny import build_tiny
from speechloom_vits.weights import read_weights

__all__ = ["SpeakerTable"]

TABLE = "embed_speaker.weight"


class SpeakerTable(PublishedComponent):
    """Voices by name; none can be taken from a recording.

    Args:
        spec: made by `speechloom_vits.specs_for` or by an export.
        table: float32 [speakers, D].
        weights: sha256 by file name.
    """

    def __init__(
        self, spec: ComponentSpec, table: Tensor, *, weights: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(spec, weights)
        self._table = table.detach().to("cpu", torch.float32)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> SpeakerTable:
        """The table of the checkpoint that ``spec.options`` names; it stays on the CPU.

        Raises:
            WeightsError: it cannot be found, is damaged, or has no such table.
        """
        read = read_weights(spec)
        if TABLE not in read.tensors:
            raise WeightsError(f"{read.source} has no {TABLE}; it is a checkpoint of one voice")
        return cls(spec, read.tensors[TABLE], weights=read.hashes)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> SpeakerTable:
        """Random voices of the same names."""
        return cls(spec, build_tiny(spec, seed, posterior=False).embed_speaker.weight)

    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """Refuse: the checkpoint speaks in the voices that it was trained on.

        Raises:
            UnsupportedCapability: always; the message lists the voices.
        """
        raise UnsupportedCapability(
            f"{self.spec.id} cannot take a voice from a recording; name one of "
            f"{', '.join(self._facts.named_voices)}"
        )

    def named(self, name: str) -> Voice:
        """A voice of the table.

        Raises:
            UsageError: no voice has that name.
        """
        names = self._facts.named_voices
        if name not in names:
            raise UsageError(f"no voice is called {name!r}; the voices are {', '.join(names)}")
        return Voice(self._table[names.index(name)].numpy(), self._facts.voice, name)

    @property
    def _facts(self) -> SpeakerEncoderFacts:
        facts = self.spec.facts
        assert isinstance(facts, SpeakerEncoderFacts)
        return facts
