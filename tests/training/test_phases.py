"""Which weights learn, and in which phase."""

from __future__ import annotations

import pytest
from speechloom_toy.learner import ToyLearner, ToySettings

from speechloom.errors import PluginError, UsageError
from speechloom.training.learner import Phase
from speechloom.training.phases import freeze, phase_optimizers
from speechloom.training.recipe import OptimizerSettings


@pytest.fixture
def learner() -> ToyLearner:
    return ToyLearner(ToySettings(adversarial=True), seed=0)


def learning(learner: ToyLearner) -> set[str]:
    return {name for name, p in learner.network.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("pattern", ["pack", "pack.0", "pack*", "pack.0.*"])
def test_a_frozen_module_is_named_or_matched(learner: ToyLearner, pattern: str) -> None:
    before = learning(learner)
    freeze(learner.network, [pattern])
    assert before - learning(learner) == {"pack.0.weight", "pack.0.bias"}


def test_frozen_modules_are_given_back(learner: ToyLearner) -> None:
    assert freeze(learner.network, ["unpack"]) == (learner.network.unpack,)
    assert freeze(learner.network, ["pack.0.bias"]) == ()


def test_a_pattern_that_names_nothing_is_refused(learner: ToyLearner) -> None:
    with pytest.raises(UsageError, match="'encoder' names no module.*pack, unpack, critic"):
        freeze(learner.network, ["encoder"])


def test_every_weight_is_in_its_phase_and_phases_change_the_optimiser(learner: ToyLearner) -> None:
    critic, voice = phase_optimizers(learner, OptimizerSettings(learning_rate=1.0), steps=10)
    assert len(critic.parameters) == 4
    assert len(voice.parameters) == 6
    critic.clear()
    assert critic.step(0) == pytest.approx(1e-3)
    assert voice.step(0) == pytest.approx(1.0)


def test_a_phase_that_starts_late_has_its_schedule_from_there() -> None:
    learner = ToyLearner(ToySettings(adversarial=True, discriminator_start=90), seed=0)
    critic, _ = phase_optimizers(learner, OptimizerSettings(warmup=5), steps=100)
    assert critic.step(90) == pytest.approx(1e-3 / 5)


def test_matrices_decay_and_vectors_do_not(learner: ToyLearner) -> None:
    critic, _ = phase_optimizers(learner, OptimizerSettings(weight_decay=0.5), steps=10)
    groups = critic.state()["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((Phase("a", ("pack",)), Phase("b", ("pack", "unpack", "critic"))), "pack.0.weight learns"),
        ((Phase("a", ("pack",)),), "unpack.0.weight learns in no phase"),
        ((Phase("a", optimizer={"lr": 1.0}),), r"phase 'a' .* changes optimizer.lr"),
    ],
)
def test_wrong_phases_are_the_plugins_fault(
    learner: ToyLearner, phases: tuple[Phase, ...], message: str
) -> None:
    learner.phases = phases
    with pytest.raises(PluginError, match=message):
        phase_optimizers(learner, OptimizerSettings(), steps=10)


def test_something_must_be_left_to_learn(learner: ToyLearner) -> None:
    freeze(learner.network, ["*"])
    with pytest.raises(UsageError, match="nothing is left to learn"):
        phase_optimizers(learner, OptimizerSettings(), steps=10)
