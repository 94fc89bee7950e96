"""Audio files: clear errors for everything that is not audio, whole files or none."""

from __future__ import annotations

import errno
import io
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechloom.container import (
    load_audio,
    read_comment,
    save_audio,
    write_atomically,
)
from speechloom.errors import AudioError, OutputError, UsageError
from speechloom.values import Audio


def tone(length: int = 4_000, rate: int = 16_000, channels: int = 1) -> Audio:
    at = np.arange(length) / rate
    samples = [0.4 * np.sin(2 * np.pi * 220 * (c + 1) * at) for c in range(channels)]
    return Audio(np.asarray(samples, np.float32), rate)


def saved(path: Path, audio: Audio | None = None, **options: Any) -> bytes:
    save_audio(audio or tone(), path, **options)
    return path.read_bytes()


# What cannot be read ----------------------------------------------------------------------


def refused(source: Any, *words: str) -> None:
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "no.wav", "no.wav", "does not exist")
    refused(str(tmp_path / "no.wav"), "does not exist")


def test_a_folder(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")
    refused("", "is a folder")


def test_a_path_with_a_zero_byte() -> None:
    refused("a\0b.wav", "is not a path")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    refused(tmp_path / "a.wav", "cannot be read: Permission denied")


def test_text_that_is_called_wav(tmp_path: Path) -> None:
    path = tmp_path / "text.wav"
    path.write_text("hello, I am not audio\n" * 50)
    refused(path, "text.wav", "not audio")


def test_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "zero.wav"
    path.touch()
    refused(path, "zero.wav is empty")
    refused(b"", "empty")
    refused(io.BytesIO(), "empty")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.999])
def test_a_wav_that_is_cut_off(tmp_path: Path, keep: float) -> None:
    data = saved(tmp_path / "whole.wav")
    path = tmp_path / "cut.wav"
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, "cut.wav", "truncated")


def test_a_wav_that_is_cut_off_in_its_header(tmp_path: Path) -> None:
    data = saved(tmp_path / "whole.wav")
    for length in (4, 11, 12, 20, 30, 40):
        refused(data[:length])


def test_a_wav_with_a_header_only(tmp_path: Path) -> None:
    data = saved(tmp_path / "whole.wav")
    start = data.index(b"data")
    head = bytearray(data[: start + 8])
    struct.pack_into("<I", head, start + 4, 0)
    struct.pack_into("<I", head, 4, len(head) - 8)
    refused(bytes(head), "no samples")


def test_a_wav_that_was_streamed_and_does_not_know_its_length(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path / "whole.wav"))
    struct.pack_into("<I", data, data.index(b"data") + 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    assert load_audio(bytes(data)).length == 4_000


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_flac_that_is_cut_off(tmp_path: Path, keep: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    data = saved(tmp_path / "whole.flac", Audio(noise, 16_000))
    path = tmp_path / "cut.flac"
    path.write_bytes(data[: int(len(data) * keep)])
    refused(path, "cut.flac")


def test_a_flac_that_promises_more_than_memory_holds(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path / "a.flac"))
    # The last 36 bits of bytes 18 to 25 of the file are the number of samples.
    data[21] |= 0x0F
    data[22:26] = b"\xff\xff\xff\xff"
    refused(bytes(data))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_float_wav_that_is_not_finite(tmp_path: Path, bad: float) -> None:
    samples = np.zeros(100, np.float32)
    samples[50] = bad
    path = tmp_path / "bad.wav"
    soundfile.write(path, samples, 16_000, "FLOAT")
    refused(path, "bad.wav", "1 samples", "NaN or infinite")


def test_a_wav_of_very_many_channels(tmp_path: Path) -> None:
    path = tmp_path / "many.wav"
    soundfile.write(path, np.zeros((10, 200), np.float32), 16_000)
    refused(path, "many.wav", "200 channels")


def test_a_wav_whose_header_says_65535_channels(tmp_path: Path) -> None:
    data = bytearray(saved(tmp_path / "a.wav"))
    struct.pack_into("<H", data, data.index(b"fmt ") + 10, 65_535)
    refused(bytes(data))


def test_random_bytes_after_a_good_header() -> None:
    draw = np.random.default_rng(0)
    for magic in (b"RIFF\x20\0\0\0WAVE", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb"):
        refused(magic + draw.bytes(300))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (np.zeros(100, np.float32), "no sample rate"),
        (3, "int"),
        (None, "NoneType"),
        ({"array": [0.0]}, "dict"),
        ((np.zeros(100, np.float32),), "1 values"),
        ((np.zeros(100, np.float32), 16_000, "PCM_16"), "3 values"),
        ((np.zeros(100, np.int16), 16_000), "int16"),
        ((np.zeros(0, np.float32), 16_000), "empty"),
        ((np.zeros((2, 3, 4), np.float32), 16_000), r"[2, 3, 4]"),
        ((np.zeros((100, 2), np.float32), 16_000), "100 channels"),
        ((np.zeros(100, np.float32), 0), "sample_rate"),
        ((np.zeros(100, np.float32), -8_000), "sample_rate"),
        ((np.zeros(100, np.float32), 16_000.0), "sample_rate"),
        ((np.zeros(100, np.float32), "16000"), "sample_rate"),
        ((np.full(100, 1e300), 16_000), "infinite"),
        ((["a", "b"], 16_000), "floating point"),
        (([[0.0], [0.0, 1.0]], 16_000), "array"),
        (io.StringIO("text"), "opened as text"),
    ],
)
def test_what_is_no_audio(source: Any, word: str) -> None:
    refused(source, word)


