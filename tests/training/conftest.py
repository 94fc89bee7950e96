"""A corpus of tones, recipes on it, and the toy plugin, which nobody has to install."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechloom.container import save_audio
from speechloom.values import Audio

TOY = Path(__file__).parent / "toy"
sys.path.insert(0, str(TOY))  # the toy plugin is found as if it were installed

WriteRecipe = Callable[..., Path]
RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def the_extra_train() -> None:
    """Trainings need more than the core does."""
    for package in ("accelerate", "tensorboard", "yaml"):
        pytest.importorskip(package, reason="needs the extra `train`")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve tones of 0.2 to 0.7 s and their manifest."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        seconds = 0.2 + 0.04 * number
        time = np.arange(round(8000 * seconds)) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 100 * number) * time)
        samples = (tone + 0.01 * rng.standard_normal(len(time))).astype(np.float32)
        save_audio(Audio(samples[None], 8000), folder / f"{number}.wav")
        speaker = "anna" if number % 2 else "bert"
        lines.append({"audio": f"{number}.wav", "text": "la", "speaker": speaker, "language": "en"})
    manifest = folder / "train.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


@pytest.fixture
def write_recipe(corpus: Path, tmp_path: Path) -> WriteRecipe:
    """Write a recipe for the toy learner; keys that are given replace or join the usual ones."""
    import yaml

    def write(name: str = "recipe", **keys: Any) -> Path:
        usual: dict[str, Any] = {
            "learner": "toy",
            "data": {"manifest": "data/train.jsonl"},
            "batch": {"frames": 200, "max_items": 4},
            "optimizer": {"learning_rate": 0.01, "warmup": 3},
            "steps": 12,
            "log_every": 1,
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(usual | keys))
        return path

    return write


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """A while in which no file can grow beyond so many bytes."""

    @contextmanager
    def full(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture
def toy_environment() -> dict[str, str]:
    """The environment of a process that finds the toy plugin."""
    path = os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}


@pytest.fixture
def command(toy_environment: dict[str, str]) -> RunCommand:
    """Run ``python -m speechloom`` in a process of its own, with the toy plugin."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "speechloom", *map(str, arguments)],
            env=toy_environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run
