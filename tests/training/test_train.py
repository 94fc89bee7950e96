"""Whole trainings of the toy learner, in this process."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from speechloom_toy.learner import ToyLearner
from torch import Tensor

from speechloom.errors import OutputError, PluginError, UsageError, WeightsError
from speechloom.training.checkpoints import Checkpoints, read_run
from speechloom.training.log import read_log
from speechloom.training.train import Outcome, train

WriteRecipe = Callable[..., Path]
FullDisk = Callable[[int], AbstractContextManager[None]]
Loss = Callable[..., tuple[Tensor, dict[str, Any]]]

ALL = {
    "settings": {"adversarial": True, "discriminator_start": 2, "crop": 30, "dropout": 0.2},
    "data": {"manifest": "data/train.jsonl", "validation": "data/train.jsonl"},
    "ema": 0.9,
    "accumulate": 2,
    "validate": {"every": 4},
    "checkpoint": {"seconds": 0, "keep": 3},
}
"""A recipe with everything that a resumed run must get right."""


def run(recipe: Path, name: str = "run") -> Outcome:
    return train(recipe, run=recipe.parent / name, cpu=True, quiet=True)


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run until the loss of a step ends the process, as far as a test can."""
    original: Loss = ToyLearner.loss

    def killed(step: int, recipe: Path, name: str = "run") -> None:
        def loss(self: ToyLearner, phase: str, batch: Any, rng: Any, now: int) -> Any:
            if now == step and self.network.training:
                raise KeyboardInterrupt
            return original(self, phase, batch, rng, now)

        with monkeypatch.context() as patch:
            patch.setattr(ToyLearner, "loss", loss)
            with pytest.raises(KeyboardInterrupt):
                run(recipe, name)

    return killed


