"""The folder that holds a trained generator: ``config.json`` and ``model.safetensors``.

Light: importing this imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from speechloom.errors import WeightsError
from speechloom.spec import GeneratorFacts
from speechloom_speechsec.config import DurationConfig, SpeechSECConfig

if TYPE_CHECKING:
    from speechloom.decoding import DecodeConfig

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "CheckpointConfig", "DecodeSettings", "read_config"]

CONFIG_FILE = "config.json"
"""Sizes and decoding settings, in a folder of weights."""
WEIGHTS_FILE = "model.safetensors"
"""The weights themselves, in the same folder."""
THIRDS = 3
"""Content ids per phone: a frame lies in the beginning, the middle or the end of its phone."""


class DecodeSettings(BaseModel):
    """How unknown codes are filled, as it is written down; see `speechloom.decoding.DecodeConfig`.

    Attributes:
        steps: passes of level 0, 1, ...; levels past the end take one.
        schedule: how many positions stay open: ``cosine`` or ``linear``.
        temperature: of the first pass of a level; 0 takes the best ids.
        top_k: keep the k best ids; 0 keeps all.
        top_p: keep the fewest ids that hold this share of the probability.
        guidance: weight of classifier-free guidance; 1 is none, and costs half.
        guided_levels: levels from the first on that are guided; None guides all.
        forbidden: ids that are never drawn.
        annealing: the temperature falls through a level's passes.
        greedy_last: the last pass of a level takes the best ids.
        choice_temperature: noise in the ranking by confidence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[int, ...] = (16,)
    schedule: Literal["cosine", "linear"] = "cosine"
    temperature: float = Field(default=1.0, ge=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    guidance: float = 1.0
    guided_levels: int | None = Field(default=None, ge=0)
    forbidden: tuple[int, ...] = ()
    annealing: bool = True
    greedy_last: bool = True
    choice_temperature: float = Field(default=1.0, ge=0)

    def config(self) -> DecodeConfig:
        """The same for the decoding loop; this imports torch."""
        from speechloom.decoding import DecodeConfig
        from speechloom.ops.masked_decode import SampleConfig

        return DecodeConfig(
            steps=self.steps,
            schedule=self.schedule,
            sample=SampleConfig(
                temperature=self.temperature,
                top_k=self.top_k,
                top_p=self.top_p,
                guidance=self.guidance,
                forbidden=self.forbidden,
            ),
            annealing=self.annealing,
            greedy_last=self.greedy_last,
            choice_temperature=self.choice_temperature,
            guided_levels=self.guided_levels,
        )


class CheckpointConfig(BaseModel):
    """What stands in ``config.json``: everything about a generator but its weights.

    Attributes:
        format: version of this layout.
        facts: what it takes and gives, by the names of the components it was trained with.
        network: sizes of the network.
        decode: how it is decoded.
        free: how a canvas without content is decoded; None as any other.
        phones: the alphabet in the order of its ids, for one that takes phones.
        durations: sizes of its duration network, for one that takes phones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["speechsec-1"] = "speechsec-1"
    facts: GeneratorFacts
    network: SpeechSECConfig
    decode: DecodeSettings = DecodeSettings()
    free: DecodeSettings | None = None
    phones: tuple[str, ...] = ()
    durations: DurationConfig | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> CheckpointConfig:
        facts, network = self.facts, self.network
        takes_phones = any(kind.startswith("phones:") for kind in facts.content)
        pairs: Mapping[str, tuple[object, object]] = {
            "codebooks": (network.codebooks, facts.codebooks),
            "codebook_size": (network.codebook_size, facts.codebook_size),
            "voice_dim": (network.voice_dim, facts.voice_size or 0),
            "durations": (self.durations is not None, takes_phones),
            "phones": (bool(self.phones), takes_phones),
        }
        if self.durations is not None:
            pairs = {
                **pairs,
                "content_vocab": (network.content_vocab, THIRDS * len(self.phones)),
                "phones of the duration network": (self.durations.phones, len(self.phones)),
            }
        for name, (found, wanted) in pairs.items():
            if found != wanted:
                raise ValueError(f"{name} is {found}, but the facts ask for {wanted}")
        return self

    def write(self, folder: Path) -> None:
        """Write ``config.json``."""
        (folder / CONFIG_FILE).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_config(path: Path) -> CheckpointConfig:
    """Read a ``config.json``.

    Raises:
        WeightsError: it is not one of ours, or its parts do not fit each other.
    """
    try:
        return CheckpointConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise WeightsError(
            f"{path} is not the configuration of a SpeechSEC generator: "
            f"{where + ': ' if where else ''}{first['msg']}; give the config.json that was "
            "exported with the weights"
        ) from error
