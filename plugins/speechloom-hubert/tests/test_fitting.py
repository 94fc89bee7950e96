"""Fitting k-means: what is found, that it can be killed, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from speechloom.errors import AudioError, UsageError, WeightsError
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio
from speechloom_hubert.encoder import SpeechEncoder
from speechloom_hubert.fitting import FitPlan, FitStep, audio_files, fit_kmeans
from speechloom_hubert.kmeans import read_kmeans
from speechloom_hubert.loading import random_encoder

PLAN = FitPlan(clusters=6, layer=1, batch_frames=90, passes=2, seed=3)


class Points(SpeechEncoder):
    """An encoder whose features are the samples of the recording, two at a time."""

    def __init__(self) -> None:
        twin = random_encoder()
        self.__dict__.update(vars(twin))

    @property
    def width(self) -> int:
        return 2

    def parts(self, audio: Audio, layer: int) -> Iterator[Tensor]:
        yield torch.from_numpy(audio.samples.reshape(-1, 2).copy())


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    return random_encoder()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Seven recordings of about a second, in folders, beside what is no audio."""
    folder = tmp_path / "audio"
    for i in range(7):
        path = folder / f"speaker{i % 2}" / f"{i}.{'flac' if i % 3 else 'wav'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, made_audio(14_000 + 500 * i, number=i).samples[0], 16_000)
    (folder / "notes.txt").write_text("no audio")
    return audio_files(folder)


def write_points(folder: Path, points: Any) -> list[Path]:
    folder.mkdir()
    for i, part in enumerate(np.array_split(points, 20)):
        samples = part.astype(np.float32).reshape(-1)
        soundfile.write(folder / f"{i:02}.wav", samples, 16_000, subtype="FLOAT")
    return audio_files(folder)


def test_files_are_found_in_all_folders(files: list[Path]) -> None:
    names = [f"{path.parent.name}/{path.name}" for path in files]
    assert names == sorted(names)
    assert names[:2] == ["speaker0/0.wav", "speaker0/2.flac"]
    assert len(names) == 7


def test_clusters_are_found_where_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [-6.0, -3.0], [4.0, -7.0]])
    points = centres[draw.integers(5, size=6000)] + 0.2 * draw.standard_normal((6000, 2))
    paths = write_points(tmp_path / "points", points)
    units = fit_kmeans(
        paths, Points(), FitPlan(5, 0, batch_frames=500), tmp_path / "km.safetensors"
    )
    distances = np.linalg.norm(units.centroids[:, None] - centres[None], axis=-1)
    assert sorted(distances.argmin(1).tolist()) == [0, 1, 2, 3, 4]
    assert distances.min(1).max() < 0.05


def test_centres_that_nothing_belongs_to_are_moved(tmp_path: Path) -> None:
    # All the first batch is one point: five of six first centres are copies that get nothing.
    draw = np.random.default_rng(0)
    rest = draw.standard_normal((3800, 2))
    points = np.concatenate([np.zeros((200, 2)), rest])
    plan = FitPlan(6, 0, batch_frames=200, passes=3)
    paths = write_points(tmp_path / "points", points)
    units = fit_kmeans(paths, Points(), plan, tmp_path / "km.safetensors")
    assert len(np.unique(units.centroids.round(3), axis=0)) == 6


def test_distance_falls_and_steps_are_reported(
    files: list[Path], encoder: SpeechEncoder, tmp_path: Path
) -> None:
    steps: list[FitStep] = []
    units = fit_kmeans(files, encoder, PLAN, tmp_path / "km.safetensors", progress=steps.append)
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) >= 5
    assert steps[-1].total_files == 14
    assert steps[-1].distance < steps[1].distance
    back = read_kmeans(tmp_path / "km.safetensors")
    assert np.array_equal(back.centroids, units.centroids)
    assert (back.layer, back.family, back.encoder, back.frame_rate) == (
        1, "hubert", "random-hubert", 50,
    )  # fmt: skip


