"""One learner, one generator, three pairs of tokenizer and codec; only the recipe differs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechloom.hooks import Hooks
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry, default_registry
from speechloom.testing.canvases import CanvasItem, make_canvas
from speechloom.testing.fakes import FakeSpeakerEncoder
from speechloom.testing.inputs import made_audio
from speechloom.training.example import Example
from speechloom.training.learner import ExportTarget, Item
from speechloom.values import Codes
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.learner import SpeechSECLearner

PAIRS = {
    "starter": ("starter-units", "starter-codec"),
    "hubert-dac": ("hubert-base-ls960-l9-km500", "dac-16khz"),
    "speechtokenizer": ("speechtokenizer-hubert-avg-units", "speechtokenizer-hubert-avg"),
}
PACKAGES = {
    "starter": ("speechloom_starter",),
    "hubert-dac": ("speechloom_hubert", "speechloom_dac"),
    "speechtokenizer": ("speechloom_speechtokenizer",),
}
RANDOM = {
    "starter": (),  # its weights are shipped
    "hubert-dac": (
        ("speechloom_hubert.units:HubertUnits", "speechloom_hubert._spec:LAYER_9_KM500"),
        ("speechloom_dac.codec:DacCodec", "speechloom_dac._spec:DAC_16KHZ"),
    ),
    "speechtokenizer": (
        (
            "speechloom_speechtokenizer:SpeechTokenizerUnits",
            "speechloom_speechtokenizer._spec:HUBERT_AVG_UNITS",
        ),
        (
            "speechloom_speechtokenizer:SpeechTokenizerCodec",
            "speechloom_speechtokenizer._spec:HUBERT_AVG_CODEC",
        ),
    ),
}
"""Components whose weights must be had from elsewhere: here they are tiny and random."""


def named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    for package in PACKAGES[request.param]:
        pytest.importorskip(package, reason="the pair needs its plugins")
    made = [named(kind).from_random(named(spec)) for kind, spec in RANDOM[request.param]]
    voice = FakeSpeakerEncoder.from_random(FakeSpeakerEncoder.default_spec)
    with default_registry().override(*made, voice):
        yield PAIRS[request.param]


def recipe_of(tokenizer: str, codec: str) -> SpeechSECLearner:
    settings = {
        "tokenizer": tokenizer,
        "codec": codec,
        "voice": "fake-speaker-encoder",
        "voice_seconds": 0.5,
        "network": {"size": "tiny", "dim": 32, "heads": 2, "tie_heads": True},
        "masks": {"voice_dropout": 0.0, "content_dropout": 0.0},
        "decode": {"steps": [4], "temperature": 0.5},
        "half": False,
    }
    return SpeechSECLearner(SpeechSECLearner.settings_type.model_validate(settings), seed=1)


def course(learner: SpeechSECLearner, items: list[Item], steps: int) -> list[float]:
    optimiser = torch.optim.AdamW(learner.network.parameters(), lr=2e-2)
    losses = []
    for step in range(steps):
        batch = learner.collate(items * 4, np.random.default_rng(step))
        made, _ = learner.loss("train", batch, torch.Generator().manual_seed(step), step)
        made.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        losses.append(made.item())
    return losses


def right_share(generator: SpeechSECGenerator, item: Item) -> float:
    """How many codes of the first level of a recording the generator makes of its content."""
    frames = len(item["content"])
    facts: Any = generator.spec.facts
    kind = facts.content[0]
    canvas = make_canvas(facts, "convert", kind, [CanvasItem(frames)])
    content, voices = item["content"].long()[None], item["voices"][:1]
    made = generator.fill(replace(canvas, content=content, voices=voices))
    assert isinstance(made, Codes)
    return float((made.ids[0, 0] == item["codes"][0]).float().mean())


def test_a_pair_is_learnt_decoded_and_heard(pair: tuple[str, str], tmp_path: Path) -> None:
    tokenizer, codec = pair
    recording = made_audio(12_800, number=1)
    path = tmp_path / "one.wav"
    soundfile.write(path, recording.samples.T, 16_000, subtype="FLOAT")
    learner = recipe_of(tokenizer, codec)
    item = learner.prepare(Example(audio=path, id="one"))
    untrained = right_share(_exported(learner, tmp_path / "before"), item)
    losses = course(learner, [item], 50)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:3])
    generator = _exported(learner, tmp_path / "after")
    assert right_share(generator, item) > max(0.3, 2 * untrained)

    voice = FakeSpeakerEncoder.default_spec.id
    parts = {"codec": codec, "generator": "mine", "speaker_encoder": voice}
    registry: Registry = default_registry()
    with registry.override(generator):
        pipeline = Pipeline(registry=registry, hooks=Hooks(), parts=parts)  # type: ignore[arg-type]
        assert tokenizer in [link.spec.id for link in pipeline.plan("convert").links]
        converted = pipeline.convert(recording, voice="ann", seed=1)
        assert converted.audio.length == recording.length
        longer = pipeline.continue_(recording, seconds=0.2, seed=1)
        assert longer.audio.length == recording.length + 3200
        assert np.array_equal(longer.audio.samples[:, :12_800], recording.samples)


def _exported(learner: SpeechSECLearner, folder: Path) -> SpeechSECGenerator:
    folder.mkdir()
    (spec,) = learner.export(ExportTarget(folder, str(folder), "mine", "MIT", "pip install mine"))
    return SpeechSECGenerator.from_pretrained(spec)
