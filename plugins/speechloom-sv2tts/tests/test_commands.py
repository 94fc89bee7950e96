import re
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from speechloom.registry import Registry
from speechloom.testing.inputs import made_audio
from speechloom.training.recipe import check_settings, read_recipe
from speechloom_sv2tts import commands
from speechloom_sv2tts.commands import sv2tts
from speechloom_sv2tts.training.ge2e import Ge2eSettings
from speechloom_sv2tts.training.tacotron2 import Tacotron2Settings

RECIPES = Path(__file__).parent.parent / "recipes"


def test_prints_what_the_example_prints(tmp_path: Path) -> None:
    pytest.importorskip("speechloom_wavenet")
    voice = tmp_path / "voice.wav"
    soundfile.write(voice, made_audio(32_000).samples.T, 16_000)
    options = ["example", "A bee sat.", "--voice", str(voice), "--untrained"]
    done = CliRunner().invoke(sv2tts, options, catch_exceptions=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "Text: A bee sat."
    assert lines[2] == "Speaker Embedding Shape: [256]"
    number = r"-?[\d.e+-]+"
    few = rf"\[{number}, {number}, {number}, \.\.\., {number}, {number}, {number}\]"
    assert re.fullmatch(f"Speaker Embedding: {few}", lines[3])
    assert re.fullmatch(r"Mel-spectrogram data Shape: \[80, \d+\]", lines[4])
    assert re.fullmatch(f"Mel-spectrogram data: {few}", lines[5])


def test_draws_the_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib").use("agg")
    pytest.importorskip("speechloom_wavenet")

    picture = tmp_path / "attention.png"
    registry = Registry()
    generator = commands._random_networks(registry)
    monkeypatch.setattr("speechloom.registry.Registry", lambda: registry)
    options = ["attention", "A bee.", "-o", str(picture), "--generator", generator]
    done = CliRunner().invoke(sv2tts, options, catch_exceptions=False)
    assert picture.stat().st_size > 1000
    assert re.search(r"attention\.png: \d+ frames, (clean|in 'A bee')", done.stdout)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("engine-voice.yaml", Tacotron2Settings),
        ("engine-voice-stage-2.yaml", Tacotron2Settings),
        ("speaker-encoder.yaml", Ge2eSettings),
    ],
)
def test_recipes_are_valid(name: str, settings: type) -> None:
    pytest.importorskip("yaml")
    recipe = read_recipe(RECIPES / name)
    assert isinstance(check_settings(settings, recipe, RECIPES / name), settings)