def test_the_number_of_workers_changes_nothing(
    files: list[Path], encoder: SpeechEncoder, tmp_path: Path
) -> None:
    outputs = []
    for workers in (1, 3):
        path = tmp_path / f"{workers}.safetensors"
        fit_kmeans(files, encoder, PLAN, path, workers=workers)
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_run_that_was_stopped_ends_with_the_same_bytes(
    files: list[Path], encoder: SpeechEncoder, tmp_path: Path, steps: int
) -> None:
    straight, stopped = tmp_path / "straight.safetensors", tmp_path / "stopped.safetensors"
    fit_kmeans(files, encoder, PLAN, straight)

    def stop(step: FitStep) -> None:
        if step.step == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_kmeans(files, encoder, PLAN, stopped, save_seconds=0, progress=stop)
    assert not stopped.exists()
    resumed: list[FitStep] = []
    fit_kmeans(files, encoder, PLAN, stopped, progress=resumed.append, workers=2)
    assert stopped.read_bytes() == straight.read_bytes()
    assert not stopped.with_name("stopped.safetensors.partial").exists()
    if steps > 1:
        assert resumed[0].step > 1


def test_the_state_of_another_fit_is_refused(
    files: list[Path], encoder: SpeechEncoder, tmp_path: Path
) -> None:
    def stop(step: FitStep) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    output = tmp_path / "km.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit_kmeans(files, encoder, PLAN, output, save_seconds=0, progress=stop)
    with pytest.raises(UsageError, match="the state of another fit.*delete it"):
        fit_kmeans(files[1:], encoder, PLAN, output)
    with pytest.raises(UsageError, match="the state of another fit"):
        fit_kmeans(files, encoder, FitPlan(7, 1, 90, 2, 3), output)
    state = tmp_path / "km.safetensors.partial"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="the state .* is damaged"):
        fit_kmeans(files, encoder, PLAN, output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 1}, "at least 2 clusters"),
        ({"passes": 0}, "1 pass"),
        ({"layer": -1}, "a layer of 0 or more"),
        ({"batch_frames": 5}, r"batch_frames must be at least clusters \(6\), but is 5"),
    ],
)
def test_senseless_plans_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FitPlan(**{"clusters": 6, "layer": 1, **options})


def test_too_little_audio_is_refused(
    files: list[Path], encoder: SpeechEncoder, tmp_path: Path
) -> None:
    plan = FitPlan(clusters=5000, layer=1)
    with pytest.raises(UsageError, match=r"have \d+ frames, but 5000 clusters need"):
        fit_kmeans(files, encoder, plan, tmp_path / "km.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no audio files"):
        audio_files(tmp_path / "empty")
    with pytest.raises(UsageError, match="is no folder"):
        audio_files(tmp_path / "missing")


def test_a_broken_file_is_named(files: list[Path], encoder: SpeechEncoder, tmp_path: Path) -> None:
    files[3].write_bytes(b"no audio at all")
    with pytest.raises(AudioError, match=files[3].name):
        fit_kmeans(files, encoder, PLAN, tmp_path / "km.safetensors", workers=2)


def test_threads_are_given_back(files: list[Path], encoder: SpeechEncoder, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    fit_kmeans(files, encoder, PLAN, tmp_path / "km.safetensors", workers=2)
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_killed_process_goes_on(
    files: list[Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    audio, folder = files[0].parents[1], checkpoint()

    def command(output: Path) -> list[str]:
        options = "--layer 2 --clusters 6 --batch-frames 60 --passes 40 --save-seconds 0"
        return [
            sys.executable, "-m", "speechloom_hubert", "fit", str(audio), "-o", str(output),
            "--encoder", str(folder), *options.split(),
        ]  # fmt: skip

    straight, killed = tmp_path / "straight.safetensors", tmp_path / "killed.safetensors"
    subprocess.run(command(straight), check=True)
    process = subprocess.Popen(command(killed))
    state = tmp_path / "killed.safetensors.partial"
    while not state.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    subprocess.run(command(killed), check=True)
    assert killed.read_bytes() == straight.read_bytes()
