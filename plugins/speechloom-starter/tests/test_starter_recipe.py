"""The recipe: runs from a text file to weights, and goes on after a kill as if nothing happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speechloom.decoding import masked_decode
from speechloom.errors import UsageError
from speechloom_speechsec.conditioned import condition
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.components.generators import UNITS_DECODE
from speechloom_starter.recipe.config import CorpusConfig, RecipeConfig, TrainConfig
from speechloom_starter.recipe.corpus import make_corpus, plan_jobs, plan_speakers
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.discriminator import Discriminators
from speechloom_starter.recipe.losses import spectral_distance
from speechloom_starter.recipe.pipeline import Recipe
from speechloom_starter.recipe.said import best_units
from speechloom_starter.weights import (
    check_manifest,
    load_codec,
    load_u2c,
    named_voices,
    read_tensors,
)

needs_engine = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")

SENTENCES = [f"This is sentence number {word}." for word in "one two three four five six".split()]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(SENTENCES))
    return path


def test_the_plan_holds_sentences_and_speakers_out() -> None:
    config = CorpusConfig(held_out_sentences=50, synthetic_speakers=20, held_out_speakers=3)
    jobs = plan_jobs(config, [f"s{i}" for i in range(200)], ["a.wav"])
    train = [j for j in jobs if j.split == "train" and not j.recording]
    held_out = {s.name for s in plan_speakers(config) if s.held_out}
    assert len(held_out) == 3
    assert max(j.sentence for j in train) < 150
    assert not held_out & {j.speaker.name for j in train}
    assert min(j.sentence for j in jobs if j.split == "eval") == 150
    assert sum(bool(j.recording) for j in jobs) == 1 + len(config.real_warps)
    assert jobs == plan_jobs(config, [f"s{i}" for i in range(200)], ["a.wav"])


def test_a_short_text_is_refused() -> None:
    with pytest.raises(UsageError, match="held out"):
        plan_jobs(CorpusConfig(), ["one", "two"], [])


def test_a_missing_engine_is_named(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="flite"):
        make_corpus(RecipeConfig.tiny().corpus, text, tmp_path / "corpus")


@needs_engine
def test_a_cut_corpus_is_completed_to_the_same_bytes(tmp_path: Path, text: Path) -> None:
    folder = tmp_path / "corpus"
    config = RecipeConfig.tiny().corpus
    make_corpus(config, text, folder)
    audio, index = (folder / "audio.i16").read_bytes(), (folder / "index.jsonl").read_bytes()
    (folder / "audio.i16").write_bytes(audio[: len(audio) // 2])
    (folder / "index.jsonl").write_bytes(index[:-10])
    make_corpus(config, text, folder)
    assert (folder / "audio.i16").read_bytes() == audio
    assert (folder / "index.jsonl").read_bytes() == index


@needs_engine
def test_a_corpus_may_be_the_beginning_of_its_plan(tmp_path: Path, text: Path) -> None:
    config = RecipeConfig.tiny().corpus
    make_corpus(config, text, tmp_path / "whole")
    make_corpus(config.model_copy(update={"utterances": 5}), text, tmp_path / "five")
    whole, five = (
        (tmp_path / name / "index.jsonl").read_text().splitlines() for name in ("whole", "five")
    )
    assert five == whole[:5] != whole


@needs_engine
def test_labels_follow_the_phone_ends_at_any_speed(tmp_path: Path, text: Path) -> None:
    make_corpus(RecipeConfig.tiny().corpus, text, tmp_path)
    corpus = Corpus(tmp_path)
    utterance = corpus.utterances[0]
    at = corpus.phone_at(0, 400)
    ends = [int(np.flatnonzero(at == i)[-1]) for i in range(len(utterance.phones) - 1) if i in at]
    wanted = [e for i, e in enumerate(utterance.ends[:-1]) if i in at]
    assert np.abs((np.array(ends) + 1) * 0.02 - np.array(wanted)).max() <= 0.0101
    twice = corpus.phone_at(0, 200, start=0.01, ratio=2.0)
    assert (twice[:50] == corpus.phone_at(0, 400)[1:101:2]).mean() > 0.8
    crop, start = corpus.crop(0, 3200, np.random.default_rng(1))
    first = round(start * 16000)
    assert np.array_equal(crop, corpus.samples(0)[first : first + 3200])


def test_the_distance_is_zero_only_for_equal_audio() -> None:
    audio = torch.randn(1, 4096, generator=torch.Generator().manual_seed(1)) * 0.1
    assert float(spectral_distance(audio, audio)) == 0.0
    assert float(spectral_distance(audio * 2, audio)) > 0.1


def test_discriminators_hear_phase() -> None:
    critics = Discriminators(sizes=(256,), width=8)
    for parameter in critics.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1, torch.Generator().manual_seed(1))
    audio = torch.randn(1, 4096, generator=torch.Generator().manual_seed(1)) * 0.1
    turned = torch.fft.irfft(torch.fft.rfft(audio) * torch.exp(torch.tensor(1.0j)), n=4096)
    difference = critics(audio)[0][0] - critics(turned)[0][0]
    assert float(difference.detach().abs().max()) > 1e-3


@needs_engine
@pytest.mark.slow
def test_the_recipe_makes_weights_that_load(tmp_path: Path, text: Path) -> None:
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    tone = 0.1 * np.sin(np.arange(16000) * 0.1)
    soundfile.write(recordings / "a.wav", tone, 16000)
    soundfile.write(recordings / "b.wav", tone[::-1], 16000)
    recipe = Recipe(RecipeConfig.tiny(), text, tmp_path / "out", recordings)
    recipe.run()
    weights = tmp_path / "out" / "weights"
    check_manifest(weights)
    audio = torch.zeros(1, 3200)
    codec = load_codec(weights)
    assert codec.decode(codec.encode(audio)).shape == (1, 3200)
    assert load_u2c(weights).config == recipe.config.u2c_model
    assert list(named_voices(weights)) == ["iris"]
    with pytest.raises(UsageError, match="there is no stage"):
        recipe.run("nothing")
    again = recipe.config.model_copy(
        update={
            "kept": ("content", "codec", "voice", "durations", "units", "t2u"),
            "polish_adversarial": False,
        }
    )
    Recipe(again, text, tmp_path / "again", recordings, start_from=weights).run()
    before, after = read_tensors("t2u", weights)[0], tmp_path / "again" / "weights"
    assert all(
        torch.equal(value, before[key]) for key, value in read_tensors("t2u", after)[0].items()
    )
    first, second = load_codec(weights).state_dict(), load_codec(after).state_dict()
    assert {key.partition(".")[0] for key in first if not torch.equal(first[key], second[key])} == {
        "from_latent",
        "decoder",
        "norm",
        "head",
    }
    assert load_u2c(after).state_dict().keys() == load_u2c(weights).state_dict().keys()


def test_a_stage_is_kept_only_from_weights(tmp_path: Path, text: Path) -> None:
    config = RecipeConfig.tiny().model_copy(update={"kept": ("content",)})
    with pytest.raises(UsageError, match="give a folder of weights"):
        Recipe(config, text, tmp_path).run("content")


def test_the_said_units_are_those_of_synthesis() -> None:
    config = SpeechSECConfig(content_vocab=123, codebooks=1, codebook_size=16, dim=16, heads=2)
    network = SpeechSEC(config, seed=1).eval()
    content = np.array([3, 4, 5, 60, 61, 62])
    row = torch.from_numpy(content)[None]
    filled = masked_decode(
        condition(network, row, torch.zeros(1, dtype=torch.int64)),
        torch.zeros(1, 1, 6, dtype=torch.int64),
        torch.zeros(1, 1, 6, dtype=torch.bool),
        torch.tensor([6]),
        seeds=torch.zeros(1, dtype=torch.int64),
        items=torch.zeros(1, dtype=torch.int64),
        stage=0,
        config=UNITS_DECODE,
    )
    assert best_units(network, content).tolist() == filled[0, 0].tolist()


@needs_engine
@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, text: Path) -> None:
    config = RecipeConfig.tiny().model_copy(
        update={"content": TrainConfig(steps=60, batch=4, seconds=0.64, warmup=1)}
    )
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    unbroken = Recipe(config, text, tmp_path / "whole")
    for stage in ("corpus", "content"):
        unbroken.run(stage)
    killed = tmp_path / "killed"
    Recipe(config, text, killed).run("corpus")
    command = [sys.executable, "-m", "speechloom_starter.recipe", str(text), str(killed)]
    command += ["--config", str(path), "--only", "content", "--checkpoint-seconds", "0"]
    command += ["--threads", str(torch.get_num_threads())]
    log, checkpoint = killed / "work" / "content.jsonl", killed / "work" / "content.pt"
    with subprocess.Popen(command, env=os.environ) as process:
        for _ in range(1200):
            time.sleep(0.05)
            if checkpoint.exists() and log.exists() and log.read_text().count("\n") >= 1:
                break
        process.send_signal(signal.SIGKILL)
    step = torch.load(checkpoint, weights_only=True)["step"]
    assert 1 <= step < 60
    subprocess.run(command, check=True)
    end, other = Recipe(config, text, killed).state("content"), unbroken.state("content")
    assert end["step"] == other["step"] == 60
    assert json.loads(log.read_text().splitlines()[-1])["step"] == 60
    for name, value in other["network"].items():
        torch.testing.assert_close(end["network"][name], value, rtol=1e-4, atol=1e-5)
