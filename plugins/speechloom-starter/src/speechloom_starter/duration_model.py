"""How long each phone of the starter's alphabet lasts."""

from __future__ import annotations

from speechloom_speechsec.config import DurationConfig as GeneralConfig
from speechloom_speechsec.duration_model import DurationModel
from speechloom_starter.phones import PHONES

__all__ = ["DurationConfig", "DurationModel"]


class DurationConfig(GeneralConfig):
    """Sizes of the duration network, of the starter's alphabet unless another is given."""

    phones: int = len(PHONES)

    @classmethod
    def tiny(cls) -> DurationConfig:
        """A network small enough for a unit test."""
        return cls(width=16, depth=1)
