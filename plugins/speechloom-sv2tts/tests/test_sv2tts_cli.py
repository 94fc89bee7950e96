"""The command line does both tasks of Tacotron 2, on tiny random networks."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import speechloom.cli
from speechloom.mel import RTVC_SYNTHESIZER
from speechloom.registry import default_registry
from speechloom.testing.fakes import FakeAligner, FakeFrontend
from speechloom.testing.inputs import made_audio
from speechloom_sv2tts import ge2e_spec, tacotron2_spec
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.ge2e import Ge2eEncoder
from speechloom_sv2tts.generator import Tacotron2Generator

PHONES = FakeFrontend.default_spec.facts.phones  # type: ignore[union-attr]
SPEC = tacotron2_spec(
    "nowhere.safetensors",
    id="small-tacotron2",
    mel=RTVC_SYNTHESIZER,
    alphabet="letters",
    symbols={phone: number for number, phone in enumerate(PHONES, 1)},
    config=TacotronConfig(symbols=len(PHONES) + 1, voice=256, reduction=3),
    voice="small-voice",
)


@pytest.mark.parametrize("vocoder", ["small-wavenet", "griffin-lim"])
@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["synthesize", "hi"], id="synthesize"),
        pytest.param(["convert", "in.wav", "--text", "hi"], id="convert"),
    ],
)
def test_a_task(
    words: list[str],
    vocoder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("speechloom_wavenet")
    from speechloom_wavenet._spec import wavenet_spec
    from speechloom_wavenet.config import WaveNetConfig
    from speechloom_wavenet.vocoder import WaveNetVocoder

    monkeypatch.chdir(tmp_path)
    for name, number in (("in.wav", 1), ("voice.wav", 4)):
        audio = made_audio(16_000, number=number)
        soundfile.write(name, audio.samples.T, audio.sample_rate)
    shape = WaveNetConfig(
        mel=RTVC_SYNTHESIZER.kind,
        layers=2,
        stacks=1,
        residual=8,
        gate=16,
        skip=8,
        scales=(200,),
    )
    wavenet = wavenet_spec(shape, id="small-wavenet", checkpoint="nowhere")
    components = [
        Tacotron2Generator.from_random(SPEC),
        Ge2eEncoder.from_random(ge2e_spec("nowhere", id="small-ge2e", voice="small-voice")),
        WaveNetVocoder.from_random(wavenet),
        FakeFrontend(),
        FakeAligner(),
    ]
    parts = ["--generator", "small-tacotron2", "--vocoder", vocoder, "--voice", "voice.wav"]
    with contextlib.ExitStack() as installed:
        for component in components:
            installed.enter_context(default_registry().override(component))
        command = ["speechloom", *words, *parts, "-o", "out.wav", "--seed", "3", "--json"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stop:
            speechloom.cli.main()
    out, err = capfd.readouterr()
    assert not stop.value.code, err
    chosen = {part["role"]: part["id"] for part in json.loads(out)["chain"]}
    assert (chosen["generator"], chosen["vocoder"]) == ("small-tacotron2", vocoder)
    assert ("aligner" in chosen) == (words[0] == "convert")
    samples, rate = soundfile.read("out.wav", dtype="float32")
    assert rate == 16_000
    assert np.abs(samples).max() > 1e-4
    if words[0] == "convert":
        assert abs(len(samples) - 16_000) <= 200
