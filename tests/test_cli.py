"""The command line on fakes: what it prints, what it writes, how it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechloom.cli
import speechloom.cli.codec
import speechloom.pipeline
from speechloom.container import load_audio, save_audio
from speechloom.hooks import Hooks
from speechloom.registry import Registry
from speechloom.testing.fakes import FakeCodec
from speechloom.values import Audio, Codes

Run = Callable[..., tuple[int, str, str]]
Record = Callable[..., Audio]


@pytest.fixture
def run(
    fake_registry: Registry, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run the command in this process on the fakes: (exit code, stdout, stderr)."""
    hooks = Hooks(entry_points=(), environ={})
    for module in ("pipeline", "cli.codec", "cli.models", "cli.plugins"):
        monkeypatch.setattr(f"speechloom.{module}.default_registry", lambda: fake_registry)
    for module in ("pipeline", "cli", "cli.options"):
        monkeypatch.setattr(f"speechloom.{module}.default_hooks", lambda: hooks)
    defaults = speechloom.pipeline.Pipeline.__dataclass_fields__
    monkeypatch.setattr(defaults["registry"], "default_factory", lambda: fake_registry)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["speechloom", *map(str, arguments)])
        try:
            speechloom.cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def recording(tmp_path: Path, record: Record) -> Path:
    path = tmp_path / "in.wav"
    save_audio(record(3.0, 44_100, 2), path)
    return path


