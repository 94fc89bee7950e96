"""The data files of the front end, with the hashes that the package promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from speechloom.protocols import WeightFile

__all__ = ["data_files"]

_FOLDER = Path(__file__).parent / "data"


def data_files() -> Mapping[str, WeightFile]:
    """The lexicon and the letter-to-sound network, by file name."""
    hashes = json.loads((_FOLDER / "MANIFEST.json").read_text())
    return {name: WeightFile(_FOLDER / name, digest) for name, digest in hashes.items()}
