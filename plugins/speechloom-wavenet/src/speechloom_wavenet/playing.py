"""What every vocoder owes its callers: refusing foreign features, and taking off the padding."""

from __future__ import annotations

from torch import Tensor

from speechloom.errors import UsageError
from speechloom.spec import VocoderFacts
from speechloom.values import Features

__all__ = ["items_of"]


def items_of(facts: VocoderFacts, features: Features) -> list[Tensor]:
    """The items of a batch without padding, each [D, F].

    Raises:
        UsageError: the features are of another kind or size, or an item has no frames.
    """
    if features.kind != facts.takes or features.values.shape[1] != facts.size:
        raise UsageError(
            f"features must be {facts.takes} [B, {facts.size}, F], but are {features.kind} "
            f"{list(features.values.shape)} instead; the names of mel kinds say what differs, "
            "and MelSpec.convert makes one of another where that is exact"
        )
    empty = [index for index, length in enumerate(features.lengths.tolist()) if length == 0]
    if empty:
        raise UsageError(f"item {empty[0]} of the features has no frames; leave it out")
    values, lengths = features.values.detach(), features.lengths.tolist()
    return [values[index, :, :length] for index, length in enumerate(lengths)]
