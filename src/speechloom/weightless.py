"""A base for components that are rules and arithmetic: front ends, and vocoders without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from speechloom.spec import ComponentSpec

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Weightless"]


class Weightless:
    """What every component has, for one that is wholly determined by its spec.

    No component must derive from it: the protocols are structural.

    Args:
        spec: what it was announced as.
    """

    def __init__(self, spec: ComponentSpec) -> None:
        self._spec = spec

    @property
    def spec(self) -> ComponentSpec:
        """The spec that it was built from."""
        return self._spec

    @property
    def weights(self) -> Mapping[str, str]:
        """Empty: it has none."""
        return {}

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """Build it; there is nothing to load, and it runs on the host whatever the device."""
        return cls(spec)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """Build it; there is nothing random about it."""
        return cls(spec)
