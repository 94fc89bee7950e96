"""What all fakes share: a spec, no weights, and two ways to be built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from speechloom.errors import UsageError
from speechloom.spec import ComponentSpec

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Fake"]


class Fake:
    """Base of the fakes; they are data and arithmetic, so every way to build one is the same."""

    default_spec: ClassVar[ComponentSpec]

    def __init__(self, spec: ComponentSpec | None = None) -> None:
        self._spec = spec or self.default_spec

    @property
    def spec(self) -> ComponentSpec:
        """The spec that it was built for."""
        return self._spec

    @property
    def weights(self) -> Mapping[str, str]:
        """Empty: a fake has none."""
        return {}

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """Build it; `device` can only be ``cpu``."""
        if device != "cpu":
            raise UsageError(f"fakes run on cpu only, not on {device!r}; leave device out")
        return cls(spec)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """Build it; there is nothing random about it."""
        del seed
        return cls(spec)
