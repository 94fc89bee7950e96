"""Phones of a word that no dictionary has: by its ending, else by the letter-to-sound network.

The network (1.26 million parameters, `g2p_model`) is trained by `train_g2p`; torch is imported when
the first word needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from speechloom.errors import WeightsError

if TYPE_CHECKING:
    from speechloom_starter.english.g2p_model import G2pNetwork

__all__ = ["derive_phones", "guess_phones"]

Phones = tuple[str, ...]

_HISSES = frozenset("s z sh zh ch jh".split())
_VOICELESS = frozenset("p t k f th s sh ch hh".split())
_VOWELS = frozenset("aeiou")
_CONTRACTIONS: dict[str, Phones] = {
    "n't": ("n", "t"),
    "'ll": ("ax", "l"),
    "'ve": ("ax", "v"),
    "'re": ("er",),
    "'d": ("d",),
    "'m": ("ax", "m"),
}
_SUFFIXES: dict[str, Phones] = {
    "ing": ("ih", "ng"),
    "ly": ("l", "iy"),
    "ness": ("n", "ax", "s"),
    "less": ("l", "ax", "s"),
    "ment": ("m", "ax", "n", "t"),
    "ful": ("f", "ax", "l"),
    "er": ("er",),
    "ers": ("er", "z"),
}
_VOWEL_SUFFIXES = frozenset(["ing", "er", "ers", "ed"])


def derive_phones(word: str, lexicon: Mapping[str, Phones]) -> Phones | None:
    """Phones of a known word with an ending: plural, possessive, -ed, -ing, -ly, contractions.

    Args:
        word: lower case.
        lexicon: words that are known.

    Returns:
        Phones, or None when no ending leaves a known word.
    """
    for ending, phones in _CONTRACTIONS.items():
        if word.endswith(ending) and word[: -len(ending)] in lexicon:
            return lexicon[word[: -len(ending)]] + phones
    for base in _plural_bases(word):
        if base in lexicon:
            return lexicon[base] + _plural(lexicon[base][-1])
    if word.endswith("ed"):
        for base in _stems(word, "ed"):
            if base in lexicon:
                return lexicon[base] + _past(lexicon[base][-1])
    for suffix, phones in _SUFFIXES.items():
        if word.endswith(suffix) and len(word) > len(suffix) + 2:
            for base in _stems(word, suffix):
                if base in lexicon:
                    return lexicon[base] + phones
    return None


def _plural_bases(word: str) -> list[str]:
    if word.endswith(("'s", "s'")):
        return [word[:-2], word[:-1]] if word.endswith("'s") else [word[:-1], word[:-2]]
    bases = []
    if len(word) > 3 and word.endswith("s") and word[-2] not in "s'":
        bases.append(word[:-1])
        if word.endswith("ies"):
            bases.append(word[:-3] + "y")
        elif word.endswith("es"):
            bases.append(word[:-2])
    return bases


def _plural(last: str) -> Phones:
    if last in _HISSES:
        return ("ax", "z")
    return ("s",) if last in _VOICELESS else ("z",)


def _past(last: str) -> Phones:
    if last in ("t", "d"):
        return ("ax", "d")
    return ("t",) if last in _VOICELESS else ("d",)


def _stems(word: str, suffix: str) -> list[str]:
    """Words that the suffix may have been put on: plain, with its e, undoubled, with its y."""
    stem = word[: -len(suffix)]
    if len(stem) < 3:
        return []
    stems = [stem]
    if suffix in _VOWEL_SUFFIXES:
        stems.append(stem + "e")
        if stem[-1] == stem[-2] and stem[-1] not in _VOWELS:
            stems.append(stem[:-1])
    if stem.endswith("i") and suffix != "ing":
        stems.append(stem[:-1] + "y")
    return stems


@lru_cache(maxsize=10_000)
def guess_phones(word: str) -> Phones:
    """Ask the letter-to-sound network.

    Args:
        word: lower-case letters and apostrophes, at most 48.

    Returns:
        At least one phone.

    Raises:
        WeightsError: the shipped network is missing or damaged.
    """
    from speechloom_starter.english.g2p_model import decode_words

    return decode_words(_network(), [word])[0] or ("ax",)


@cache
def _network() -> G2pNetwork:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from speechloom_starter.english.g2p_model import G2pConfig, G2pNetwork

    with torch.device("meta"):
        network = G2pNetwork(G2pConfig())
    resource = files("speechloom_starter.english").joinpath("data/g2p.safetensors")
    try:
        with as_file(resource) as path:
            state = {name: value.float() for name, value in load_file(path).items()}
        network.load_state_dict(state, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(
            f"cannot load the letter-to-sound network: {error}; reinstall speechloom-starter"
        ) from error
    return network.eval()
