from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

from speechloom.errors import AudioError
from speechloom.mel import MelSpec
from speechloom.testing import check_learner
from speechloom.training.example import Example
from speechloom.training.learner import ExportTarget, Item
from speechloom_wavenet._learner import WAVENET
from speechloom_wavenet.learner import WaveNetLearner, WaveNetSettings
from speechloom_wavenet.vocoder import WaveNetVocoder

MEL = MelSpec(rate=4000, fft=80, win=80, hop=20, bands=6, low=0, high=2000)
NETWORK = {
    "layers": 4,
    "stacks": 2,
    "residual": 12,
    "gate": 24,
    "skip": 12,
    "context": 1,
    "mixed_bands": 4,
    "scales": [20],
}


def learner(output: str = "gaussian", **changes: Any) -> WaveNetLearner:
    network = {**NETWORK, "output": output, "classes": 32, "mixtures": 2}
    settings = WaveNetSettings(mel=MEL.kind, network=network, crop_frames=8, **changes)
    torch.manual_seed(0)
    return WaveNetLearner(settings, seed=0)


def example(folder: Path, seconds: float = 0.3, level: float = 0.4) -> Example:
    at = np.arange(round(8000 * seconds)) / 8000  # of another rate than the mel
    path = folder / f"{seconds}-{level}.wav"
    soundfile.write(path, level * np.sin(2 * np.pi * 300 * at), 8000)
    return Example(audio=path, id="one", text="ah")


def test_the_announcement_names_the_learner() -> None:
    module, _, name = WAVENET.implementation.partition(":")
    assert (module, name) == (WaveNetLearner.__module__, WaveNetLearner.__name__)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"network": NETWORK, "mel": "wavlm"}, "no mel"),
        ({"network": {**NETWORK, "layers": 5}, "mel": MEL.kind}, "stacks"),
        ({"network": {**NETWORK, "colour": 1}, "mel": MEL.kind}, "colour"),
        ({"network": NETWORK}, "hop"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        WaveNetSettings(**settings)


def test_an_item_is_whole_frames(tmp_path: Path) -> None:
    item = learner().prepare(example(tmp_path, 0.3012))
    assert item["mel"].shape == (6, 61)
    assert item["samples"].shape == (61 * 20,)


def test_silence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="silence"):
        learner().prepare(example(tmp_path, level=0.0))


def numbered(frames: int) -> Item:
    """Samples that say where they are, and so does the mel."""
    mel = torch.arange(frames, dtype=torch.float32).expand(6, -1)
    return {"samples": torch.arange(20.0 * frames), "mel": mel.contiguous()}


def test_crops_keep_samples_and_mel_together() -> None:
    one = learner()
    batch = one.collate([numbered(30), numbered(5)], np.random.default_rng(3))
    assert batch["samples"].shape == (2, 160)
    assert batch["mel"].shape == (2, 6, 10)
    assert batch["real"].tolist() == [160, 100]
    first = batch["samples"][0, 0] / 20
    assert batch["mel"][0, 0].tolist() == [max(0.0, float(first) + i) for i in range(-1, 9)]
    assert batch["mel"][1, 0].tolist() == [0, 0, 1, 2, 3, 4, 4, 4, 4, 4]
    again = one.collate([numbered(30), numbered(5)], np.random.default_rng(3))
    assert torch.equal(again["samples"], batch["samples"])


def test_padding_does_not_count(tmp_path: Path) -> None:
    one = learner()
    item = one.prepare(example(tmp_path, 0.02))
    batch = one.collate([item, numbered(8)], np.random.default_rng(0))
    batch = {name: value[:1] for name, value in batch.items()}
    generator = torch.Generator()
    loss, numbers = one.loss("train", batch, generator, 0)
    batch["samples"][0, int(batch["real"][0]) :] = 0.7
    again, _ = one.loss("train", batch, generator, 0)
    assert torch.equal(again.detach(), loss.detach())
    assert float(numbers["bits"]) == pytest.approx(float(loss.detach()) / math.log(2))


@pytest.mark.parametrize("output", ["mulaw", "logistic", "gaussian"])
def test_it_learns_and_its_export_plays(tmp_path: Path, output: str) -> None:
    one = learner(output)
    items = [one.prepare(example(tmp_path, seconds)) for seconds in (0.2, 0.3)]
    optimizer = torch.optim.Adam(one.network.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        batch = one.collate(items, np.random.default_rng(step))
        loss, _ = one.loss("train", batch, torch.Generator(), step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5

    target = ExportTarget(tmp_path, str(tmp_path), "mine", "CC0-1.0", "pip install mine")
    (spec,) = one.export(target)
    assert (spec.id, spec.weights_license) == ("mine", "CC0-1.0")
    vocoder = WaveNetVocoder.from_pretrained(spec)
    (audio,) = vocoder.render(MEL.compute(example(tmp_path, 0.2).load()))
    assert audio.length == 800


@pytest.mark.parametrize("output", ["mulaw", "logistic", "gaussian"])
def test_it_conforms(tmp_path: Path, output: str) -> None:
    settings = {
        "mel": MEL.kind,
        "network": {**NETWORK, "output": output, "classes": 32, "mixtures": 2},
        "crop_frames": 8,
    }
    check_learner("wavenet", [example(tmp_path), example(tmp_path, 0.5)], settings=settings)