def test_a_closed_file(tmp_path: Path) -> None:
    saved(tmp_path / "a.wav")
    with (tmp_path / "a.wav").open("rb") as file:
        pass
    refused(file, "cannot be read")


# Where it may come from -------------------------------------------------------------------


def test_every_way_in_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.wav"
    data = saved(path, tone(channels=2))
    expected = load_audio(path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with path.open("rb") as file:
        ways = [str(path), data, io.BytesIO(data), file, expected, "-"]
        for way in ways:
            assert load_audio(way).sha256 == expected.sha256
    assert load_audio((expected.samples, 16_000)).sha256 == expected.sha256
    assert (expected.channels, expected.subtype) == (2, "PCM_16")


def test_a_tensor_with_its_rate() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(1, 100, requires_grad=True)
    assert load_audio((tensor, 8_000)).length == 100


# Round trips ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "subtype", "bits"),
    [
        (".wav", "PCM_U8", 8),
        (".wav", "PCM_16", 16),
        (".wav", "PCM_24", 24),
        (".flac", "PCM_S8", 8),
        (".flac", "PCM_16", 16),
        (".flac", "PCM_24", 24),
    ],
)
def test_integers_survive_bit_for_bit(tmp_path: Path, suffix: str, subtype: str, bits: int) -> None:
    full = 1 << (bits - 1)
    edge = np.array([-full, -full + 1, -1, 0, 1, full - 2, full - 1])
    inner = np.random.default_rng(0).integers(-full, full, 4_001)
    whole = np.concatenate([edge, inner])
    audio = Audio((whole / full).astype(np.float32), 16_000)
    path = tmp_path / f"a{suffix}"
    save_audio(audio, path, subtype=subtype)
    back = load_audio(path)
    assert back.subtype == subtype
    assert np.array_equal(np.rint(back.samples[0].astype(np.float64) * full), whole)
    again = tmp_path / f"b{suffix}"
    save_audio(back, again)
    assert again.read_bytes() == path.read_bytes()


