"""``speechloom train`` and ``export`` from end to end."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from speechloom.cli import app
from speechloom.errors import UsageError
from speechloom.training.checkpoints import Checkpoints, read_run
from speechloom.training.log import read_log

WriteRecipe = Callable[..., Path]
RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


def invoke(*arguments: object) -> str:
    """Run the command in this process; errors are raised."""
    result = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_learners_are_listed() -> None:
    assert "toy  (speechloom-toy 1.0)  A voice of four numbers" in invoke("train", "--list")
    rows = {row["id"]: row for row in json.loads(invoke("train", "--list", "--json"))}
    assert rows["toy"]["error"] is None


def test_train_shows_what_is_normal_and_where_the_run_is(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(
        steps=3, data={"manifest": "data/train.jsonl", "validation": "data/train.jsonl"}
    )
    output = invoke("train", recipe, "--cpu")
    assert "watch loss: 1 at first, below 0.5 in the end" in output
    assert "validation at step 3: loss" in output
    assert f"done: 3 steps in {recipe.parent / 'runs' / 'recipe'}" in output
    assert list((recipe.parent / "runs" / "recipe" / "tensorboard").iterdir())


def test_export_says_how_to_install_what_it_wrote(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(steps=1)
    invoke("train", recipe, "--cpu")
    folder = recipe.parent / "out of here"
    run = recipe.parent / "runs" / "recipe"
    report = invoke("export", run, folder, "--name", "speechloom-mine")
    assert f"`pip install '{folder.resolve()}'` installs them" in report


def test_train_needs_a_recipe() -> None:
    with pytest.raises(UsageError, match="give a recipe, or --list"):
        invoke("train")


def test_an_export_is_a_package_whose_component_loads(write_recipe: WriteRecipe) -> None:
    data = {"manifest": "data/train.jsonl", "source": "Twelve tones.", "license": "CC0-1.0"}
    recipe = write_recipe(steps=3, ema=0.9, data=data)
    invoke("train", recipe, "--cpu")
    run = recipe.parent / "runs" / "recipe"
    folder = recipe.parent / "out" / "mine"
    report = invoke(
        "export", run, folder, "--name", "speechloom-mine", "--license", "CC0-1.0", "--json"
    )
    assert json.loads(report)["components"] == [{"kind": "speaker_encoder", "id": "mine-voice"}]
    card = (folder / "README.md").read_text()
    for said in ("Twelve tones.", "| licence of the data | CC0-1.0 |", "| steps | 3 (seed 0",
                 "12 examples, 504 frames, 2 named speakers (en)", "moving average, decay 0.9",
                 "| train | loss |", "Weights: CC0-1.0", "## Whose voice"):  # fmt: skip
        assert said in card
    record = json.loads((folder / "src" / "speechloom_mine" / "provenance.json").read_text())
    assert list(record["weights"]) == ["weights/recipe/voice.safetensors"]
    assert record["runs"]["recipe"]["recipe"]["optimizer"]["learning_rate"] == 0.01
    assert str(recipe.parent) not in json.dumps(record)


def test_an_export_replaces_one_of_its_name_that_is_installed(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(steps=1)
    folder, name = recipe.parent, "speechloom-older"
    invoke("train", recipe, "--cpu")
    run = folder / "runs" / "recipe"
    invoke("export", run, folder / "first", "--name", name)
    monkeypatch.syspath_prepend(folder / "first" / "src")
    installed = importlib.import_module("speechloom_older")
    run.rename(run.with_name("longer"))
    invoke("export", run.with_name("longer"), folder / "second", "--name", name)
    assert (folder / "second/src/speechloom_older/weights/longer/voice.safetensors").exists()
    assert sys.modules.pop("speechloom_older") is installed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "cannot be the name of a distribution"),
        ("speechloom", "cannot be imported"),
        ("1mine", "cannot be imported"),
    ],
)
def test_an_export_needs_a_good_name(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        invoke("export", tmp_path, tmp_path / "new", "--name", name)


def test_an_export_needs_runs_and_a_new_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        invoke("export", tmp_path, tmp_path, "--name", "speechloom-mine")
    with pytest.raises(UsageError, match="holds no checkpoint"):
        invoke("export", tmp_path, tmp_path / "new", "--name", "speechloom-mine")
    with pytest.raises(UsageError, match="runs of different names"):
        invoke("export", tmp_path, tmp_path, tmp_path / "new", "--name", "speechloom-mine")
    assert not list(tmp_path.iterdir())


def test_two_runs_with_one_component_are_two_packages(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(steps=1)
    for name in ("a", "b"):
        invoke("train", recipe, "--cpu", "--run", recipe.parent / name)
    new = recipe.parent / "new"
    with pytest.raises(UsageError, match="two runs make the speaker_encoder 'mine-voice'"):
        invoke("export", recipe.parent / "a", recipe.parent / "b", new, "--name", "speechloom-mine")
    assert not new.exists()


# In processes of their own ----------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_moments_a_run_goes_on_to_the_same_losses(
    write_recipe: WriteRecipe, command: RunCommand, toy_environment: dict[str, str]
) -> None:
    recipe = write_recipe(
        steps=400,
        settings={"adversarial": True, "dropout": 0.2, "crop": 40},
        ema=0.99,
        checkpoint={"seconds": 0.2},
    )
    whole, broken = recipe.parent / "whole", recipe.parent / "broken"
    assert command("train", recipe, "--run", whole, "--cpu").returncode == 0
    rng = np.random.default_rng()
    kills = []
    for first in (0, 100, 200):
        step = first + int(rng.integers(1, 100))
        kills.append(_kill_behind(step, recipe, broken, toy_environment))
    print("killed at steps, from checkpoints", kills)
    assert command("train", recipe, "--run", broken, "--cpu").returncode == 0
    assert read_log(broken) == read_log(whole)


def _kill_behind(
    step: int, recipe: Path, run: Path, environment: dict[str, str]
) -> tuple[int, list[int]]:
    """Kill a training when it has logged a step; returns its last one, and its checkpoints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "speechloom", "train", recipe, "--run", run, "--cpu", "--quiet"],
        env=environment,
    )
    while not any(line["step"] >= step for line in read_log(run)):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.kill()
    process.wait()
    return read_log(run)[-1]["step"], Checkpoints(run, 2).steps()


