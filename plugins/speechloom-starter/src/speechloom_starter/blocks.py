"""The building block of the starter's networks, and their seeded start."""

from __future__ import annotations

from speechloom_speechsec.convnext import (
    ConvNeXtBlock,
    ConvNeXtStack,
    build_seeded,
    initialise_,
    length_mask,
)

__all__ = ["ConvNeXtBlock", "ConvNeXtStack", "build_seeded", "initialise_", "length_mask"]
