"""English text to phones, offline: normalization, a dictionary, letter-to-sound rules learned.

Importing this package imports no torch; the letter-to-sound network does, when a word needs it.
"""

from __future__ import annotations

from speechloom_starter.english.frontend import Utterance, Word, phonemize
from speechloom_starter.english.lexicon import parse_lexicon, read_lexicon
from speechloom_starter.english.normalization import normalize
from speechloom_starter.english.sentences import split_sentences

__all__ = [
    "Utterance",
    "Word",
    "normalize",
    "parse_lexicon",
    "phonemize",
    "read_lexicon",
    "split_sentences",
]
