"""Manifests: every bad line is reported, with its number, before anything else happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speechloom.container import save_audio
from speechloom.errors import AudioError, UsageError
from speechloom.training.example import Example
from speechloom.training.manifest import SHOWN, read_manifest
from speechloom.values import Audio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ramp = np.arange(8000, dtype=np.float32)[None] / 8192  # whole 16-bit steps
    save_audio(Audio(ramp, 8000), tmp_path / "a.wav")
    return tmp_path


def manifest(folder: Path, *lines: object) -> Path:
    path = folder / "m.jsonl"
    encoded = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def test_every_field_is_read(folder: Path) -> None:
    line = {
        "audio": "a.wav",
        "id": "one",
        "text": "la",
        "speaker": "anna",
        "language": "en",
        "start": 0.25,
        "end": 0.5,
        "alignment": [["l", 0.1], ["aa", 0.25]],
        "tags": {"emotion": "happy"},
    }
    path = manifest(folder, line)
    (example,) = read_manifest(path)
    assert example == Example(
        audio=folder / "a.wav",
        id="one",
        text="la",
        speaker="anna",
        language="en",
        start=0.25,
        end=0.5,
        alignment=(("l", 0.1), ("aa", 0.25)),
        tags={"emotion": "happy"},
        place=f"{path}:1",
    )
    samples = example.load().samples[0]
    assert samples.tolist() == (np.arange(2000, 4000) / 8192).tolist()


def test_lines_without_an_id_are_called_after_their_place(folder: Path) -> None:
    path = manifest(folder, {"audio": "a.wav"}, b"   ", {"audio": "a.wav"})
    assert [example.id for example in read_manifest(path)] == ["m.jsonl:1", "m.jsonl:3"]


def test_all_bad_lines_are_reported_together(folder: Path) -> None:
    path = manifest(
        folder,
        {"audio": "a.wav"},
        b'{"audio": "a.wav", "text": "cut sh',
        {"audio": "gone.wav"},
        b"\xff\xfe{}",
        ["a.wav"],
        {"audio": "a.wav", "txt": "la"},
        {"audio": "a.wav", "start": 2, "end": 1},
        {"audio": "a.wav", "alignment": [["a", 0.3], ["b", 0.2]]},
        {"text": "no audio"},
        {"audio": "a.wav", "end": float("nan")},
    )
    with pytest.raises(UsageError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert message.startswith("9 lines of the manifest cannot be used: ")
    for number, why in [
        (2, "not JSON: Unterminated string"),
        (3, "audio: there is no file .*gone.wav"),
        (4, "not JSON: 'utf-8'"),
        (5, "an example must be a JSON object, not list"),
        (6, "txt: there is no such field"),
        (7, "end 1.0 must be after start 2.0"),
        (8, "alignment: 'b' ends at 0.2"),
        (9, "audio: Field required"),
        (10, "end: .*finite"),
    ]:
        pytest.raises(UsageError, read_manifest, path).match(rf"m\.jsonl:{number}: {why}")


def test_many_bad_lines_are_counted(folder: Path) -> None:
    path = manifest(folder, *[b"{"] * (SHOWN + 5))
    with pytest.raises(UsageError, match=r"^25 lines .*; and 5 more$"):
        read_manifest(path)


def test_an_empty_manifest_and_a_missing_one(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds no examples"):
        read_manifest(manifest(folder, b""))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_manifest(folder / "nowhere.jsonl")


@pytest.mark.parametrize(("start", "end"), [(1.0, None), (0.5, 1.1), (2.0, 3.0)])
def test_a_stretch_beyond_the_file_is_refused(folder: Path, start: float, end: float) -> None:
    with pytest.raises(AudioError, match=r"lasts 1.000 s, but the example is"):
        Example(audio=folder / "a.wav", id="x", start=start, end=end).load()


def test_a_rounded_end_is_the_end_of_the_file(folder: Path) -> None:
    example = Example(audio=folder / "a.wav", id="x", start=0.5, end=1.004)
    assert example.load().length == 4000
