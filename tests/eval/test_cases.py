from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from speechloom.errors import UsageError
from speechloom.eval import EvalCase, read_cases


def write(folder: Path, *lines: str) -> Path:
    path = folder / "cases.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_cases_are_read_with_paths_relative_to_their_file(tmp_path):
    path = write(
        tmp_path,
        '{"id": "a", "text": "Hello.", "voice": "speakers/ann.FLAC", "reference": "r.wav"}',
        "",
        '{"task": "convert", "audio": "s.wav", "voice": "bob"}',
    )
    first, second = read_cases(path)
    assert first.reference == tmp_path / "r.wav"
    assert first.voice_file == tmp_path / "speakers/ann.FLAC"
    assert first.voice == str(first.voice_file)
    assert (second.id, second.voice, second.voice_file) == ("case-3", "bob", None)
    assert second.audio == tmp_path / "s.wav"


def test_a_voice_for_all_fills_the_gaps_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sub"
    folder.mkdir()
    path = write(folder, '{"text": "a"}', '{"text": "b", "voice": "bob"}')
    assert [case.voice for case in read_cases(path, voice="ann")] == ["ann", "bob"]
    filed = read_cases(path, voice="here.wav")[0]
    assert filed.voice_file == tmp_path / "here.wav"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": ', "not JSON"),
        ("[1]", "must be a JSON object, not list"),
        ('{"text": "a", "colour": "red"}', "colour: Extra inputs"),
        ("{}", "needs text, or an audio_result"),
        ('{"task": "edit", "audio": "a.wav", "text": "b"}', "needs new_text"),
        ('{"task": "continue", "audio": "a.wav", "seconds": 0}', "seconds: "),
        ('{"task": "sing", "text": "a"}', "task: "),
        ('{"id": "a/b", "text": "a"}', "id: "),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path, '{"text": "good"}', line)
    with pytest.raises(UsageError) as caught:
        read_cases(path)
    assert f"{path}:2: " in str(caught.value)
    assert message in str(caught.value)


def test_ids_are_unique_and_files_not_empty(tmp_path):
    with pytest.raises(UsageError, match="'a' stands twice"):
        read_cases(write(tmp_path, '{"id": "a", "text": "x"}', '{"id": "a", "text": "y"}'))
    with pytest.raises(UsageError, match="holds no cases"):
        read_cases(write(tmp_path, ""))
    with pytest.raises(UsageError, match="cannot be read"):
        read_cases(tmp_path / "absent.jsonl")


def test_what_a_result_should_say():
    assert EvalCase(id="a", text="one").expected_words == "one"
    edit = EvalCase(id="a", task="edit", audio=Path("a.wav"), text="one", new_text="two")
    assert edit.expected_words == "two"
    assert EvalCase(id="a", text="one", transcript="three").expected_words == "three"
    assert EvalCase(id="a", task="continue", audio=Path("a.wav")).expected_words is None


def test_a_recording_that_exists_needs_nothing_else():
    assert EvalCase(id="a", audio_result=Path("a.wav")).text is None
    with pytest.raises(ValidationError, match="frozen"):
        EvalCase(id="a", text="x").id = "b"
