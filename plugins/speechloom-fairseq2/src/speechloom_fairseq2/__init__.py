"""Content units from fairseq2's wav2vec 2.0 and w2v-BERT encoders and k-means.

Importing this imports neither torch nor fairseq2; `Fairseq2Tokenizer` does, when it is first asked
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechloom_fairseq2._spec import spec_for

if TYPE_CHECKING:
    from speechloom_fairseq2.tokenizer import Fairseq2Tokenizer

__all__ = ["Fairseq2Tokenizer", "spec_for"]


def __getattr__(name: str) -> Any:
    if name != "Fairseq2Tokenizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speechloom_fairseq2 import tokenizer

    return tokenizer.Fairseq2Tokenizer
