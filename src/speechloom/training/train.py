"""`train`: from a recipe to a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from speechloom.errors import OutputError, SpeechloomError
from speechloom.parts import core_version
from speechloom.training.checkpoints import (
    Checkpoints,
    check_same_recipe,
    weights_to_start_from,
)
from speechloom.training.cuts import read_cuts
from speechloom.training.dataset import Dataset, prepare_all
from speechloom.training.draws import Purpose, seeded
from speechloom.training.example import Example
from speechloom.training.interruption import Interruption, noticed_signals
from speechloom.training.learner import Learner
from speechloom.training.learners import LearnerRecord, find_learner, find_learners, learner_class
from speechloom.training.loop import Job, Loop
from speechloom.training.manifest import read_manifest
from speechloom.training.processes import Processes
from speechloom.training.progress import Display
from speechloom.training.recipe import (
    Recipe,
    check_settings,
    from_record,
    read_recipe,
    recorded,
)

__all__ = ["Outcome", "build_learner", "train"]


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        run: its folder.
        step: steps done.
        signal: that stopped it before the last step; 0 when none did.
    """

    run: Path
    step: int
    signal: int


def train(
    recipe_path: Path, *, run: Path | None = None, cpu: bool = False, quiet: bool = False
) -> Outcome:
    """Train what a recipe says, or go on with it where a run of it was stopped.

    Args:
        recipe_path: the YAML file.
        run: folder of the run; ``runs/<name of the recipe>`` beside the recipe by default.
        cpu: stay on the CPU although there is a GPU.
        quiet: show nothing.

    Returns:
        How it ended.

    Raises:
        UsageError: the recipe or the data are wrong, or the run was begun with another recipe.
        PluginError: the learner cannot be used, or its loss is not finite.
        WeightsError: a checkpoint is damaged or does not fit.
        OutputError: the disk is full; the checkpoints stay.
    """
    recipe = read_recipe(recipe_path)
    record = find_learner(recipe.learner, find_learners())
    folder = recipe_path.absolute().parent
    run = run or folder / "runs" / recipe_path.stem
    processes = Processes(cpu=cpu)
    silent = quiet or not processes.is_first
    with noticed_signals() as interruption, Display(silent=silent) as display:
        job = _job(recipe, record, recipe_path, run, processes, display)
        loop = _loop(job, processes, display, interruption)
        display.legend(job.learner.watch)
        loop.run()
        processes.end()
    return Outcome(run, loop.step, interruption.signal)


def build_learner(record: LearnerRecord, settings: BaseModel, seed: int) -> Learner:
    """Build a learner with the initial weights of a seed.

    Args:
        record: which.
        settings: as `check_settings` gave them.
        seed: of the recipe.
    """
    import torch

    with seeded(torch.device("cpu"), Purpose.weights, seed):
        return learner_class(record)(settings, seed=seed)


def _job(
    recipe: Recipe,
    record: LearnerRecord,
    path: Path,
    run: Path,
    processes: Processes,
    display: Display,
) -> Job:
    """Read and prepare everything; nothing of the run is written before all of it is right."""
    settings = check_settings(learner_class(record).settings_type, recipe, path)
    training = _read(recipe.data.manifest, recipe.data.cuts)
    held_out = recipe.data.validation
    kind = recipe.data.manifest is not None
    validation = (
        None if held_out is None else _read(held_out if kind else None, None if kind else held_out)
    )
    learner = build_learner(record, settings, recipe.seed)
    learner.network.to(processes.device)
    learner.device = processes.device

    def prepared(examples: tuple[Example, ...], what: str) -> Dataset:
        display.begin(what, len(examples))
        return prepare_all(
            examples,
            learner,
            recipe,
            processes,
            lambda done, total: display.advance(what, done, total),
        )

    dataset = prepared(training, "prepare")
    if dataset.left_out:
        display.say(f"{dataset.left_out} examples longer than data.max_frames are left out")
    return Job(
        recipe=recipe,
        record=recorded(recipe, settings, path.absolute().parent)
        | {"data fingerprint": dataset.fingerprint},
        learner=learner,
        training=dataset,
        validation=None if validation is None else prepared(validation, "prepare validation"),
        run=run,
        about=_about(recipe, record, path, dataset, processes),
    )


def _read(manifest: Path | None, cuts: Path | None) -> tuple[Example, ...]:
    if manifest is not None:
        return read_manifest(manifest)
    assert cuts is not None, "the recipe was checked"
    return read_cuts(cuts)


def _about(
    recipe: Recipe, record: LearnerRecord, path: Path, dataset: Dataset, processes: Processes
) -> Mapping[str, Any]:
    speakers = {one.speaker for one in dataset.examples if one.speaker}
    languages = sorted({one.language for one in dataset.examples if one.language})
    return {
        "speechloom": core_version(),
        "learner": record.distribution,
        "folder": str(path.absolute().parent),
        "device": processes.device.type,
        "processes": processes.count,
        "examples": len(dataset.examples),
        "frames": int(sum(dataset.lengths)),
        "speakers": len(speakers),
        "languages": languages,
        "source": recipe.data.source,
        "license": recipe.data.license,
    }


def _completed(record: Mapping[str, Any], job: Job) -> Mapping[str, Any]:
    """The record of a checkpoint with the defaults of what an older version did not know."""
    folder = Path(job.about["folder"])
    try:
        recipe = from_record(record, folder)
        settings = check_settings(job.learner.settings_type, recipe, folder / "recipe")
    except SpeechloomError:
        return record  # it holds what is no setting any more: the difference is named
    return {**record, **recorded(recipe, settings, folder)}


def _loop(job: Job, processes: Processes, display: Display, interruption: Interruption) -> Loop:
    """The loop at the step where the run was stopped, or at its beginning."""
    state = Checkpoints(job.run, job.recipe.checkpoint.keep).newest()
    if state is not None:
        check_same_recipe(_completed(state["recipe"], job), job.record, job.run)
    elif job.recipe.start_from is not None:
        # Before there is a loop: its optimisers hold on to the weights that they find.
        tensors = weights_to_start_from(job.recipe.start_from)
        job.learner.start_from(tensors, str(job.recipe.start_from))
        job.learner.network.to(processes.device)
    if processes.is_first:
        try:
            job.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{job.run} cannot be made: {error.strerror}") from error
    loop = Loop(job, processes, display, interruption)
    if state is not None:
        loop.resume(state)
        display.say(f"going on from step {loop.step} in {job.run}")
    return loop
