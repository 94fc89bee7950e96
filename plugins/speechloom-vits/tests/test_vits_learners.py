"""Learners: a step moves what it should, an export speaks, the second stage keeps its style."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from speechloom.registry import Registry, default_registry
from speechloom.testing import check_learner
from speechloom.testing.fakes import FakeFrontend
from speechloom.testing.inputs import made_audio
from speechloom.training.example import Example
from speechloom.training.learner import ExportTarget, Learner
from speechloom_vits.generator import VitsGenerator
from speechloom_vits.learner import VitsLearner, VitsSettings, crops
from speechloom_vits.network import Vits

TEXTS = ("hello there", "yes")
DECODER = {
    "latent_size": 8,
    "channels": 8,
    "rates": [20, 16],
    "kernels": [40, 32],
    "block": "2",
    "block_kernels": [3],
    "block_dilations": [[1, 2]],
}
SIZES = {
    "hidden": 8,
    "latent_size": 8,
    "text_layers": 1,
    "feed_forward": 8,
    "posterior_layers": 1,
    "flows": 2,
    "flow_layers": 1,
    "duration_flows": 2,
}
JUDGES = {"periods": [2], "channels": [2, 2], "scale_width": 1}


@pytest.fixture
def frontend() -> Any:
    with default_registry().override(FakeFrontend()):
        yield


def examples(folder: Path) -> list[Example]:
    made = []
    for number, text in enumerate(TEXTS):
        audio = made_audio(16_000 + 4_000 * number, number=number)
        path = folder / f"{number}.wav"
        soundfile.write(path, audio.samples[0], audio.sample_rate)
        made.append(Example(path, str(number), text=text, language="en", speaker="ann"))
    return made


def step(learner: Learner, found: list[Example], *, seed: int = 0) -> dict[str, float]:
    """One optimiser step over all phases; the losses."""
    items = [learner.prepare(one) for one in found]
    batch = learner.collate(items, np.random.default_rng(seed))
    losses = {}
    for phase in learner.phases:
        chosen = [
            value
            for name, value in learner.network.named_parameters()
            if name.startswith(phase.modules) and value.requires_grad
        ]
        optimiser = torch.optim.AdamW(chosen, 2e-3)
        loss, _ = learner.loss(phase.name, batch, torch.Generator().manual_seed(seed), 0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses[phase.name] = float(loss.detach())
    return losses


def vits(**settings: Any) -> VitsLearner:
    torch.manual_seed(0)
    sizes = {**SIZES, "decoder": DECODER}
    return VitsLearner(
        VitsSettings.model_validate(
            {
                "frontend": "fake-frontend",
                "network": sizes,
                "segment_frames": 8,
                "discriminators": JUDGES,
                **settings,
            }
        ),
        seed=0,
    )


@pytest.mark.usefixtures("frontend")
def test_vits_learns_and_its_export_speaks(tmp_path: Path) -> None:
    learner, found = vits(), examples(tmp_path)
    losses = [step(learner, found) for _ in range(8)]
    assert losses[-1]["generator"] < 0.8 * losses[0]["generator"]
    assert losses[-1]["discriminator"] < losses[0]["discriminator"]
    learner.network.eval()
    folder = tmp_path / "export"
    folder.mkdir()
    target = ExportTarget(folder, str(folder), "mine", "CC0-1.0", "pip install speechloom-mine")
    (spec,) = learner.export(target)
    registry = Registry()
    registry.register(VitsGenerator.from_pretrained(spec))
    speaker = registry.load("generator", "mine")
    (phones,) = FakeFrontend().phonemize("hello there")
    (frames,) = speaker.durations([phones])
    assert min(frames) >= 1
    network = Vits(learner.config, posterior=False)
    assert set(json.loads((folder / "config.json").read_text())) >= {"network", "phones"}
    assert network.config == speaker.config


@pytest.mark.usefixtures("frontend")
def test_examples_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    decoder = {**DECODER, "speaker_size": 4}
    learner = vits(speakers=["ann", "bob"], network={**SIZES, "decoder": decoder})
    first = examples(tmp_path)[0]
    with pytest.raises(ValueError, match="has no text"):
        learner.prepare(Example(first.audio, "0"))
    with pytest.raises(ValueError, match="each phone needs one"):
        learner.prepare(Example(first.audio, "0", text="hello " * 30, speaker="ann"))
    with pytest.raises(ValueError, match="'eve'"):
        learner.prepare(Example(first.audio, "0", text="hello", speaker="eve"))
    assert step(learner, examples(tmp_path))["generator"] > 0


def test_crops_take_what_they_say() -> None:
    values = torch.arange(12.0).reshape(2, 1, 6)
    assert crops(values, torch.tensor([0, 3]), 2).tolist() == [[[0.0, 1.0]], [[9.0, 10.0]]]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("whisper-tiny")
    config = transformers.WhisperConfig(
        d_model=8,
        encoder_layers=1,
        encoder_attention_heads=1,
        encoder_ffn_dim=8,
        decoder_layers=1,
        decoder_attention_heads=1,
        decoder_ffn_dim=8,
        vocab_size=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    torch.manual_seed(0)
    transformers.WhisperModel(config).save_pretrained(folder)
    return folder


def x_e(whisper: Path, **settings: Any) -> Any:
    from speechloom_vits.xe_learner import XELearner, XESettings

    torch.manual_seed(0)
    sizes = {
        "voice": {**SIZES, "decoder": {**DECODER, "speaker_size": 4}},
        "content_layers": 1,
        "attention_layers": 1,
        "style_layers": 1,
        "style_hidden": 8,
        "language_size": 4,
    }
    return XELearner(
        XESettings.model_validate(
            {
                "frontends": {"en": "fake-frontend"},
                "content": str(whisper),
                "sizes": sizes,
                "segment_frames": 8,
                "discriminators": JUDGES,
                **settings,
            }
        ),
        seed=0,
    )


def test_a_new_style_encoder_remembers_the_beginning() -> None:
    from speechloom_vits.xe_network import REFERENCE_FRAMES, StyleEncoder

    torch.manual_seed(0)
    encoder = StyleEncoder(bands=20, hidden=32, layers=3, size=16)
    mel = torch.randn(1, 20, REFERENCE_FRAMES)
    other = mel.clone()
    other[..., :100] = torch.randn(1, 20, 100)
    with torch.no_grad():
        style, changed = encoder(mel), encoder(other)
    assert torch.allclose(style.square().mean(), torch.ones(()))
    assert (style - changed).abs().max() > 0.001


@pytest.mark.usefixtures("frontend")
def test_the_style_learns_to_tell_named_speakers_apart(whisper: Path, tmp_path: Path) -> None:
    found = [
        dataclasses.replace(one, speaker=speaker)
        for one, speaker in zip(examples(tmp_path), ("ann", "bob"), strict=True)
    ]
    learner = x_e(whisper, speakers=["ann", "bob"], losses={"mel": 0.0, "speaker": 100.0})
    assert learner.cache_key() != x_e(whisper).cache_key()
    losses = [step(learner, found)["generator"] for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]
    with pytest.raises(ValueError, match="spoken by 'eve'"):
        learner.prepare(dataclasses.replace(found[0], speaker="eve"))


@pytest.mark.usefixtures("frontend")
def test_x_e_speech_learns_freezes_and_its_export_does_both_tasks(
    whisper: Path, tmp_path: Path
) -> None:
    import speechloom_vits
    from speechloom.pipeline import Pipeline
    from speechloom_vits.whisper import WhisperContent
    from speechloom_vits.xe_generator import XEGenerator, XEStyle

    learner, found = x_e(whisper), examples(tmp_path)
    losses = [step(learner, found) for _ in range(6)]
    assert losses[-1]["generator"] < 0.9 * losses[0]["generator"]

    frozen = ("voice.style_encoder", "voice.decoder", "voice.flow_content_to_speech")
    for name, value in learner.network.named_parameters():
        value.requires_grad_(not name.startswith(frozen))
    before = {name: value.clone() for name, value in learner.network.named_parameters()}
    step(learner, found, seed=1)
    moved = {n for n, v in learner.network.named_parameters() if not torch.equal(v, before[n])}
    assert not any(name.startswith(frozen) for name in moved)
    assert any(name.startswith("voice.flow_text_to_content") for name in moved)

    learner.network.eval()
    folder = tmp_path / "export"
    folder.mkdir()
    specs = learner.export(ExportTarget(folder, str(folder), "mine", "CC0-1.0", "pip"))
    assert [one.id for one in specs] == ["mine", "mine-style", "mine-content"]
    generator, style, content = specs
    assert [generator, style] == [
        one.model_copy(update={"install": "pip", "weights_license": "CC0-1.0"})
        for one in speechloom_vits.x_e_specs_for(folder, id="mine")
    ]
    registry = Registry()
    for component in (
        XEGenerator.from_pretrained(generator),
        XEStyle.from_pretrained(style),
        WhisperContent.from_pretrained(content),
        FakeFrontend(),
    ):
        registry.register(component)
    pipeline = Pipeline(registry=registry, parts={"generator": "mine"})
    voice = made_audio(16_000, number=4)
    said = pipeline.synthesize("hello", voice=voice, seed=1)
    assert said.audio.sample_rate == 16_000
    source = made_audio(12_345, 22_050, number=1)
    changed = pipeline.convert(source, voice=voice, seed=1)
    assert abs(changed.audio.seconds - source.seconds) < 0.021
    again = pipeline.convert(source, voice=voice, seed=1)
    assert np.array_equal(changed.audio.samples, again.audio.samples)
    for bad, why in ((made_audio(3_200), "0.20 s"), (silence(), "silent")):
        with pytest.raises(ValueError, match=why):
            pipeline.synthesize("hello", voice=bad)


def test_a_folder_of_content_is_relative_to_the_recipe(whisper: Path) -> None:
    from speechloom_vits.xe_learner import XESettings

    given = {"frontends": {"en": "fake-frontend"}, "content": whisper.name}
    context = {"folder": whisper.parent}
    settings = XESettings.model_validate(given, context=context)
    assert settings.content == str(whisper)
    assert settings.model_dump(mode="json", context=context)["content"] == whisper.name
    hub = XESettings.model_validate({**given, "content": "owner/whisper"}, context=context)
    assert hub.content == hub.model_dump(mode="json", context=context)["content"] == "owner/whisper"


def silence() -> Any:
    from speechloom.values import Audio

    return Audio(np.zeros((1, 32_000), np.float32), 16_000)


def settings_of(learner: Learner) -> dict[str, Any]:
    return learner.settings.model_dump()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.usefixtures("frontend")
def test_the_learner_of_vits_conforms(tmp_path: Path) -> None:
    check_learner("vits", examples(tmp_path), settings=settings_of(vits()))


@pytest.mark.usefixtures("frontend")
def test_the_learner_of_x_e_speech_conforms(tmp_path: Path, whisper: Path) -> None:
    check_learner("x-e-speech", examples(tmp_path), settings=settings_of(x_e(whisper)))


@pytest.mark.usefixtures("frontend")
def test_style_and_language_do_not_learn_from_durations(whisper: Path, tmp_path: Path) -> None:
    learner = x_e(whisper)
    batch = learner.collate(
        [learner.prepare(one) for one in examples(tmp_path)], np.random.default_rng(0)
    )
    learner._speak(batch, torch.Generator().manual_seed(0))
    batch["heard"].duration_loss.sum().backward()
    voice = learner.network.voice
    assert voice.duration_language.weight.grad is not None
    stopped = [*voice.style_encoder.parameters(), *voice.language.parameters()]
    assert all(one.grad is None for one in stopped)
