"""What all fakes share: a spec of their own, no weights, and a host to run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from speechloom.errors import UsageError
from speechloom.spec import ComponentSpec
from speechloom.weightless import Weightless

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Fake"]


class Fake(Weightless):
    """Base of the fakes; they are data and arithmetic, so every way to build one is the same."""

    default_spec: ClassVar[ComponentSpec]

    def __init__(self, spec: ComponentSpec | None = None) -> None:
        super().__init__(spec or self.default_spec)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """Build it; `device` can only be ``cpu``."""
        if device != "cpu":
            raise UsageError(f"fakes run on cpu only, not on {device!r}; leave device out")
        return cls(spec)
