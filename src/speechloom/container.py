"""Audio files: read with clear errors, written whole or not at all, with room for a record.

Formats are libsndfile's (wav, flac, ogg, opus, mp3). Integer samples survive a round trip bit for
bit: libsndfile reads them as x / 2^(n-1) but writes floats times 2^(n-1) - 1, so integers are
written as integers here.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Union

import numpy as np

from speechloom.errors import AudioError, OutputError, UsageError
from speechloom.values import Audio

__all__ = [
    "AudioLike",
    "audio_suffix",
    "encode_audio",
    "load_audio",
    "read_comment",
    "save_audio",
    "write_atomically",
]

AudioLike = Union[Audio, str, "os.PathLike[str]", bytes, IO[bytes], "tuple[Any, int]"]
"""What the tasks take as audio: an `Audio`, a path, ``-`` for standard input, the bytes of a file,
an open binary file, or (samples [T] or [C, T], sample_rate)."""

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
_INTEGER_BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_EXACT = (*_INTEGER_BITS, "FLOAT", "DOUBLE")  # a wav can hold mp3 and ADPCM, which nobody expects
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # written by programs that stream a wav into a pipe


def load_audio(source: AudioLike) -> Audio:
    """Read audio from wherever it is.

    Args:
        source: see `AudioLike`.

    Returns:
        The samples as they are: rate and channels kept.

    Raises:
        AudioError: missing, unreadable, truncated, empty or not finite.
    """
    if isinstance(source, Audio):
        return source
    if isinstance(source, tuple):
        if len(source) != 2:
            raise AudioError(f"audio must be (samples, sample_rate), not {len(source)} values")
        return Audio(_as_numpy(source[0]), source[1])
    if isinstance(source, bytes):
        return _decode(source, "the bytes given")
    if isinstance(source, (str, os.PathLike)):
        if os.fspath(source) == "-":
            return _decode(sys.stdin.buffer.read(), "standard input")
        return _decode(_read_file(Path(source)), str(source))
    if hasattr(source, "read"):
        return _decode(*_read_stream(source))
    if hasattr(source, "__array__"):
        raise AudioError("an array alone has no sample rate; give (samples, sample_rate)")
    raise AudioError(
        f"audio must be a path, an Audio or (samples, sample_rate), not {type(source).__name__}"
    )


def _as_numpy(samples: Any) -> Any:
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().numpy()
    try:
        return np.asarray(samples)
    except ValueError as error:
        raise AudioError(f"samples must be an array [T] or [C, T]: {error}") from None


def _read_stream(stream: Any) -> tuple[bytes, str]:
    name = str(getattr(stream, "name", "the open file"))
    try:
        data = stream.read()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name} cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise AudioError(f"{name} was opened as text; open it with mode 'rb'")
    return data, name


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise AudioError(f"{path} does not exist; give the path of an audio file") from None
    except IsADirectoryError:
        raise AudioError(f"{path} is a folder; give the path of an audio file") from None
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the path
        raise AudioError(f"{str(path)!r} is not a path: {error}") from None


def _decode(data: bytes, name: str) -> Audio:
    import soundfile

    if not data:
        raise AudioError(f"{name} is empty; expected an audio file")
    _check_riff_whole(data, name)
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            expected, rate, subtype = file.frames, file.samplerate, file.subtype
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, MemoryError, ValueError) as error:
        raise AudioError(
            f"{name} is not audio that can be read (wav, flac, ogg, opus or mp3): {error}"
        ) from error
    if len(samples) == 0:
        raise AudioError(f"{name} is empty: it holds no samples")
    if len(samples) < expected:
        raise AudioError(f"{name} is truncated: {len(samples)} of {expected} samples are there")
    try:
        return Audio(samples.T, rate, subtype)
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from None


def _check_riff_whole(data: bytes, name: str) -> None:
    """Libsndfile silently plays what is left of a truncated wav; the header knows better."""
    for tag, start, size in _riff_chunks(data):
        if tag == b"data" and size not in _UNKNOWN_SIZES and start + size > len(data):
            raise AudioError(
                f"{name} is truncated: its header promises {size} bytes of samples and "
                f"{max(len(data) - start, 0)} are there"
            )


def _riff_chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(tag, start of the body, size) of each chunk of a RIFF WAVE file; empty for other files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return []
    chunks, at = [], 12
    while at + 8 <= len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        chunks.append((data[at : at + 4], at + 8, size))
        at += 8 + size + (size & 1)
    return chunks


def audio_suffix(path: Path) -> str:
    """The suffix of a path that names an audio format.

    Raises:
        UsageError: it names none.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"{path} names no audio format; end it with one of {', '.join(_FORMATS)}")
    return suffix


