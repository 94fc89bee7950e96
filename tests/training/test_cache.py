"""The cache: found by content, written whole, and never trusted blindly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from speechloom.errors import AudioError, OutputError
from speechloom.training.cache import AudioHashes, ItemCache, item_key
from speechloom.training.example import Example

FullDisk = Callable[[int], AbstractContextManager[None]]

ITEM = {
    "codes": torch.arange(12).reshape(3, 4),
    "mel": torch.linspace(-1, 1, 6).to(torch.bfloat16),
    "mask": torch.tensor([True, False]),
    "pitch": torch.tensor(440.0),
    "nothing": torch.zeros(0, 2),
}
EXAMPLE = Example(audio=Path("a.wav"), id="a", text="la", speaker="anna", start=0.5, end=1.0)


def test_an_item_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = ItemCache(tmp_path / "deep" / "cache")
    cache.write("ab12", ITEM, 4)
    assert cache.length("ab12") == 4
    item = cache.read("ab12")
    assert item is not None
    assert item.keys() == ITEM.keys()
    for name, value in ITEM.items():
        assert item[name].dtype == value.dtype
        assert torch.equal(item[name], value)


def test_views_of_one_tensor_are_kept_apart(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    cache = ItemCache(tmp_path)
    cache.write("ab", {"left": whole[:5], "right": whole[2:].requires_grad_()}, 5)
    item = cache.read("ab")
    assert item is not None
    assert item["right"].tolist() == list(range(2, 10))


def test_a_cache_that_cannot_grow_keeps_what_it_has(tmp_path: Path, full_disk: FullDisk) -> None:
    cache = ItemCache(tmp_path)
    cache.write("ab12", ITEM, 4)
    with full_disk(100), pytest.raises(OutputError, match="make room, then run the same command"):
        cache.write("ab34", ITEM, 4)
    assert cache.read("ab12") is not None
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["ab12.safetensors"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "other", "gone"])
def test_a_damaged_item_is_noticed(tmp_path: Path, damage: str) -> None:
    cache = ItemCache(tmp_path)
    cache.write("ab12", ITEM, 4)
    path = cache.path("ab12")
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-3] ^= 0x10
    changed = {"truncate": data[:-5], "flip": data, "empty": b"", "other": b"RIFF" * 30}
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(changed[damage])
    assert cache.read("ab12") is None
    if damage != "flip":  # only the checksum of the content finds that, and reading checks it
        assert cache.length("ab12") is None


@pytest.mark.parametrize(
    "change",
    [
        {"text": "lo"},
        {"speaker": None},
        {"language": "en"},
        {"start": 0.25},
        {"end": None},
        {"alignment": (("l", 0.1),)},
        {"tags": {"emotion": "sad"}},
    ],
)
def test_the_key_depends_on_what_the_item_depends_on(change: dict[str, Any]) -> None:
    key = item_key(EXAMPLE, "audio", "learner-1")
    assert item_key(replace(EXAMPLE, **change), "audio", "learner-1") != key


def test_the_key_depends_on_content_not_on_names() -> None:
    key = item_key(EXAMPLE, "audio", "learner-1")
    moved = replace(EXAMPLE, audio=Path("/other/b.wav"), id="b", place="m.jsonl:7")
    assert item_key(moved, "audio", "learner-1") == key
    assert item_key(EXAMPLE, "audio 2", "learner-1") != key
    assert item_key(EXAMPLE, "audio", "learner-2") != key


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    audio.write_bytes(b"one")
    first = AudioHashes(tmp_path).of(audio)
    with (tmp_path / "audio-hashes.jsonl").open("a") as file:
        file.write('["cut sh')  # a process that was killed while it wrote
    known = AudioHashes(tmp_path)
    assert known.of(audio) == first
    audio.write_bytes(b"other")
    assert known.of(audio) != first
    with pytest.raises(AudioError, match="No such file"):
        known.of(tmp_path / "gone.wav")
