"""Build ``data/lexicon.txt.xz``: CMU dictionary words with the phones of the flite engine.

``python -m speechloom_starter.english.build_lexicon DICTIONARY OUT`` needs the program ``flite``.
The starter's network learned from flite's phones, so flite's choice is kept wherever it agrees with
a pronunciation in the CMU dictionary up to weak vowels. Elsewhere flite guessed by its letter rules
or has an older entry: then the CMU pronunciation is taken, with its unstressed AH (the dictionary
in use carries no stress) told from the stressed one by lining it up with flite's phones.
"""

from __future__ import annotations

import argparse
import logging
import lzma
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from speechloom.errors import BackendUnavailable
from speechloom_starter.english.lexicon import WORD, encode_phones

_LOG = logging.getLogger(__name__)
_WORDS_PER_CALL = 2000
_VOWEL_GROUPS = ({"ax", "ah", "ih", "iy", "eh"}, {"aa", "ao"}, {"uh", "uw"})
_VOWELS = frozenset("aa ae ah ao aw ax ay eh er ey ih iy ow oy uh uw".split())

Variants = dict[str, list[tuple[str, ...]]]


def read_cmu(text: str) -> Variants:
    """Parse the CMU dictionary: word to its variants, first one first, lower case, no stress."""
    variants: Variants = {}
    for line in text.splitlines():
        fields = line.partition("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", fields[0]).lower() if fields else ""
        if len(fields) > 1 and WORD.fullmatch(word):
            phones = tuple(phone.lower().rstrip("012") for phone in fields[1:])
            variants.setdefault(word, []).append(phones)
    return variants


def speak(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Phones that flite says for each word alone."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "words.txt")
        path.write_text("\n\n".join(words) + "\n", encoding="ascii")
        command = ["flite", "-voice", "kal16", "-f", str(path), "-ps", "none"]
        try:
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except FileNotFoundError as error:
            raise BackendUnavailable(
                "the program flite is not installed; install the package flite", plugin="flite"
            ) from error
    spoken = [tuple(part.split()) for part in re.findall(r"pau (.*?)pau\b(?=\s*(?:pau|$))", output)]
    if len(spoken) == len(words):
        return spoken
    if len(words) == 1:
        return [tuple(phone for phone in output.split() if phone != "pau")]
    middle = len(words) // 2
    return speak(words[:middle]) + speak(words[middle:])


def choose(word: str, flite: tuple[str, ...], variants: list[tuple[str, ...]]) -> tuple[str, ...]:
    """One pronunciation for a word; see the module for the rule."""
    if word.endswith("n't") or any(_agree(flite, variant) for variant in variants):
        return flite
    return _reduce(variants[0], flite)


def _agree(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or any({a, b} <= group for group in _VOWEL_GROUPS)
        for a, b in zip(one, other, strict=True)
    )


def _reduce(phones: tuple[str, ...], flite: tuple[str, ...]) -> tuple[str, ...]:
    """Turn AH into ax where flite has ax, or where nothing lines up in a longer word."""
    likely = "ax" if sum(phone in _VOWELS for phone in phones) > 1 else "ah"
    reduced = [likely if phone == "ah" else phone for phone in phones]
    folded = ["ah" if phone == "ax" else phone for phone in flite]
    for block in SequenceMatcher(None, phones, folded, autojunk=False).get_matching_blocks():
        reduced[block.a : block.a + block.size] = flite[block.b : block.b + block.size]
    return tuple(reduced)


def lexicon_lines(variants: Variants) -> Iterator[str]:
    """Lines of the shipped file, sorted by word."""
    words = sorted(variants)
    for start in range(0, len(words), _WORDS_PER_CALL):
        batch = words[start : start + _WORDS_PER_CALL]
        for word, flite in zip(batch, speak(batch), strict=True):
            yield f"{word} {encode_phones(choose(word, flite, variants[word]))}"
        _LOG.info("%d of %d words", start + len(batch), len(words))


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Build the English lexicon of the starter.")
    parser.add_argument("dictionary", type=Path, help="CMU dictionary, plain text")
    parser.add_argument("out", type=Path, help="lexicon.txt.xz")
    options = parser.parse_args()
    lines = "\n".join(lexicon_lines(read_cmu(options.dictionary.read_text(encoding="latin-1"))))
    packed = lzma.compress(lines.encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
    options.out.write_bytes(packed)
    _LOG.info("%s: %d bytes", options.out, len(packed))


if __name__ == "__main__":
    main()