def read_comment(path: str | os.PathLike[str]) -> str:
    """The comment in a file's metadata; empty when there is none.

    Raises:
        AudioError: the file cannot be read.
    """
    import soundfile

    data = _read_file(Path(path))
    for tag, start, size in _riff_chunks(data):
        if tag == b"LIST" and data[start : start + 8] == b"INFOICMT":
            length = int.from_bytes(data[start + 8 : start + 12], "little")
            text = data[start + 12 : start + 12 + min(length, size)]
            return text.rstrip(b"\0").decode(errors="replace")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            return str(file.comment)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise AudioError(f"{path} is not audio that can be read: {error}") from error


def save_audio(
    audio: Audio,
    path: str | os.PathLike[str],
    *,
    subtype: str | None = None,
    comment: str = "",
    container: str | None = None,
) -> None:
    """Write audio to a file, or as a wav to standard output for ``-``.

    Args:
        audio: what to write; samples beyond full scale are clipped by integer formats.
        path: the suffix names the format.
        subtype: libsndfile's sample format; by default that of the audio's own file where the
            format allows it, else the usual one.
        comment: text for the file's metadata.
        container: format suffix (``.wav``) to use instead of the path's own.

    Raises:
        UsageError: a format or subtype that does not exist.
        OutputError: it cannot be written; nothing is left behind.
    """
    to_stdout = os.fspath(path) == "-"
    suffix = container or (".wav" if to_stdout else audio_suffix(Path(path)))
    data = encode_audio(audio, suffix, subtype=subtype, comment=comment)
    if to_stdout:
        _write_to_stdout(data)
        return
    write_atomically(Path(path), lambda file: file.write(data))


def _write_to_stdout(data: bytes) -> None:
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def encode_audio(
    audio: Audio, suffix: str, *, subtype: str | None = None, comment: str = ""
) -> bytes:
    """The bytes of an audio file; see `save_audio`.

    Raises:
        UsageError: an unknown format, or one that has no such subtype.
    """
    import soundfile

    if suffix not in _FORMATS:
        raise UsageError(f"no audio format is called {suffix!r}; use one of {', '.join(_FORMATS)}")
    container, usual = _FORMATS[suffix]
    wanted = subtype or (audio.subtype if audio.subtype in _EXACT or container != "WAV" else None)
    if subtype and not soundfile.check_format(container, subtype):
        allowed = ", ".join(sorted(soundfile.available_subtypes(container)))
        raise UsageError(f"{container} has no subtype {subtype!r}; it has {allowed}")
    if wanted is None or not soundfile.check_format(container, wanted):
        wanted = usual
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", audio.sample_rate, audio.channels, wanted, format=container
        ) as file:
            if comment and container != "WAV":
                file.comment = comment
            file.write(_as_written(audio.samples.T, wanted))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise UsageError(
            f"{container} ({wanted}) cannot hold {audio.channels} channels at "
            f"{audio.sample_rate} Hz: {error}; choose another format"
        ) from error
    data = buffer.getvalue()
    return _with_riff_comment(data, comment) if comment and container == "WAV" else data


def _as_written(samples: Any, subtype: str) -> Any:
    """Integers for integer formats (see the module), floats for the others."""
    bits = _INTEGER_BITS.get(subtype)
    if bits is None:
        return np.clip(samples, -1, 1) if subtype not in ("FLOAT", "DOUBLE") else samples
    full = 1 << (bits - 1)
    whole = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    if bits <= 16:
        return (whole.astype(np.int32) << (16 - bits)).astype(np.int16)
    return (whole.astype(np.int64) << (32 - bits)).astype(np.int32)


def _with_riff_comment(data: bytes, comment: str) -> bytes:
    """Append a LIST INFO ICMT chunk: libsndfile drops comments above 2 kB."""
    text = comment.encode() + b"\0"
    text += b"\0" * (len(text) & 1)
    body = b"INFOICMT" + struct.pack("<I", len(text)) + text
    data += b"\0" * (len(data) & 1)
    data += b"LIST" + struct.pack("<I", len(body)) + body
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write beside the target and move into place, so that no half file is ever seen.

    Args:
        path: target; its folder must exist.
        write: gets the open binary file.

    Raises:
        OutputError: the target cannot be written; nothing is left behind.
    """
    if "\0" in str(path):
        raise OutputError(f"{str(path)!r} cannot be written: a path has no zero byte")
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
