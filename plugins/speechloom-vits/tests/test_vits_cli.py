"""The command line does every task that these generators claim, on tiny random networks."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import speechloom.cli
from speechloom.registry import default_registry
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.testing.fakes import FakeAligner, FakeFrontend
from speechloom.testing.inputs import made_audio
from speechloom_vits._spec import specs_of_config
from speechloom_vits._xe_spec import x_e_specs_of_config
from speechloom_vits.config import DecoderConfig, VitsConfig
from speechloom_vits.content import VitsContent
from speechloom_vits.generator import VitsGenerator
from speechloom_vits.speakers import SpeakerTable
from speechloom_vits.xe_config import Alphabet, XEConfig, XESizes
from speechloom_vits.xe_generator import XEGenerator, XEStyle

Run = Callable[..., dict[str, Any]]
PHONES = FakeFrontend.default_spec.facts.phones  # type: ignore[union-attr]
PAUSE = FakeFrontend.default_spec.facts.pause  # type: ignore[union-attr]


def vits() -> list[Any]:
    config = VitsConfig(symbols=len(PHONES), speakers=2, decoder=DecoderConfig(speaker_size=6))
    generator, table, reader = specs_of_config(
        config,
        id="small-vits",
        checkpoint="nowhere",
        phones=PHONES,
        pause=PAUSE,
        alphabet="letters",
        languages=("en",),
        speakers=("ann", "bob"),
        sources=("ann",),
    )
    return [
        VitsGenerator.from_random(generator),
        SpeakerTable.from_random(table),
        VitsContent.from_random(reader),
    ]


def x_e_speech() -> list[Any]:
    whisper = pytest.importorskip("speechloom_vits.whisper", exc_type=ImportError)
    alphabet = Alphabet(phones=PHONES, pause=PAUSE, language="en")
    config = XEConfig(
        sizes=XESizes(content_size=8, languages=("en",)),
        symbols=PHONES,
        alphabets={"letters": alphabet},
        content="small-whisper",
        content_language="en",
    )
    generator, style = x_e_specs_of_config(config, id="small-x-e", checkpoint="nowhere")
    return [
        XEGenerator.from_random(generator),
        XEStyle.from_random(style),
        whisper.WhisperContent.from_random(WHISPER),
    ]


WHISPER = ComponentSpec(
    id="small-whisper",
    implementation="speechloom_vits.whisper:WhisperContent",
    facts=TokenizerFacts(
        vocabulary="small-whisper",
        vocabulary_size=8,
        sample_rate=16_000,
        frame_rate=50,  # type: ignore[arg-type]
        max_seconds=30.0,
        form="features",
    ),
    summary="Whisper encoder of one layer",
    license="Apache-2.0",
    options={"config": {"d_model": 8}},
)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Run the command with some components installed; what it reports as JSON."""
    recording = made_audio(24_000, number=1)
    soundfile.write(tmp_path / "in.wav", recording.samples.T, recording.sample_rate)
    soundfile.write(tmp_path / "voice.wav", made_audio(16_000, number=4).samples.T, 16_000)
    monkeypatch.chdir(tmp_path)

    with contextlib.ExitStack() as installed:

        def call(components: list[Any], *arguments: str) -> dict[str, Any]:
            for component in [*components, FakeFrontend(), FakeAligner()]:
                installed.enter_context(default_registry().override(component))
            monkeypatch.setattr(sys, "argv", ["speechloom", *arguments, "--seed", "3", "--json"])
            with pytest.raises(SystemExit) as stop:
                speechloom.cli.main()
            out, err = capfd.readouterr()
            assert not stop.value.code, err
            report: dict[str, Any] = json.loads(out)
            return report

        yield call


@pytest.mark.parametrize(
    ("components", "id", "voice"),
    [(vits, "small-vits", "bob"), (x_e_speech, "small-x-e", "voice.wav")],
)
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["synthesize", "hi there"], id="synthesize"),
        pytest.param(["convert", "in.wav"], id="convert"),
        pytest.param(["convert", "in.wav", "--text", "hi there"], id="convert-by-transcript"),
    ],
)
def test_a_task(
    components: Callable[[], list[Any]], id: str, voice: str, words: list[str], run: Run
) -> None:
    report = run(components(), *words, "--generator", id, "--voice", voice, "-o", "out.wav")
    parts = {part["role"]: part["id"] for part in report["chain"]}
    assert parts["generator"] == id
    samples, rate = soundfile.read("out.wav", dtype="float32")
    assert rate == report["sample_rate"] == 16_000
    assert np.abs(samples).max() > 1e-4
    if words[0] == "convert":
        assert abs(len(samples) / rate - 1.5) < 0.02
        assert ("tokenizer" in parts) == ("--text" not in words)