@pytest.mark.slow
def test_an_exported_package_is_built_installed_and_used(
    write_recipe: WriteRecipe,
    command: RunCommand,
    toy_environment: dict[str, str],
    tmp_path: Path,
) -> None:
    pytest.importorskip("hatchling")
    recipe = write_recipe(steps=3)
    invoke("train", recipe, "--cpu")
    package, site = tmp_path / "mine", tmp_path / "site"
    invoke("export", tmp_path / "runs" / "recipe", package, "--name", "speechloom-mine")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "--target", site, package],
        check=True,
    )  # fmt: skip
    program = (
        "import speechloom.registry as r\n"
        "voice = r.default_registry().load('speaker_encoder', 'mine-voice')\n"
        "from speechloom.container import load_audio\n"
        f"print(voice.embed([load_audio({str(tmp_path / 'data' / '3.wav')!r})])[0].vector.tolist())"
    )
    paths = [str(site), toy_environment["PYTHONPATH"]]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**toy_environment, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    vector = json.loads(done.stdout)
    assert len(vector) == 4
    assert any(abs(value) > 1e-3 for value in vector)


@pytest.mark.slow
def test_ctrl_c_saves_says_so_and_the_same_command_goes_on(
    write_recipe: WriteRecipe, command: RunCommand, toy_environment: dict[str, str]
) -> None:
    recipe = write_recipe(steps=100_000, checkpoint={"seconds": 0.1})
    process = subprocess.Popen(
        [sys.executable, "-m", "speechloom", "train", recipe, "--cpu"],
        env=toy_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoints = Checkpoints(recipe.parent / "runs" / "recipe", 2)
    while not checkpoints.steps():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, errors
    last = checkpoints.steps()[-1]
    assert f"stopped and saved at step {last} in" in output
    text = recipe.read_text()
    recipe.write_text(text.replace("steps: 100000", f"steps: {last + 2}"))
    done = command("train", recipe, "--cpu")
    assert f"going on from step {last} in" in done.stdout
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_are_one_that_accumulates_two_batches(
    write_recipe: WriteRecipe, toy_environment: dict[str, str]
) -> None:
    """Without draws, the same batches give the same steps, shared between processes or not."""
    keys: dict[str, Any] = {
        "settings": {"adversarial": True, "dropout": 0.0, "noise": 0.0},
        "freeze": ["unpack"],  # batch normalisation would see each batch for itself
        "data": {"manifest": "data/train.jsonl", "validation": "data/train.jsonl"},
        "steps": 6,
        "ema": 0.5,
    }
    alone, shared = write_recipe("alone", accumulate=2, **keys), write_recipe("shared", **keys)
    invoke("train", alone, "--cpu", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "-m", "speechloom", "train", shared, "--cpu"],
        env={**toy_environment, "PYTHONWARNINGS": "default"},  # the launcher's are not ours
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done: 6 steps") == 1
    ours, theirs = (read_log(recipe.parent / "runs" / recipe.stem) for recipe in (shared, alone))
    assert len(ours) == len(theirs) == 7
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=1e-4)
    assert read_run(shared.parent / "runs" / "shared")["about"]["processes"] == 2
