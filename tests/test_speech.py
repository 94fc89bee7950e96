"""Speech: what it tells, how it is saved, and where its record goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechloom import speech as speech_module
from speechloom.container import load_audio, read_comment, save_audio
from speechloom.errors import AudioError, OutputError, UsageError
from speechloom.speech import Alignment, Region, Span, Speech, read_provenance
from speechloom.values import Audio

RECORD = {
    "format": 1,
    "seed": 3,
    "chain": [],
    "request": {"task": "synthesize", "text": "caf\u00e9"},
}


def spoken(**changes: Any) -> Speech:
    values: dict[str, Any] = {
        "audio": Audio(np.full(16_000, 0.25, np.float32), 16_000),
        "seed": 3,
        "regions": (Region(4_000, 12_000, 16_000),),
        "alignment": Alignment((Span("<hi>", 0.1, 0.50001), Span("you", 0.6, 0.7)), ()),
        "provenance": RECORD,
        "timings": {"fill": 0.123456},
    }
    return Speech(**values | changes)


def test_what_it_tells() -> None:
    speech = spoken()
    assert (speech.sample_rate, speech.seconds) == (16_000, 1.0)
    assert speech.numpy().shape == (1, 16_000)
    assert repr(speech) == (
        "Speech(Audio(1 x 1.000 s at 16000 Hz), 0.500 s generated, seed 3)"
    )  # fmt: skip
    region = speech.regions[0]
    assert (region.start_seconds, region.end_seconds) == (0.25, 0.75)


def test_its_tensor_is_its_own() -> None:
    pytest.importorskip("torch")
    speech = spoken()
    tensor = speech.tensor()
    tensor[:] = 0
    assert speech.audio.samples[0, 0] == 0.25


def test_json_is_plain_and_rounded() -> None:
    data = json.loads(json.dumps(spoken().to_json()))
    assert data["words"][0] == {"text": "<hi>", "start": 0.1, "end": 0.5}
    assert data["regions"] == [
        {"start": 4_000, "end": 12_000, "start_seconds": 0.25, "end_seconds": 0.75}
    ]
    assert data["timings"] == {"fill": 0.1235}
    assert (data["seed"], data["sample_rate"], data["seconds"]) == (3, 16_000, 1.0)


def test_notebooks_get_a_player_that_plays_and_escapes() -> None:
    import base64
    import re

    page = spoken()._repr_html_()
    assert "&lt;hi&gt; you" in page
    assert "<hi>" not in page
    found = re.search(r"base64,([^\"]+)", page)
    assert found
    assert load_audio(base64.b64decode(found[1])).length == 16_000


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("size", [10, 70_000])
def test_the_record_travels_in_the_file(tmp_path: Path, suffix: str, size: int) -> None:
    record = RECORD | {"padding": "\u00e9\u4f60" * (size // 12)}
    path = tmp_path / f"a{suffix}"
    spoken(provenance=record).save(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert read_provenance(path) == record


def test_where_the_file_has_no_room_the_record_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_module, "read_comment", lambda path: "")
    path = tmp_path / "a.wav"
    spoken().save(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.wav", "a.wav.json"]
    assert read_provenance(path) == RECORD


def test_opus_keeps_its_record_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "a.opus"
    spoken().save(path)
    assert read_provenance(path) == RECORD


def test_a_comment_of_somebody_else_is_no_record(tmp_path: Path) -> None:
    save_audio(spoken().audio, tmp_path / "a.wav", comment="recorded at home")
    with pytest.raises(UsageError, match="no speechloom record"):
        read_provenance(tmp_path / "a.wav")


@pytest.mark.parametrize("text", ["{", "", "[1]", "3", "null", '"x"', "[" * 100_000])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.wav"
    save_audio(spoken().audio, path, comment=f"speechloom-provenance:{text}")
    with pytest.raises(UsageError, match="damaged"):
        read_provenance(path)


def test_a_damaged_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    save_audio(spoken().audio, path)
    (tmp_path / "a.wav.json").write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(UsageError, match="damaged"):
        read_provenance(path)


def test_the_record_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        read_provenance(tmp_path / "no.wav")


def test_saving_can_fail(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        spoken().save(tmp_path / "no" / "a.wav")
    with pytest.raises(UsageError, match=r"\.wav"):
        spoken().save(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_subtype_and_container_can_be_chosen(tmp_path: Path) -> None:
    spoken().save(tmp_path / "a.wav", subtype="PCM_24")
    assert load_audio(tmp_path / "a.wav").subtype == "PCM_24"
    spoken().save(tmp_path / "b.bin", container=".flac")
    assert (tmp_path / "b.bin").read_bytes()[:4] == b"fLaC"
    assert read_provenance(tmp_path / "b.bin") == RECORD


def test_the_format_of_the_source_is_kept(tmp_path: Path) -> None:
    audio = Audio(np.full(99, 0.25, np.float32), 16_000, "PCM_24")
    spoken(audio=audio).save(tmp_path / "a.wav")
    assert load_audio(tmp_path / "a.wav").subtype == "PCM_24"


def test_standard_output_carries_the_record(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    spoken().save("-")
    (tmp_path / "a.wav").write_bytes(capsysbinary.readouterr().out)
    assert read_provenance(tmp_path / "a.wav") == RECORD
    assert read_comment(tmp_path / "a.wav").startswith("speechloom-provenance:")