def test_synthesize_prints_one_object_and_writes_the_file(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("synthesize", "hello there", "-o", tmp_path / "a.wav", "--seed", 5, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["path"] == str(tmp_path / "a.wav")
    assert report["seed"] == 5
    assert [word["text"] for word in report["words"]] == ["hello", "there"]
    assert report["sample_rate"] == soundfile.info(tmp_path / "a.wav").samplerate
    assert {
        "path",
        "sample_rate",
        "seconds",
        "seed",
        "chain",
        "words",
        "regions",
        "timings",
    } == set(report)


def test_edit_keeps_the_samples_outside_the_regions(run: Run, recording: Path) -> None:
    output = recording.with_name("out.wav")
    code, out, _ = run(
        "edit", recording, "--text", "one two three", "--to", "one six three", "-o", output,
        "--json", "--seed", 1,
    )  # fmt: skip
    assert code == 0
    before, _ = soundfile.read(recording, dtype="int16")
    after, _ = soundfile.read(output, dtype="int16")
    (region,) = json.loads(out)["regions"]
    assert np.array_equal(after[: region["start"]], before[: region["start"]])
    tail = len(after) - region["end"]
    assert tail > 0
    assert np.array_equal(after[region["end"] :], before[-tail:])


def test_continue_begins_with_the_recording(run: Run, recording: Path) -> None:
    output = recording.with_name("out.flac")
    code, _, err = run("continue", recording, "--seconds", 1, "-o", output, "--seed", 1)
    assert code == 0, err
    before, _ = soundfile.read(recording, dtype="int16")
    after, _ = soundfile.read(output, dtype="int16")
    assert np.array_equal(after[: len(before)], before)
    assert len(after) == len(before) + 44_100


def test_convert_and_replay_make_the_same_samples(run: Run, recording: Path) -> None:
    output, again = recording.with_name("c.wav"), recording.with_name("again.wav")
    assert run("convert", recording, "--voice", recording, "-o", output)[0] == 0
    code, _, err = run("replay", output, "-o", again)
    assert code == 0, err
    assert np.array_equal(load_audio(output).samples, load_audio(again).samples)


def test_codec_round_trip_has_the_exact_length(run: Run, recording: Path, tmp_path: Path) -> None:
    codes, back = tmp_path / "codes.npz", tmp_path / "back.wav"
    assert run("codec", "encode", recording, "-o", codes)[0] == 0
    code, out, err = run("codec", "decode", codes, "-o", back, "--json")
    assert code == 0, err
    assert json.loads(out)["seconds"] == pytest.approx(3.0, abs=1e-4)


def test_the_loudness_of_codes_is_kept(
    run: Run, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A codec with scales plays them, and the file between its two halves holds them."""
    torch = pytest.importorskip("torch")
    encode, decode = FakeCodec.encode, FakeCodec.decode

    def encoded(self: FakeCodec, audio: Sequence[Audio]) -> Codes:
        codes = encode(self, audio)
        return replace(codes, scales=torch.full((len(audio), codes.ids.shape[-1]), 0.5))

    def played(self: FakeCodec, codes: Codes) -> list[Audio]:
        assert codes.scales is not None
        (audio,) = decode(self, codes)
        return [Audio(audio.samples * float(codes.scales[0, 0]), audio.sample_rate)]

    plain, back, codes = tmp_path / "plain.wav", tmp_path / "back.wav", tmp_path / "codes.npz"
    for output in (plain, back):
        assert run("codec", "encode", recording, "-o", codes)[0] == 0
        assert run("codec", "decode", codes, "-o", output)[0] == 0
        monkeypatch.setattr(FakeCodec, "encode", encoded)
        monkeypatch.setattr(FakeCodec, "decode", played)
    half = load_audio(plain).samples / 2
    np.testing.assert_allclose(load_audio(back).samples, half, atol=2**-15)


def test_tokens_merge_runs(run: Run, recording: Path) -> None:
    plain = json.loads(run("tokens", recording)[1])
    merged = json.loads(run("tokens", recording, "--reduce")[1])
    assert sum(merged["frames"]) == len(plain["ids"])
    expanded = np.repeat(merged["ids"], merged["frames"])
    assert expanded.tolist() == plain["ids"]


def test_plan_prints_the_chain_or_why_there_is_none(run: Run) -> None:
    code, out, _ = run("plan", "convert", "--json")
    assert code == 0
    assert [link["role"] for link in json.loads(out)["links"]][-1] == "codec"
    code, out, err = run("plan", "edit", "--codec", "no-such")
    assert (code, out) == (2, "")
    assert "no-such" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_wav_goes_to_standard_output(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    pipe = io.BytesIO()
    stdout = io.TextIOWrapper(pipe)  # kept: it closes the pipe when it goes
    monkeypatch.setattr(sys, "stdout", stdout)
    assert run("synthesize", "hello", "-o", "-", "--seed", 1, *options)[0] == 0
    monkeypatch.undo()
    samples, _ = soundfile.read(io.BytesIO(pipe.getvalue()), dtype="int16")
    assert len(samples) > 0


def _batch_file(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_batch_resumes_where_it_stopped(run: Run, recording: Path, tmp_path: Path) -> None:
    rows = [
        {"task": "synthesize", "text": "one", "id": "a", "seed": 1},
        {"task": "synthesize", "text": "two words", "id": "b", "seed": 2, "format": "flac"},
        {"task": "continue", "audio": "in.wav", "seconds": 1, "id": "c", "seed": 3},
    ]
    requests, folder = _batch_file(tmp_path, rows), tmp_path / "out"
    code, out, err = run("batch", requests, folder, "--json")
    assert code == 0, err
    assert json.loads(out)["done"] == 3
    assert {p.name for p in folder.iterdir() if p.suffix != ".json"} == {"a.wav", "b.flac", "c.wav"}
    first = (folder / "a.wav").read_bytes()
    assert run("batch", requests, folder)[0] == 2
    (folder / "b.flac").unlink()
    code, out, _ = run("batch", requests, folder, "--resume", "--json")
    assert (json.loads(out)["done"], json.loads(out)["skipped"]) == (1, 2)
    assert (folder / "a.wav").read_bytes() == first


def test_a_failing_line_harms_no_other(run: Run, recording: Path, tmp_path: Path) -> None:
    rows = [
        {"task": "synthesize", "text": "fine", "id": "a"},
        {"task": "synthesize", "text": "", "id": "b"},
    ]
    folder = tmp_path / "out"
    code, _, err = run("batch", _batch_file(tmp_path, rows), folder)
    assert code == 1
    assert "line 2" in err
    assert (folder / "a.wav").exists()
    assert not (folder / "b.wav").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON"),
        ('{"task": "sing"}', "task"),
        ('{"task": "synthesize", "text": "x", "id": "../x"}', "plain file name"),
        ('{"task": "synthesize", "txt": "x"}', "unknown fields txt"),
        ('{"task": "synthesize", "text": "x", "format": "txt"}', "audio format"),
        ("", "no requests"),
    ],
)
def test_bad_batch_lines_are_named(run: Run, tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(line + "\n")
    code, _, err = run("batch", path, tmp_path / "out")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def _text_file(folder: Path) -> Path:
    path = folder / "text.wav"
    path.write_text("this is text")
    return path


def _truncated(folder: Path) -> Path:
    path = folder / "cut.wav"
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="WAV")
    path.write_bytes(buffer.getvalue()[:10_000])
    return path


def _empty(folder: Path) -> Path:
    path = folder / "empty.wav"
    soundfile.write(path, np.zeros(0), 16_000)
    return path


def _nan(folder: Path) -> Path:
    path = folder / "nan.wav"
    soundfile.write(path, np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    "make", [lambda f: f / "missing.wav", _text_file, _truncated, _empty, _nan, lambda f: f]
)
def test_bad_recordings_are_one_line_and_no_file(
    run: Run, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    output = tmp_path / "out.wav"
    code, out, err = run("convert", make(tmp_path), "--voice", make(tmp_path), "-o", output)
    assert code == 2
    assert out == ""
    assert err.startswith("speechloom: ")
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["synthesize", ""],
        ["synthesize", "Привет"],
        ["synthesize", "x", "--voice", "nobody"],
        ["synthesize", "x", "--style", "sad"],
        ["synthesize", "x", "--codec", "fake-tokenizer"],
        ["synthesize", "x", "--temperature", "nan"],
    ],
)
def test_bad_requests_are_one_line_and_no_file(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    output = tmp_path / "out.wav"
    code, out, err = run(*arguments, "-o", output)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no/such/folder/out.wav", "does not exist"),
        ("out.txt", "audio format"),
        (".", "audio format"),
    ],
)
def test_bad_outputs_are_refused_before_any_work(
    run: Run, tmp_path: Path, name: str, words: str
) -> None:
    code, _, err = run("synthesize", "hello", "-o", tmp_path / name)
    assert code in (1, 2)
    assert words in err
    assert err.count("\n") == 1


def test_a_full_disk_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("synthesize", "hello", "-o", tmp_path / "out.wav")
    assert code == 1
    assert "No space left" in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_starts_without_torch() -> None:
    script = (
        "import sys; sys.argv = ['speechloom', 'plugins', 'list', '--json']\n"
        "from speechloom.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
