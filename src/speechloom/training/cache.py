"""Prepared items on disk: one safetensors file each, found by what it was made from.

The name of a file is a hash of the audio's bytes, of what the data say about the example and of the
learner's cache key: an item is remade when any of them changes, and found again wherever the data
are moved to. A file is written whole or not at all, and carries a checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from speechloom.checkpoints import sha256_of
from speechloom.errors import AudioError, OutputError
from speechloom.training.example import Example
from speechloom.training.learner import Item

__all__ = ["AudioHashes", "ItemCache", "item_key"]


class AudioHashes:
    """Content hashes of audio files, remembered as long as a file's size and time do not change.

    Args:
        folder: of the cache; holds ``audio-hashes.jsonl``, which may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "audio-hashes.jsonl"
        self._known: dict[str, str] = {}
        for line in self._file.read_text().splitlines() if self._file.exists() else ():
            try:
                name, digest = json.loads(line)
            except ValueError:  # the last line of a process that was killed
                continue
            self._known[name] = digest

    def of(self, path: Path) -> str:
        """The SHA-256 of a file.

        Raises:
            AudioError: it cannot be read.
        """
        try:
            stat = path.stat()
            name = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
            if name not in self._known:
                self._known[name] = sha256_of(path)
                with self._file.open("a") as file:
                    file.write(json.dumps([name, self._known[name]]) + "\n")
        except OSError as error:
            raise AudioError(f"{error.filename}: {error.strerror}") from error
        return self._known[name]


def item_key(example: Example, audio_sha256: str, cache_key: str) -> str:
    """What names a prepared item: all that it depends on, as hexadecimal digits.

    Args:
        example: its id, place and path are left out.
        audio_sha256: of the file.
        cache_key: of the learner.
    """
    known = {
        "audio": audio_sha256,
        "learner": cache_key,
        "text": example.text,
        "speaker": example.speaker,
        "language": example.language,
        "start": example.start,
        "end": example.end,
        "alignment": example.alignment,
        "tags": dict(example.tags),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


class ItemCache:
    """Items by key.

    Args:
        folder: where they are; made if need be.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"the cache {folder} cannot be made: {error.strerror}") from error

    def path(self, key: str) -> Path:
        """Where an item is, or would be."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def length(self, key: str) -> int | None:
        """Frames of an item; None when it is not here or not whole. Reads the header only."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                return int(file.metadata()["length"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return None

    def read(self, key: str) -> Item | None:
        """An item; None when it is not here or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                item = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                promised = file.metadata()["crc32"]
        except (SafetensorError, OSError, KeyError, TypeError):
            return None
        return item if promised == _checksum(item) else None

    def write(self, key: str, item: Item, length: int) -> None:
        """Keep an item.

        Raises:
            OutputError: it cannot be written.
        """
        from safetensors.torch import save

        # Views share memory, which safetensors refuses; a copy on the CPU does not.
        own = {name: value.detach().cpu().contiguous().clone() for name, value in item.items()}
        data = save(own, {"length": str(length), "crc32": _checksum(own)})
        path = self.path(key)
        # Moved into place, so that no half item is seen, but not forced to the disk one by one: an
        # item that a power cut damages is noticed by its checksum.
        partial = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(
                f"the item {path} was not written ({error.strerror}); make room, then run the "
                "same command: what is prepared stays"
            ) from error


def _checksum(item: Mapping[str, Tensor]) -> str:
    crc = 0
    for name in sorted(item):
        tensor = item[name].contiguous()
        crc = zlib.crc32(f"{name}:{tensor.dtype}:{list(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