@pytest.mark.parametrize("keys", [ALL, {"checkpoint": {"seconds": 0}}], ids=["all", "plain"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_unbroken_one(
    write_recipe: WriteRecipe, killed_at: Callable[..., None], keys: dict[str, Any]
) -> None:
    recipe = write_recipe(**keys)
    assert run(recipe, "unbroken") == Outcome(recipe.parent / "unbroken", 12, 0)
    for step in (3, 8):
        killed_at(step, recipe, "broken")
    run(recipe, "broken")
    log = read_log(recipe.parent / "unbroken")
    assert [line["step"] for line in log if line["kind"] == "train"] == list(range(1, 13))
    assert read_log(recipe.parent / "broken") == log
    ours, theirs = (read_run(recipe.parent / name) for name in ("broken", "unbroken"))
    _assert_same(ours, theirs)


def _assert_same(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            _assert_same(ours[key], theirs[key])
    elif isinstance(ours, Tensor):
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def test_steps_after_the_checkpoint_are_not_logged_twice(
    write_recipe: WriteRecipe, killed_at: Callable[..., None]
) -> None:
    recipe = write_recipe(checkpoint={"seconds": 0})
    killed_at(6, recipe)
    newest = Checkpoints(recipe.parent / "run", 2)
    newest.path(6).unlink()  # as if the kill had come before the checkpoint, but after its steps
    run(recipe)
    assert [line["step"] for line in read_log(recipe.parent / "run")] == list(range(1, 13))


def test_training_learns(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(steps=60, optimizer={"learning_rate": 0.1}, settings={"noise": 0})
    run(recipe)
    losses = [line["loss"] for line in read_log(recipe.parent / "run")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_each_phase_moves_its_own_weights_only(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"adversarial": True, "discriminator_start": 12}
    recipe = write_recipe(settings=settings, steps=4)
    run(recipe, "late")
    late = read_run(recipe.parent / "late")
    assert not late["optimizers"]["critic"]["state"]  # the critic has not begun
    assert late["optimizers"]["voice"]["state"]
    other = write_recipe(settings=settings | {"discriminator_start": 0}, steps=4)
    run(other, "both")
    lines = read_log(recipe.parent / "both")
    assert {"critic/loss", "critic/real", "voice/loss", "voice/distance"} <= lines[0].keys()
    critic = "critic.0.weight"
    assert not torch.equal(
        late["network"][critic], read_run(recipe.parent / "both")["network"][critic]
    )


def test_frozen_modules_rest(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(freeze=["unpack", "pack.1"], steps=3)
    run(recipe)
    network = read_run(recipe.parent / "run")["network"]
    assert network["unpack.0.num_batches_tracked"] == 0
    assert network["unpack.0.running_mean"].tolist() == [0.0] * 4


def test_accumulated_batches_make_one_step(write_recipe: WriteRecipe, corpus: Path) -> None:
    """Without draws, twelve batches of one example are one batch of twelve as long."""
    lines = [json.loads(line) | {"end": 0.2} for line in corpus.read_text().splitlines()]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = {
        "settings": {"dropout": 0.0, "noise": 0.0},
        "freeze": ["unpack"],  # batch normalisation would see each batch for itself
        "steps": 1,
    }
    one = write_recipe("one", batch={"frames": 999, "max_items": 12}, **keys)
    twelve = write_recipe("twelve", batch={"frames": 999, "max_items": 1}, accumulate=12, **keys)
    (first,), (second,) = (read_log(run(recipe, recipe.stem).run) for recipe in (one, twelve))
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["norm"] == pytest.approx(second["norm"], rel=1e-4)
    assert first["norm"] > 1e-3


def test_validation_has_the_same_draws_every_time(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(
        data=ALL["data"],
        validate={"every": 1},
        steps=4,
        optimizer={"learning_rate": 1e-30},
        freeze=["unpack"],
        settings={"noise": 3.0},
    )
    run(recipe)
    log = read_log(recipe.parent / "run")
    losses = {
        kind: {x["loss"] for x in log if x["kind"] == kind} for kind in ("train", "validation")
    }
    assert len(losses["validation"]) == 1
    assert len(losses["train"]) == 4


def test_start_from_takes_the_weights_of_a_run(write_recipe: WriteRecipe) -> None:
    first = write_recipe(ema=0.5)
    run(first, "first")
    second = write_recipe("second", start_from="first", steps=1, optimizer={"learning_rate": 1e-30})
    run(second, "second")
    assert torch.equal(
        read_run(first.parent / "second")["network"]["pack.0.weight"],
        read_run(first.parent / "first")["average"]["pack.0.weight"],
    )


def test_a_checkpoint_of_another_network_is_no_start(
    write_recipe: WriteRecipe, tmp_path: Path
) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"other\.pt does not fit ToyNetwork: it lacks pack"):
        run(write_recipe(start_from="other.pt"))


# What is refused --------------------------------------------------------------------------------


def test_another_recipe_does_not_go_on(write_recipe: WriteRecipe) -> None:
    run(write_recipe(steps=3))
    other = write_recipe(steps=5, seed=1, optimizer={"learning_rate": 0.02}, settings={"crop": 5})
    with pytest.raises(UsageError) as caught:
        run(other)
    message = str(caught.value)
    assert "seed (was 0, is 1)" in message
    assert "optimizer.learning_rate (was 0.01, is 0.02)" in message
    assert "settings.crop (was None, is 5)" in message
    assert "steps" not in message


def test_more_steps_and_other_watching_go_on(write_recipe: WriteRecipe) -> None:
    run(write_recipe(steps=3))
    more = write_recipe(steps=5, checkpoint={"keep": 5}, validate={"every": 2}, log_every=2)
    assert run(more).step == 5


def test_a_setting_that_an_older_version_did_not_know_has_its_default(
    write_recipe: WriteRecipe,
) -> None:
    recipe = write_recipe(steps=3)
    done = run(recipe)
    (newest,) = (done.run / "checkpoints").glob("step-*3.pt")
    state = torch.load(newest, weights_only=True)
    del state["recipe"]["settings"]["noise"], state["recipe"]["ema"]
    torch.save(state, newest)
    with pytest.raises(UsageError, match=r"settings\.noise \(was 0\.1, is 0\.5\)"):
        run(write_recipe(steps=5, settings={"noise": 0.5}))
    assert run(write_recipe(steps=5)).step == 5


def test_a_setting_that_is_no_more_does_not_go_on(write_recipe: WriteRecipe) -> None:
    done = run(write_recipe(steps=3))
    (newest,) = (done.run / "checkpoints").glob("step-*3.pt")
    state = torch.load(newest, weights_only=True)
    state["recipe"]["settings"]["colour"] = "red"
    torch.save(state, newest)
    with pytest.raises(UsageError, match=r"settings\.colour \(was 'red', is None\)"):
        run(write_recipe(steps=5))


def test_other_data_do_not_go_on(write_recipe: WriteRecipe, corpus: Path) -> None:
    run(write_recipe(steps=3))
    corpus.write_text("".join(corpus.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UsageError, match="data fingerprint"):
        run(write_recipe(steps=5))


def test_a_bad_line_stops_before_anything_is_trained_and_harms_no_checkpoint(
    write_recipe: WriteRecipe, corpus: Path
) -> None:
    run(write_recipe(steps=3))
    before = {path: path.read_bytes() for path in corpus.parent.parent.rglob("step-*")}
    with corpus.open("a") as file:
        file.write('{"audio": "0.w')
    with pytest.raises(UsageError, match=r"train\.jsonl:13: not JSON"):
        run(write_recipe(steps=5))
    assert {path: path.read_bytes() for path in corpus.parent.parent.rglob("step-*")} == before


def test_examples_that_cannot_be_prepared_are_reported_together(
    write_recipe: WriteRecipe, corpus: Path, tmp_path: Path
) -> None:
    (corpus.parent / "3.wav").write_bytes(b"RIFF")
    lines = corpus.read_text().splitlines()
    lines[6] = json.dumps({"audio": "6.wav", "text": "la lo"})
    corpus.write_text("\n".join(lines))
    (tmp_path / "words").write_text("la")
    with pytest.raises(UsageError) as caught:
        run(write_recipe(settings={"words": "words"}))
    assert str(caught.value).startswith("2 examples cannot be used: ")
    pattern = r"train\.jsonl:4: .*3\.wav is not audio.*train\.jsonl:7: the word 'lo' is not in"
    caught.match(pattern)
    assert not (tmp_path / "run").exists()


def test_an_example_larger_than_a_batch_is_named(write_recipe: WriteRecipe) -> None:
    with pytest.raises(UsageError, match=r"6 examples do not fit.*train\.jsonl:12, has 64 frames"):
        run(write_recipe(batch={"frames": 42}))
    data = {"manifest": "data/train.jsonl", "max_frames": 42}
    outcome = run(write_recipe(batch={"frames": 42}, data=data, steps=1))
    assert read_run(outcome.run)["about"]["examples"] == 6


def test_an_unknown_learner_is_named(write_recipe: WriteRecipe) -> None:
    with pytest.raises(PluginError, match="no learner 'toi'; did you mean 'toy'"):
        run(write_recipe(learner="toi"))


# What goes wrong while it runs ------------------------------------------------------------------


def test_prepared_items_are_made_once_and_remade_when_damaged(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared: list[str] = []
    original = ToyLearner.prepare

    def prepare(self: ToyLearner, example: Any) -> Any:
        prepared.append(example.id)
        if len(prepared) == 8:
            raise KeyboardInterrupt
        return original(self, example)

    monkeypatch.setattr(ToyLearner, "prepare", prepare)
    recipe = write_recipe(steps=2)
    with pytest.raises(KeyboardInterrupt):
        run(recipe)
    run(recipe)
    assert len(prepared) == 8 + 5  # seven are there; the eighth and the others are made
    losses = read_log(tmp_path / "run")
    truncated, flipped = sorted((tmp_path / "cache").glob("*/*.safetensors"))[:2]
    truncated.write_bytes(truncated.read_bytes()[:-9])
    data = bytearray(flipped.read_bytes())
    data[-2] ^= 1
    flipped.write_bytes(data)
    run(write_recipe(steps=2), "again")
    assert len(prepared) in (14, 15)  # the flipped one is found when a batch reads it
    run(write_recipe(steps=12), "again")
    assert len(prepared) == 15
    assert read_log(tmp_path / "again")[:2] == losses


def test_steps_that_are_not_finite_are_skipped_and_counted(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {3, 4, 7}
    _break_losses(monkeypatch, bad)
    outcome = run(write_recipe())
    state = read_run(outcome.run)
    assert state["skipped"] == 3
    assert all(bool(value.isfinite().all()) for value in state["network"].values())
    losses = [line["loss"] for line in read_log(outcome.run)]
    assert {step for step, loss in enumerate(losses) if math.isnan(loss)} == bad


def test_many_steps_that_are_not_finite_end_the_run(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    _break_losses(monkeypatch, set(range(5, 100)))
    with pytest.raises(PluginError, match="not finite in 20 steps in a row, up to step 25"):
        run(write_recipe(steps=100))


def _break_losses(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    original: Loss = ToyLearner.loss

    def loss(self: ToyLearner, phase: str, batch: Any, rng: Any, step: int) -> Any:
        value, numbers = original(self, phase, batch, rng, step)
        return value * (math.nan if step in steps else 1.0), numbers

    monkeypatch.setattr(ToyLearner, "loss", loss)


def test_a_full_disk_leaves_the_old_checkpoints(
    write_recipe: WriteRecipe, killed_at: Callable[..., None], full_disk: FullDisk
) -> None:
    recipe = write_recipe(checkpoint={"seconds": 0, "keep": 3})
    run(recipe, "unbroken")
    killed_at(5, recipe)
    folder = recipe.parent / "run" / "checkpoints"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == [f"step-{step:09d}.pt" for step in (3, 4, 5)]
    lost = r"step 6 was not saved: .*step 5 is safe; make room"
    with full_disk(8000), pytest.raises(OutputError, match=lost):
        run(recipe)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run(recipe)
    assert read_log(recipe.parent / "run") == read_log(recipe.parent / "unbroken")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    original: Loss = ToyLearner.loss

    def loss(self: ToyLearner, phase: str, batch: Any, rng: Any, step: int) -> Any:
        if step == 4:
            os.kill(os.getpid(), number)
        return original(self, phase, batch, rng, step)

    recipe = write_recipe(checkpoint={"seconds": 1e6})
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(ToyLearner, "loss", loss)
        assert run(recipe) == Outcome(recipe.parent / "run", 5, number)
    assert signal.getsignal(number) is handler
    assert run(recipe).step == 12


def test_a_damaged_checkpoint_says_where_to_go_on(write_recipe: WriteRecipe) -> None:
    recipe = write_recipe(checkpoint={"seconds": 0})
    run(recipe)
    path = Checkpoints(recipe.parent / "run", 2).path(12)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match="delete it to go on from step 11"):
        run(recipe)
    path.unlink()
    assert run(recipe).step == 12


def test_an_extra_state_that_cannot_be_read_again_is_not_written(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyLearner, "extra_state", lambda self: {"seen": {"path": Path()}})
    with pytest.raises(PluginError, match=r"extra_state\(\)\['seen'\]\['path'\] .* PosixPath"):
        run(write_recipe(steps=1))


def test_a_loss_without_weights_is_the_plugins_fault(
    write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyLearner, "loss", lambda *_: (torch.tensor(1.0), {}))
    with pytest.raises(PluginError, match="depends on no weight that learns"):
        run(write_recipe(steps=1))
