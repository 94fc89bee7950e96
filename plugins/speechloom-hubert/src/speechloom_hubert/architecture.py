"""What a checkpoint's ``config.json`` says of its network: family, size, and how frames lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speechloom.errors import WeightsError

__all__ = ["FAMILIES", "Architecture"]

FAMILIES = ("hubert", "wavlm")
"""Networks that it knows, as `model_type` of a configuration names them."""


@dataclass(frozen=True)
class Architecture:
    """The facts of an encoder that do not depend on its weights.

    Attributes:
        family: ``hubert`` or ``wavlm``.
        width: D, values per frame.
        depth: transformer layers; hidden layers are numbered 0 to depth.
        hop: samples from one frame to the next.
        reach: samples that one frame is computed from by the convolutions.
        layer_normed_convolutions: the convolutions normalise each frame by itself, instead of
            each channel over the whole recording.
    """

    family: str
    width: int
    depth: int
    hop: int
    reach: int
    layer_normed_convolutions: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], source: object) -> Architecture:
        """Read it off a configuration.

        Args:
            config: content of ``config.json``.
            source: where it comes from, for the message.

        Raises:
            WeightsError: another family, or a field is missing.
        """
        family = config.get("model_type")
        if family not in FAMILIES:
            raise WeightsError(
                f"{source} is of the family {family!r}, but speechloom-hubert reads "
                f"{' and '.join(FAMILIES)}; give a checkpoint of one of them"
            )
        try:
            return cls._of_fields(family, config)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise WeightsError(
                f"{source} is not a whole {family} configuration ({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _of_fields(cls, family: str, config: Mapping[str, Any]) -> Architecture:
        reach, hop = 1, 1
        for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
            reach += (_positive(kernel) - 1) * hop
            hop *= _positive(stride)
        return cls(
            family=family,
            width=_positive(config["hidden_size"]),
            depth=_positive(config["num_hidden_layers"]),
            hop=hop,
            reach=reach,
            layer_normed_convolutions=config["feat_extract_norm"] == "layer",
        )

    def frames(self, samples: int) -> int:
        """Frames that cover so many samples: what we give."""
        return math.ceil(samples / self.hop)

    def original_frames(self, samples: int) -> int:
        """Frames that the convolutions give by themselves, without any padding; may be 0."""
        return max(0, (samples - self.reach) // self.hop + 1)


def _positive(size: Any) -> int:
    if int(size) < 1:
        raise ValueError(f"a size of {size}")
    return int(size)
