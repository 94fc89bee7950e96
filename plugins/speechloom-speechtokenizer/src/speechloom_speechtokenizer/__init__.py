"""SpeechTokenizer (Zhang et al. 2024, arXiv:2308.16692): units and codes from one network.

Importing this imports no torch; `SpeechTokenizerCodec` and `SpeechTokenizerUnits` do, when they
are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from speechloom_speechtokenizer._spec import spec_for

if TYPE_CHECKING:
    from speechloom_speechtokenizer.components import SpeechTokenizerCodec, SpeechTokenizerUnits

__all__ = ["SpeechTokenizerCodec", "SpeechTokenizerUnits", "spec_for"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.components"), name)
