"""What a checkpoint says of its text: alphabet, rules, language, speakers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechloom.checkpoints import find_checkpoint
from speechloom.errors import WeightsError
from speechloom_vits.characters import TextRules
from speechloom_vits.checkpoint import FORMAT, OwnConfig
from speechloom_vits.config import VitsConfig
from speechloom_vits.symbols import ORIGINAL_SYMBOLS, SPACE, distinct
from speechloom_vits.weights import read_json, read_original

__all__ = ["TextSide", "read_text_side"]

_PUBLIC = {
    "ara": "ar", "ben": "bn", "deu": "de", "ell": "el", "eng": "en", "fas": "fa", "fin": "fi",
    "fra": "fr", "guj": "gu", "hau": "ha", "heb": "he", "hin": "hi", "hun": "hu", "ind": "id",
    "isl": "is", "kan": "kn", "kaz": "kk", "khm": "km", "kor": "ko", "lao": "lo", "lat": "la",
    "mal": "ml", "mar": "mr", "mon": "mn", "mya": "my", "nld": "nl", "pan": "pa", "pol": "pl",
    "por": "pt", "ron": "ro", "rus": "ru", "spa": "es", "sqi": "sq", "swe": "sv", "swh": "sw",
    "tam": "ta", "tel": "te", "tgl": "tl", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur",
    "vie": "vi", "yor": "yo",
}  # fmt: skip
"""Two-letter codes that BCP 47 wants where they exist; other codes of ISO 639-3 stay."""


@dataclass(frozen=True)
class TextSide:
    """What a checkpoint says of its text.

    Attributes:
        config: sizes.
        phones: symbols in the order of their ids.
        pause: which of them is silence.
        languages: BCP 47 codes.
        rules: how text becomes symbols; None where another plugin's front end does that.
        alphabet: its name, where the checkpoint has one.
        speakers: names of the voices, where it has them.
    """

    config: VitsConfig
    phones: tuple[str, ...]
    pause: str
    languages: tuple[str, ...]
    rules: TextRules | None
    alphabet: str | None = None
    speakers: tuple[str, ...] = ()


def read_text_side(
    checkpoint: str | os.PathLike[str],
    *,
    symbols: Sequence[str] = (),
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> TextSide:
    """Read it; arguments as in `speechloom_vits.specs_for`.

    Raises:
        WeightsError: a file is missing or of another model.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file() and path.suffix == ".pth":
        return _of_original(path, symbols)
    found = find_checkpoint(checkpoint, ["config.json"], revision=revision, sha256=sha256)
    content = read_json(found["config.json"])
    if content.get("format") == FORMAT:
        own = OwnConfig.read(found["config.json"])
        return TextSide(
            own.network, own.phones, own.pause, own.languages, None, own.alphabet, own.speakers
        )
    config = VitsConfig.from_transformers(content, found["config.json"])
    files = find_checkpoint(
        checkpoint, ["vocab.json", "tokenizer_config.json"], revision=revision, sha256=sha256
    )
    rules = TextRules.model_validate(read_json(files["tokenizer_config.json"]))
    phones = _phones(read_json(files["vocab.json"]), config.symbols, files["vocab.json"])
    code = (rules.language or "und").split("-")[0]
    return TextSide(config, phones, _pause(phones, rules), (_PUBLIC.get(code, code),), rules)


def _of_original(path: Path, symbols: Sequence[str]) -> TextSide:
    config, _ = read_original(path)
    table = tuple(symbols) or ORIGINAL_SYMBOLS
    if len(table) != config.symbols:
        raise WeightsError(
            f"{path} was trained on {config.symbols} symbols, but {len(table)} are known; give "
            "symbols=... in the order of their ids (symbols.py of the code that trained it)"
        )
    data = read_json(path.parent / "config.json")["data"]
    cleaners = " ".join(data.get("text_cleaners", ()))
    # english_cleaners2 is the one whose result is IPA.
    rules = TextRules(
        add_blank=data.get("add_blank", True),
        phonemize="cleaners2" in cleaners,
        language="eng" if "english" in cleaners else None,
    )
    phones = distinct(table)
    language = "en" if rules.language == "eng" else "und"
    return TextSide(config, phones, _pause(phones, rules), (language,), rules)


def _phones(vocabulary: Mapping[str, object], size: int, source: Path) -> tuple[str, ...]:
    """Symbols by id; ids that the file leaves free are named after themselves."""
    by_id = {number: symbol for symbol, number in vocabulary.items() if isinstance(number, int)}
    outside = [number for number in by_id if not 0 <= number < size]
    if outside or len(by_id) != len(vocabulary):
        raise WeightsError(
            f"{source} must map {size} symbols to ids below {size}; get the checkpoint again"
        )
    return distinct([by_id.get(number, f"<{number}>") for number in range(size)])


def _pause(phones: Sequence[str], rules: TextRules) -> str:
    """What is silence: the blank where there is one, else the space."""
    return SPACE if SPACE in phones and not rules.add_blank else phones[0]