def test_32_bits_are_as_exact_as_float32(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(-(1 << 24), 1 << 24, 4_000)
    audio = Audio((whole / 2.0**24).astype(np.float32), 16_000)
    save_audio(audio, tmp_path / "a.wav", subtype="PCM_32")
    back = load_audio(tmp_path / "a.wav")
    assert np.array_equal(back.samples, audio.samples)


def test_floats_survive_even_beyond_full_scale(tmp_path: Path) -> None:
    audio = Audio(np.array([0.1, -1.5, 3e-30, 2.25], np.float32), 16_000)
    save_audio(audio, tmp_path / "a.wav", subtype="FLOAT")
    assert np.array_equal(load_audio(tmp_path / "a.wav").samples, audio.samples)


def test_integers_clip_and_do_not_wrap(tmp_path: Path) -> None:
    save_audio(Audio(np.array([1.0, 1.7, -1.0, -3.0], np.float32), 16_000), tmp_path / "a.wav")
    back = load_audio(tmp_path / "a.wav").samples[0] * 2**15
    assert back.tolist() == [32_767, 32_767, -32_768, -32_768]


@pytest.mark.parametrize("suffix", [".ogg", ".opus", ".mp3"])
def test_lossy_formats_play(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    save_audio(tone(16_000), path)
    back = load_audio(path)
    assert back.sample_rate == 16_000
    assert abs(back.length - 16_000) < 2_500
    assert 0.3 < np.abs(back.samples[0, 4_000:12_000]).max() < 0.5


def test_a_lossy_source_is_not_made_lossy_twice(tmp_path: Path) -> None:
    save_audio(tone(16_000), tmp_path / "a.mp3")
    heard = load_audio(tmp_path / "a.mp3")
    save_audio(heard, tmp_path / "b.wav")
    assert soundfile.info(tmp_path / "b.wav").subtype == "PCM_16"


def test_the_suffix_may_be_upper_case(tmp_path: Path) -> None:
    save_audio(tone(), tmp_path / "A.WAV")
    assert load_audio(tmp_path / "A.WAV").length == 4_000


# Comments ---------------------------------------------------------------------------------

LONG = 'record: {"text": "' + "long \\u00e9 " * 9_000 + '"}'


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
@pytest.mark.parametrize("comment", ["short", LONG], ids=["short", "long"])
def test_comments_come_back_whole(tmp_path: Path, suffix: str, comment: str) -> None:
    assert len(LONG) > 1 << 16
    path = tmp_path / f"a{suffix}"
    save_audio(tone(16_000), path, comment=comment)
    assert read_comment(path) == comment
    assert load_audio(path).length > 0


@pytest.mark.parametrize("length", [1, 2, 3, 4_001])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24"])
def test_comments_after_an_odd_number_of_bytes(tmp_path: Path, length: int, subtype: str) -> None:
    path = tmp_path / "a.wav"
    data = saved(path, tone(length), subtype=subtype, comment="odd")
    assert read_comment(path) == "odd"
    assert load_audio(path).length == length
    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8


def test_a_file_without_a_comment_has_an_empty_one(tmp_path: Path) -> None:
    saved(tmp_path / "a.wav")
    assert read_comment(tmp_path / "a.wav") == ""


@pytest.mark.parametrize("tail", [b"INFOICMT", b"INFOICMT\x04", b"INFOICMT\x04\0\0\0\xff\xfe\xe9"])
def test_comments_of_others_may_be_damaged(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.wav"
    data = saved(path)
    path.write_bytes(data + b"LIST" + struct.pack("<I", len(tail)) + tail)
    assert isinstance(read_comment(path), str)


def test_the_comment_of_what_is_no_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no")
    with pytest.raises(AudioError, match="a.wav"):
        read_comment(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="does not exist"):
        read_comment(tmp_path / "b.wav")


# Writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.xyz", "a", "wav", ".wav", "a.wav.txt"])
def test_a_path_that_names_no_format(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"\.wav, \.flac"):
        save_audio(tone(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_container_other_than_the_suffix(tmp_path: Path) -> None:
    save_audio(tone(), tmp_path / "a.bin", container=".flac")
    assert (tmp_path / "a.bin").read_bytes()[:4] == b"fLaC"


def test_a_subtype_that_the_format_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PCM_24"):
        save_audio(tone(), tmp_path / "a.flac", subtype="FLOAT")


@pytest.mark.parametrize(
    ("suffix", "audio"),
    [(".opus", tone(rate=44_100)), (".mp3", tone(channels=7)), (".flac", tone(channels=9))],
)
def test_what_a_format_cannot_hold(tmp_path: Path, suffix: str, audio: Audio) -> None:
    with pytest.raises(UsageError, match="choose another format"):
        save_audio(audio, tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def unwritable(path: Path, *words: str) -> None:
    with pytest.raises(OutputError) as caught:
        save_audio(tone(), path)
    for word in ("cannot be written", *words):
        assert word in str(caught.value)
    assert isinstance(caught.value, OSError)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    unwritable(tmp_path / "no" / "a.wav", "No such file")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    unwritable(tmp_path / "a.wav", "directory")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    unwritable(tmp_path / "file" / "a.wav", "Not a directory")


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    unwritable(tmp_path / "a\0.wav")


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", refuse)  # root may write everywhere
    unwritable(tmp_path / "a.wav", "Permission denied")
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """A file that takes a little and then no more."""

    def __init__(self, handle: int, mode: str) -> None:
        self._file = open(handle, mode)  # noqa: SIM115 - closed by __exit__
        self._room = 1_000

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[: self._room])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    before = saved(path, tone(100))
    monkeypatch.setattr(os, "fdopen", FullDisk)
    unwritable(path, "No space left")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["fsync", "replace", "chmod"])
def test_a_failure_at_the_last_moment_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, name, fail)
    unwritable(tmp_path / "a.wav", "Input/output error")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, UsageError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted(file: Any) -> None:
        file.write(b"half")
        raise error("stop")

    with pytest.raises(error):
        write_atomically(tmp_path / "a.wav", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_the_rights_that_the_user_wants(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        saved(tmp_path / "a.wav")
    finally:
        os.umask(before)
    assert (tmp_path / "a.wav").stat().st_mode & 0o777 == 0o640


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("a.wav"))
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


class Stdout:
    """Standard output whose bytes can be read, or that fails."""

    def __init__(self, buffer: Any) -> None:
        self.buffer = buffer


def test_a_dash_writes_a_wav_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Stdout(out))
    save_audio(tone(), "-", comment="hello")
    assert load_audio(out.getvalue()).length == 4_000


def test_standard_output_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Stdout(Full()))
    with pytest.raises(OutputError, match="standard output cannot be written"):
        save_audio(tone(), "-")
