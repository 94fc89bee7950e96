"""Checks for learners: that what they prepare, lose, keep and export is what they promise.

They hold a learner to the sentences of `speechloom.training.learner.Learner` on which the loop
relies: without them a cache, a resumed run or a second process gives other numbers in silence.
"""

from __future__ import annotations

import importlib
import io
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from speechloom.loading import build
from speechloom.records import record_of
from speechloom.spec import ComponentSpec
from speechloom.testing.checks.common import assert_light
from speechloom.testing.checks.outcomes import assert_same, leaves
from speechloom.testing.checks.table import Check, require
from speechloom.testing.isolation import blocked_network, random_state, restored_random_state
from speechloom.training.draws import Purpose, numpy_generator, seeded, torch_generator
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner
from speechloom.training.phases import PhaseOptimizer, phase_optimizers
from speechloom.training.recipe import OptimizerSettings
from speechloom.training.spec import LearnerSpec

__all__ = ["LEARNER_CHECKS", "LearnerSubject"]

CPU = torch.device("cpu")
SEED = 0


@dataclass(frozen=True)
class LearnerSubject:
    """The learner that is checked, and what it learns from.

    Attributes:
        learner: its class.
        settings: checked by the class's ``settings_type``.
        examples: at least two, of different lengths.
        spec: how it is announced; None when it is not known.
        spec_module: module whose import must be light; None when it is not known.
    """

    learner: type[Learner]
    settings: BaseModel
    examples: tuple[Example, ...]
    spec: LearnerSpec | None = None
    spec_module: str | None = None

    def build(self) -> Learner:
        """A fresh learner with the initial weights of one seed."""
        with seeded(CPU, Purpose.weights, SEED):
            return self.learner(self.settings, seed=SEED)

    @cached_property
    def items(self) -> list[Item]:
        """What a learner prepares of the examples."""
        learner = self.build()
        return [learner.prepare(example) for example in self.examples]


LEARNER_CHECKS: list[Check] = []
"""All of them, in the order in which they run."""


def check(function: Callable[[LearnerSubject], None]) -> Callable[[LearnerSubject], None]:
    """Enter a function ``check_<name>``."""
    LEARNER_CHECKS.append(Check(function.__name__.removeprefix("check_"), (), function))
    return function


# What it says of itself -----------------------------------------------------------------------


@check
def check_implementation_is_named(subject: LearnerSubject) -> None:
    """``implementation`` of the spec names the class."""
    spec = require(subject.spec, "the spec is not known")
    module, _, name = spec.implementation.partition(":")
    named = getattr(importlib.import_module(module), name, None)
    assert named is subject.learner, f"{spec.implementation} is {named}, not {subject.learner}"


@check
def check_spec_import_is_light(subject: LearnerSubject) -> None:
    """Importing the module of the spec imports no torch and nothing else that is heavy."""
    assert_light(require(subject.spec_module, "the module of the spec is not known"))


@check
def check_settings_refuse_unknown_keys(subject: LearnerSubject) -> None:
    """A misspelt setting is refused, and not left out."""
    key = "no_setting_has_this_name"
    try:
        subject.learner.settings_type.model_validate({key: 1})
    except ValidationError as error:
        if any(key in map(str, one["loc"]) for one in error.errors()):
            return
    raise AssertionError('`settings_type` takes any key; give it ConfigDict(extra="forbid")')


@check
def check_built_alike_from_one_seed(subject: LearnerSubject) -> None:
    """The initial weights depend on the seed alone."""
    first = subject.build().network.state_dict()
    with restored_random_state(shift=3):
        again = subject.build().network.state_dict()
    assert_same(first, again, "initial weights of one seed", tolerance=0.0)


@check
def check_phases_share_the_weights(subject: LearnerSubject) -> None:
    """Every weight learns in one phase, and in no other."""
    _optimizers(subject.build())


# Data -----------------------------------------------------------------------------------------


@check
def check_cache_key_stays(subject: LearnerSubject) -> None:
    """``cache_key`` is text, the same for the same settings."""
    key, again = subject.build().cache_key(), subject.build().cache_key()
    assert isinstance(key, str), f"`cache_key` must be text, but is {key!r}"
    assert key == again, f"`cache_key` of the same settings differs: {key!r} and {again!r}"


@check
def check_prepares_tensors(subject: LearnerSubject) -> None:
    """``prepare`` gives named, finite tensors without a graph, and ``length`` their frames."""
    learner = subject.build()
    for item in subject.items:
        assert item, "`prepare` must give at least one tensor"
        for name, value in item.items():
            assert isinstance(value, Tensor), f"`prepare` gives {name} as {type(value).__name__}"
            assert not value.requires_grad, f"`prepare` gives {name} with its graph"
            finite = not value.is_floating_point() or bool(value.isfinite().all())
            assert finite, f"`prepare` gives {name} with values that are not finite"
        length = learner.length(item)
        assert isinstance(length, int), f"`length` must be an int, but is {length!r}"
        assert length >= 1, f"`length` must be at least 1, but is {length}"


