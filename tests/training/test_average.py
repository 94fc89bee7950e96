"""The moving average by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from speechloom.training.average import MovingAverage


def network(value: float) -> nn.Module:
    module = nn.BatchNorm1d(1)
    nn.init.constant_(module.weight, value)
    return module


def test_the_decay_begins_low_and_ends_at_its_limit() -> None:
    module = network(0.0)
    average = MovingAverage(module, decay=0.5)
    nn.init.constant_(module.weight, 1.0)
    average.update(0)  # decay min(0.5, 1 / 10): 0.9 of the new weight
    assert average.state()["weight"].item() == pytest.approx(0.9)
    average.update(100)  # decay min(0.5, 101 / 110): half way to 1
    assert average.state()["weight"].item() == pytest.approx(0.95)


def test_counters_are_taken_as_they_are() -> None:
    module = network(0.0)
    average = MovingAverage(module, decay=0.9)
    module.num_batches_tracked.fill_(7)
    average.update(0)
    assert average.state()["num_batches_tracked"].item() == 7


def test_the_networks_own_weights_come_back_to_the_bit_even_after_an_error() -> None:
    module = network(1 / 3)
    average = MovingAverage(module, decay=0.9)
    nn.init.constant_(module.weight, 2 / 3)
    own = module.weight.detach().clone()

    def fail() -> None:
        with average.applied():
            assert module.weight.item() == pytest.approx(1 / 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(module.weight, own)


def test_a_state_is_taken_over() -> None:
    average = MovingAverage(network(0.25), decay=0.9)
    other = MovingAverage(network(0.5), decay=0.9)
    other.load(average.state())
    assert other.state()["weight"].item() == 0.25
    assert other.state()["weight"] is not average.state()["weight"]
