"""A base for components that hold weights."""

from __future__ import annotations

from collections.abc import Mapping

from speechloom.spec import ComponentSpec

__all__ = ["Weighted"]


class Weighted:
    """What every component has, for one with weights: its spec, and which weights it uses.

    No component must derive from it: the protocols are structural. See also
    `speechloom.weightless.Weightless`, and `speechloom.published.PublishedComponent`, which also
    says what `weight_files` are.

    Args:
        spec: that it was built from.
        weights: sha256 by file name; None or empty for random weights.
    """

    def __init__(self, spec: ComponentSpec, weights: Mapping[str, str] | None = None) -> None:
        self._spec = spec
        self._weights = dict(weights or {})

    @property
    def spec(self) -> ComponentSpec:
        """The spec that it was built from."""
        return self._spec

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of each weight file in use; empty for random weights."""
        return self._weights