@check
def check_prepares_alike(subject: LearnerSubject) -> None:
    """``prepare`` gives the same whenever it is called, and draws from no global generator."""
    learner, other = subject.build(), subject.build()
    for example in subject.examples:
        before = random_state()
        first = learner.prepare(example)
        assert random_state() == before, "`prepare` changed the global random state"
        with restored_random_state(shift=3):
            assert_same(first, other.prepare(example), "`prepare` of one example")


@check
def check_collates_alike(subject: LearnerSubject) -> None:
    """``collate`` draws from its generator alone, and leaves the items as they are."""
    learner = subject.build()
    kept = [{name: value.clone() for name, value in item.items()} for item in subject.items]
    before = random_state()
    first = _batch(learner, subject.items)
    assert random_state() == before, "`collate` changed the global random state"
    with restored_random_state(shift=3):
        again = _batch(learner, subject.items)
    assert_same(first, again, "`collate` with the same draws", tolerance=0.0)
    assert_same(kept, subject.items, "`collate` changed its items", tolerance=0.0)


# Learning -------------------------------------------------------------------------------------


@check
def check_losses_are_scalars(subject: LearnerSubject) -> None:
    """Each phase gives a finite scalar with its graph, and finite numbers without one."""
    learner = subject.build()
    learner.network.train()
    batch = _batch(learner, subject.items)
    for phase in learner.phases:
        loss, numbers = _loss(learner, phase.name, batch, phase.start)
        assert loss.dim() == 0, f"the loss of {phase.name} has the shape {list(loss.shape)}"
        assert loss.requires_grad, f"the loss of {phase.name} depends on no weight"
        for name, value in {"loss": loss.detach(), **numbers}.items():
            has_graph = isinstance(value, Tensor) and value.requires_grad
            assert not has_graph, f"the number {name} keeps its graph: detach it"
            assert math.isfinite(value), f"{name} of {phase.name} is {_number(value)}"


@check
def check_takes_a_batch_of_one(subject: LearnerSubject) -> None:
    """An item alone can be learnt from, as the last one of an epoch may have to be."""
    for item in subject.items:
        learner = subject.build()
        numbers = _steps(learner, [item], 1)
        wrong = [name for name, value in numbers[0].items() if not math.isfinite(value)]
        assert not wrong, f"of one item alone, {', '.join(wrong)} is not finite"


@check
def check_every_weight_learns(subject: LearnerSubject) -> None:
    """Every weight of a phase gets a gradient from the phase's loss."""
    learner = subject.build()
    learner.network.train()
    batch = _batch(learner, subject.items)
    for optimizer in _optimizers(learner):
        loss, _ = _loss(learner, optimizer.phase.name, batch, optimizer.phase.start)
        torch.autograd.backward(loss, inputs=list(optimizer.parameters))
    idle = [
        name for name, p in learner.network.named_parameters() if p.requires_grad and p.grad is None
    ]
    assert not idle, f"{', '.join(idle)} got no gradient: make buffers of what does not learn"


@check
def check_repeats_its_losses(subject: LearnerSubject) -> None:
    """Two runs of one seed have the same losses, whatever was drawn elsewhere."""
    first = _steps(subject.build(), subject.items, 3)
    with restored_random_state(shift=3):
        again = _steps(subject.build(), subject.items, 3)
    assert_same(first, again, "the losses of two runs of one seed")


@check
def check_learns_in_bfloat16(subject: LearnerSubject) -> None:
    """Under autocast to bfloat16 the losses are finite, too."""
    learner = subject.build()
    with torch.autocast("cpu", torch.bfloat16):
        (numbers,) = _steps(learner, subject.items, 1)
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    assert not wrong, f"in bfloat16 {', '.join(wrong)} is not finite"


@check
def check_validation_changes_nothing(subject: LearnerSubject) -> None:
    """In evaluation mode ``measure`` moves nothing, and repeats itself."""
    learner = subject.build()
    learner.network.eval()
    before = _state(learner)
    with torch.no_grad(), seeded(CPU, Purpose.validation, SEED):
        first = _measured(learner, subject.items)
    with torch.no_grad(), seeded(CPU, Purpose.validation, SEED):
        again = _measured(learner, subject.items)
    assert_same(before, _state(learner), "`measure` changed the learner", tolerance=0.0)
    assert_same(first, again, "`measure` of the same batch")


@check
def check_resumes_exactly(subject: LearnerSubject) -> None:
    """A run that is saved and resumed goes on as the unbroken one does."""
    unbroken = subject.build()
    optimizers = _optimizers(unbroken)
    _steps(unbroken, subject.items, 2, optimizers)
    network, extra, adam = _saved(_state(unbroken), [one.state() for one in optimizers])
    resumed = subject.build()
    resumed.network.load_state_dict(network)
    resumed.load_extra(extra)
    others = _optimizers(resumed)
    for optimizer, state in zip(others, adam, strict=True):
        optimizer.load(state)
    expected = _steps(unbroken, subject.items, 1, optimizers, first=2)
    got = _steps(resumed, subject.items, 1, others, first=2)
    assert_same(expected, got, "the third step of an unbroken and of a resumed run")


