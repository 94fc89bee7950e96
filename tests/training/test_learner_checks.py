"""The checks of learners pass a good one, and each finds what it is for."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from speechloom_toy.learner import ToyLearner, ToySettings
from torch import Tensor, nn

from speechloom.errors import PluginNotFound, UsageError
from speechloom.spec import ComponentSpec
from speechloom.testing import ConformanceError, check_learner, made_examples
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner, Phase

Loss = tuple[Tensor, dict[str, Tensor | float]]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return made_examples(tmp_path_factory.mktemp("examples"), sample_rate=8000)


@pytest.mark.parametrize(
    "settings", [{}, {"adversarial": True, "discriminator_start": 2}, {"crop": 9}]
)
def test_a_good_learner_passes(settings: dict[str, Any], examples: list[Example]) -> None:
    results = check_learner("toy", examples, settings=settings)
    assert {result.status for result in results} == {"passed"}


class LooseSettings(BaseModel):
    dropout: float = 0.1
    adversarial: bool = False
    crop: None = None
    words: None = None
    noise: float = 0.1


class TakesAnySetting(ToyLearner):
    settings_type = LooseSettings  # type: ignore[assignment]


class DrawsWeightsElsewhere(ToyLearner):
    def __init__(self, settings: ToySettings, *, seed: int) -> None:
        super().__init__(settings, seed=seed)
        nn.init.constant_(self.network.pack[0].weight, np.random.random())  # type: ignore[arg-type]


class ForgetsWeights(ToyLearner):
    phases = (Phase("train", ("pack",)),)


class ChangesItsKey(ToyLearner):
    numbers = itertools.count()

    def cache_key(self) -> str:
        return f"spectra-{next(self.numbers)}"


class PreparesNothingFinite(ToyLearner):
    def prepare(self, example: Example) -> Item:
        frames = super().prepare(example)["frames"]
        return {"frames": frames, "unused": frames * torch.inf}


class PreparesByChance(ToyLearner):
    def prepare(self, example: Example) -> Item:
        frames = super().prepare(example)["frames"]
        return {"frames": frames + 0.01 * torch.randn(frames.shape)}


class ChangesItems(ToyLearner):
    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        items[0]["frames"] += 1
        return super().collate(items, rng)


class CollatesByChance(ToyLearner):
    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        return super().collate(items, rng) | {"more": np.random.random()}


class OtherLoss(ToyLearner):
    """Changes what the loss gives."""

    def loss(self, phase: str, batch: Batch, rng: torch.Generator, step: int) -> Loss:
        loss, numbers = super().loss(phase, batch, rng, step)
        return self.changed(loss, numbers, batch)

    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        raise NotImplementedError


class KeepsTheGraph(OtherLoss):
    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        return loss, numbers | {"again": loss}


class NeedsTwo(OtherLoss):
    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        return loss / (len(batch["mask"]) > 1), numbers


class LosesByChance(OtherLoss):
    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        return loss * random.random(), numbers


class NeedsFloat32(OtherLoss):
    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        return loss / (not torch.is_autocast_enabled("cpu")), numbers


class ForgetsAState(OtherLoss):
    calls = 0

    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        self.calls += self.network.training
        return loss * self.calls, numbers


class AsksTheNetwork(OtherLoss):
    def changed(self, loss: Tensor, numbers: Any, batch: Batch) -> Loss:
        try:
            socket.getaddrinfo("weights.invalid", 80)
        except OSError:
            return loss, numbers
        raise AssertionError("there is no such host")


class HasAnIdleWeight(ToyLearner):
    def __init__(self, settings: ToySettings, *, seed: int) -> None:
        super().__init__(settings, seed=seed)
        self.network.idle = nn.Parameter(torch.zeros(2))


class CountsValidations(ToyLearner):
    def measure(self, batch: Batch, rng: torch.Generator, step: int) -> dict[str, Tensor | float]:
        self.losses_seen += 1
        return super().measure(batch, rng, step)


class Pickles(ToyLearner):
    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        torch.save({}, target.folder / "more.pt")
        return super().export(target)


class NamesItself(ToyLearner):
    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        return [spec.model_copy(update={"id": "toy"}) for spec in super().export(target)]


class ExportsByChance(ToyLearner):
    numbers = itertools.count()

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        (target.folder / "made.txt").write_text(str(next(self.numbers)))
        return super().export(target)


@pytest.mark.parametrize(
    ("broken", "found"),
    [
        (TakesAnySetting, {"settings_refuse_unknown_keys"}),
        (DrawsWeightsElsewhere, {"built_alike_from_one_seed"}),
        (ForgetsWeights, {"phases_share_the_weights"}),
        (ChangesItsKey, {"cache_key_stays"}),
        (PreparesNothingFinite, {"prepares_tensors"}),
        (PreparesByChance, {"prepares_alike"}),
        (ChangesItems, {"collates_alike"}),
        (CollatesByChance, {"collates_alike"}),
        (KeepsTheGraph, {"losses_are_scalars"}),
        (NeedsTwo, {"takes_a_batch_of_one"}),
        (HasAnIdleWeight, {"every_weight_learns"}),
        (LosesByChance, {"repeats_its_losses"}),
        (NeedsFloat32, {"learns_in_bfloat16"}),
        (CountsValidations, {"validation_changes_nothing"}),
        (ForgetsAState, {"resumes_exactly"}),
        (AsksTheNetwork, {"uses_no_network"}),
        (Pickles, {"exports_components"}),
        (NamesItself, {"exports_components"}),
        (ExportsByChance, {"exports_alike"}),
    ],
)
def test_each_mistake_is_found(
    broken: type[Learner], found: set[str], examples: list[Example]
) -> None:
    with pytest.raises(ConformanceError) as caught:
        check_learner(broken, examples)
    failed = {result.name for result in caught.value.results if result.status == "failed"}
    assert found <= failed
    # What follows from the mistake may fail as well, but not what has nothing to do with it.
    assert failed <= found | FOLLOWS.get(broken, set())


FOLLOWS: dict[type[Learner], set[str]] = {
    DrawsWeightsElsewhere: {"repeats_its_losses", "exports_alike", "resumes_exactly"},
    ForgetsWeights: {
        "every_weight_learns", "takes_a_batch_of_one", "repeats_its_losses", "uses_no_network",
        "learns_in_bfloat16", "resumes_exactly",
    },
    ChangesItems: {"repeats_its_losses", "resumes_exactly", "validation_changes_nothing"},
    PreparesNothingFinite: {"prepares_alike", "collates_alike"},  # nothing equals it
    LosesByChance: {"resumes_exactly", "validation_changes_nothing"},
}  # fmt: skip


def test_a_known_failure_is_expected(examples: list[Example]) -> None:
    known = {"exports_components": "an old format"}
    results = check_learner(Pickles, examples, expected_failures=known)
    assert [one.status for one in results if one.name in known] == ["expected"]
    with pytest.raises(ConformanceError, match="it was expected to fail"):
        check_learner(ToyLearner, examples, expected_failures=known)
    with pytest.raises(UsageError, match="names nothing, but the checks are"):
        check_learner(ToyLearner, examples, expected_failures={"nothing": "why"})


def test_what_cannot_be_checked_is_said(examples: list[Example]) -> None:
    with pytest.raises(UsageError, match="at least two examples"):
        check_learner("toy", examples[:1])
    with pytest.raises(PluginNotFound, match="there is no learner 'toi'; did you mean 'toy'"):
        check_learner("toi", examples)
    for wrong in (ToySettings, ToyLearner(ToySettings(), seed=0)):
        with pytest.raises(UsageError, match="give the id of a learner, such as 'vits', or its cl"):
            check_learner(wrong, examples)  # type: ignore[arg-type]
    with pytest.raises(ValidationError):
        check_learner("toy", examples, settings={"dropout": 2})


def test_made_examples_are_what_they_say(tmp_path: Path) -> None:
    made = made_examples(tmp_path, 4)
    assert [round(one.load().seconds, 2) for one in made] == [1.0, 1.3, 1.6, 1.9]
    assert {one.speaker for one in made} == {"anna", "bert"}
    assert len({one.id for one in made}) == 4
