"""Beside the originals on the same weights.

GE2E: the weights in the ``resemblyzer`` package, on ten recordings (of the folder that
SPEECHLOOM_SPEECH names, else synthesised). Tacotron 2: torchaudio's network, which is NVIDIA's, on
random weights; only that file of the package is imported, the rest needs compiled parts.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from speechloom.container import load_audio
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio
from speechloom_sv2tts import ge2e_spec
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import decode
from speechloom_sv2tts.ge2e import Ge2eEncoder
from speechloom_sv2tts.speech_only import speech_of
from speechloom_sv2tts.tacotron2 import Tacotron2
from speechloom_sv2tts.weights import read_tacotron2

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]


def recordings() -> list[Audio]:
    folder = os.environ.get("SPEECHLOOM_SPEECH")
    files = sorted(Path(folder).rglob("*.flac")) if folder else []
    if len(files) >= 10:
        return [load_audio(path) for path in files[:: len(files) // 10][:10]]
    return [_faded(made_audio(16_000 * 3 + 4_001 * i, number=i)) for i in range(10)]


def _faded(audio: Audio) -> Audio:
    """With silent ends, as recordings have.

    Beyond the ends librosa takes silence since 0.9. Before, when the weights were trained, it took
    the reflected signal, and so do we; of a tone that begins at once the first frame differs.
    """
    ramp = np.minimum(1.0, np.arange(audio.length) / 4_000)
    return Audio(audio.samples * np.float32(ramp * ramp[::-1]), audio.sample_rate)


def cosine(one: Any, other: Any) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.fixture(scope="module")
def original() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resemblyzer = pytest.importorskip("resemblyzer")
        return resemblyzer, resemblyzer.VoiceEncoder("cpu", verbose=False)


@pytest.mark.parametrize(("step", "rate"), [(80, 1.25), (77, 1.3)])
def test_ge2e_embeds_the_same_samples_alike(original: Any, step: int, rate: float) -> None:
    _, theirs = original
    ours = Ge2eEncoder.from_pretrained(ge2e_spec("resemblyzer", id="x", vad="none", step=step))
    for audio in recordings():
        samples = speech_of(audio.mono().resampled(16_000).samples[0], "energy")
        (voice,) = ours.embed([Audio(samples[None], 16_000)])
        same = cosine(voice.vector, theirs.embed_utterance(samples, rate=rate))
        print(f"cosine {same:.7f}")
        assert same > 0.9999


def test_ge2e_does_the_whole_path_alike(original: Any) -> None:
    """From the recording: their resampling, loudness, detector and windows beside ours."""
    resemblyzer, theirs = original
    spec = ge2e_spec("resemblyzer", id="x", vad="webrtc", step=77)
    ours = Ge2eEncoder.from_pretrained(spec)
    for audio in recordings():
        mono = audio.mono()
        wanted = theirs.embed_utterance(
            resemblyzer.preprocess_wav(mono.samples[0], mono.sample_rate)
        )
        (voice,) = ours.embed([audio])
        same = cosine(voice.vector, wanted)
        print(f"cosine {same:.7f}")
        assert same > 0.9999


# Tacotron 2 -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torchaudio_tacotron2() -> ModuleType:
    """Their module alone, with dropout that drops nothing: theirs cannot be told what to drop."""
    package = importlib.util.find_spec("torchaudio")
    if package is None or not package.submodule_search_locations:
        pytest.skip("torchaudio is not installed; `pip install --no-deps torchaudio` is enough")
    path = Path(package.submodule_search_locations[0]) / "models" / "tacotron2.py"
    spec = importlib.util.spec_from_file_location("torchaudio_tacotron2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Functional:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch.nn.functional, name)

        def dropout(self, x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            return x

    module.F = Functional()  # type: ignore[attr-defined]
    return module


@pytest.fixture(scope="module")
def pair(torchaudio_tacotron2: ModuleType, tmp_path_factory: Any) -> tuple[Any, Tacotron2]:
    torch.manual_seed(5)
    theirs = torchaudio_tacotron2.Tacotron2(n_symbol=148).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path_factory.mktemp("tacotron2") / "tacotron2.pt"
    torch.save({"state_dict": theirs.state_dict()}, path)
    tensors, _ = read_tacotron2(str(path), None)
    ours = Tacotron2(TacotronConfig()).eval()
    ours.load_state_dict(tensors)
    return theirs, ours


def test_tacotron2_predicts_alike(pair: tuple[Any, Tacotron2]) -> None:
    theirs, ours = pair
    symbols, lengths = torch.arange(1, 24)[None], torch.tensor([23])
    mel, frames = torch.randn(1, 80, 41) - 4, torch.tensor([41])
    with torch.no_grad():
        wanted = theirs(symbols, lengths, mel, frames)
        said = ours(symbols, lengths, mel, frames, None, None)
    for mine, other in zip((said.coarse, said.mel, said.stop, said.attention), wanted, strict=True):
        assert (mine - other.view_as(mine)).abs().max() < 1e-4


def test_tacotron2_speaks_alike(pair: tuple[Any, Tacotron2]) -> None:
    """Fifty steps of the autoregressive loop, without a guard on ours: theirs has none."""
    theirs, ours = pair
    theirs.decoder.gate_threshold, theirs.decoder.decoder_max_step = 2.0, 50

    class Everywhere:
        def allowed(self, step: int) -> torch.Tensor:
            return torch.ones(1, 23, dtype=torch.bool)

        def saw(self, weights: torch.Tensor, stop: torch.Tensor) -> bool:
            return False

    symbols, lengths = torch.arange(1, 24)[None], torch.tensor([23])
    with torch.no_grad():
        wanted, _, attention = theirs.infer(symbols, lengths)
        memory = ours.remember(symbols, lengths, None)
        decoded = decode(ours.decoder, memory, Everywhere(), None, max_steps=50)
        coarse = decoded.frames.transpose(1, 2)
        mel = coarse + ours.postnet(coarse, torch.tensor([50]))
    assert (decoded.attention[0] - attention.view(50, 23)).abs().max() < 1e-4
    assert (mel - wanted).abs().max() < 1e-3