@check
def check_uses_no_network(subject: LearnerSubject) -> None:
    """Nothing is fetched: components are installed before anything is trained."""
    with blocked_network() as attempts:
        learner = subject.build()
        _steps(learner, [learner.prepare(example) for example in subject.examples], 1)
    assert not attempts, f"the network was used: {'; '.join(attempts)}"


# Keeping --------------------------------------------------------------------------------------


@check
def check_exports_components(subject: LearnerSubject) -> None:
    """``export`` writes safetensors, names its components after the target, and they load."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        specs = _exported(subject, folder)
        assert specs, "`export` must give at least one spec"
        ids = [f"{spec.kind}/{spec.id}" for spec in specs]
        assert len(set(ids)) == len(ids), f"two components have one id: {', '.join(ids)}"
        for spec in specs:
            assert spec.id.startswith("mine"), f"{spec.id!r} must begin with the target's id"
            build(record_of(ComponentSpec.model_validate_json(spec.model_dump_json())), "cpu")
        pickled = [path.name for path in folder.rglob("*") if path.suffix in PICKLES]
        assert not pickled, f"`export` pickles {', '.join(pickled)}; write safetensors"


@check
def check_exports_alike(subject: LearnerSubject) -> None:
    """The same weights are exported as the same bytes, and stay as they are."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        _exported(subject, Path(one))
        _exported(subject, Path(other))
        first, again = _files(Path(one)), _files(Path(other))
        assert first.keys() == again.keys(), "two exports of the same weights have other files"
        differing = [name for name in first if first[name] != again[name]]
        assert not differing, f"two exports of the same weights differ in {', '.join(differing)}"


PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".npy")
"""What may hold a pickle, which runs code when it is read."""


# What the checks share ------------------------------------------------------------------------


def _optimizers(learner: Learner) -> tuple[PhaseOptimizer, ...]:
    return phase_optimizers(learner, OptimizerSettings(schedule="constant"), 1_000_000)


def _batch(learner: Learner, items: Sequence[Item], step: int = 0) -> Batch:
    return learner.collate(list(items), numpy_generator(Purpose.collate, SEED, step))


def _loss(
    learner: Learner, phase: str, batch: Batch, step: int
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """One phase, with the draws that the loop would give it."""
    draws = (SEED, step, [one.name for one in learner.phases].index(phase))
    with seeded(CPU, Purpose.layers, *draws):
        return learner.loss(phase, batch, torch_generator(Purpose.loss, *draws), step)


def _steps(
    learner: Learner,
    items: Sequence[Item],
    count: int,
    optimizers: tuple[PhaseOptimizer, ...] | None = None,
    *,
    first: int = 0,
) -> list[dict[str, float]]:
    """Run steps as the loop does, all phases in each of them; returns their numbers."""
    learner.network.train()
    optimizers = optimizers or _optimizers(learner)
    begin = max(phase.start for phase in learner.phases) + first
    made = []
    for step in range(begin, begin + count):
        batch = _batch(learner, items, step)
        numbers: dict[str, float] = {}
        for optimizer in optimizers:
            optimizer.clear()
            name = optimizer.phase.name
            loss, more = _loss(learner, name, batch, step)
            torch.autograd.backward(loss, inputs=list(optimizer.parameters))
            every = {**more, "loss": loss, "norm": optimizer.clip()}
            numbers |= {f"{name}/{key}": _number(value) for key, value in every.items()}
            optimizer.step(step)
        made.append(numbers)
    return made


def _number(value: Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else value


def _measured(learner: Learner, items: Sequence[Item]) -> dict[str, float]:
    generator = torch_generator(Purpose.validation, SEED)
    step = max(phase.start for phase in learner.phases)
    numbers = learner.measure(_batch(learner, items), generator, step)
    return {name: _number(value) for name, value in numbers.items()}


def _state(learner: Learner) -> tuple[Mapping[str, Any], dict[str, Any]]:
    network = {name: value.clone() for name, value in learner.network.state_dict().items()}
    return network, learner.extra_state()


def _saved(state: tuple[Mapping[str, Any], dict[str, Any]], adam: list[dict[str, Any]]) -> Any:
    """What comes back of a checkpoint: tensors, numbers, strings, nested, and nothing else."""
    file = io.BytesIO()
    torch.save((dict(state[0]), state[1], adam), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _exported(subject: LearnerSubject, folder: Path) -> Sequence[ComponentSpec]:
    learner = subject.build()
    learner.network.eval()
    before = list(leaves(_state(learner)))
    specs = learner.export(ExportTarget(folder, str(folder), "mine", "MIT", "pip install mine"))
    assert_same(before, list(leaves(_state(learner))), "`export` changed the learner")
    return specs


def _files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
