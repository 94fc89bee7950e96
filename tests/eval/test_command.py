from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from speechloom.cli import eval as command
from speechloom.container import save_audio
from speechloom.eval import Report


@pytest.fixture
def app():
    app = typer.Typer()
    app.command("eval")(command.eval_command)
    return app


@pytest.fixture
def cases(tmp_path, babble):
    save_audio(babble(1.0), tmp_path / "a.wav")
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "a", "audio_result": "a.wav", "reference": "a.wav"}\n')
    return path


def run(app, *arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_recordings_are_judged_into_a_table_a_file_and_pictures(app, cases, tmp_path):
    out, plots = tmp_path / "report.json", tmp_path / "plots"
    result = run(app, cases, "-o", out, "--metric", "mcd", "-m", "rtf", "--plots", plots)
    assert result.exit_code == 0, result.output
    assert "mcd ↓ dB" in result.output
    assert "0 (1)" in result.output
    report = Report.from_json(json.loads(out.read_text()))
    assert report.mean("mcd") == 0
    assert (plots / "a.png").exists()


def test_json_is_printed_for_programs(app, cases):
    result = run(app, cases, "--json", "--metric", "mcd")
    assert Report.from_json(json.loads(result.stdout)).mean("mcd") == 0


def test_cases_are_made_by_the_pipeline_and_failures_end_with_1(
    app, tmp_path, pipeline, monkeypatch
):
    monkeypatch.setattr("speechloom.pipeline.Pipeline", lambda device: pipeline)
    path = tmp_path / "cases.jsonl"
    path.write_text('{"id": "good", "text": "fine"}\n{"id": "bad", "text": "fail"}\n')
    kept = tmp_path / "kept"
    arguments = (path, "--metric", "rtf", "--voice", "ann", "--keep-audio", kept)
    result = run(app, *arguments)
    assert result.exit_code == 1
    assert "bad: AudioError: this text always fails" in result.stderr
    assert (kept / "good.wav").exists()
    assert all(call[2]["voice"] == "ann" for call in pipeline.calls)


def test_what_is_not_installed_is_named_below_the_table(app, cases, monkeypatch):
    import importlib

    real = importlib.import_module
    monkeypatch.setattr(
        importlib,
        "import_module",
        lambda name, package=None: real("absent_" + name if name == "pesq" else name, package),
    )
    result = run(app, cases)
    assert result.exit_code == 0, result.output
    assert "pip install 'speechloom[eval-pesq]'" in result.output


def test_the_library_and_the_command_are_light_to_import():
    heavy = ("torch", "matplotlib", "scipy", "pocketsphinx", "jiwer", "pystoi", "librosa")
    code = (
        "import sys, speechloom.eval, speechloom.cli.eval\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
