from __future__ import annotations

import pytest
import torch

from speechloom.errors import UsageError
from speechloom.ops.masked_decode import NoiseKeys, uniforms
from speechloom.ops.masked_decode.noise import philox4x32


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [  # Random123, kat_vectors, "philox4x32 10"
        ("00000000 " * 4, "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([int(word, 16)]) for word in counter.split())
    k0, k1 = (torch.tensor([int(word, 16)]) for word in key.split())
    got = philox4x32((c0, c1, c2, c3), (k0, k1))
    assert [f"{int(word):08x}" for word in got] == answer.split()


def make(seed: int = 0, item: int = 0, position: int = 0, **steps: int) -> NoiseKeys:
    return NoiseKeys(
        seed=torch.tensor([seed]),
        item=torch.tensor([item]),
        position=torch.tensor([position]),
        **steps,
    )


def test_counter_packs_position_steps_item() -> None:
    keys = make(seed=(7 << 32) | 9, item=5, position=3, stage=2, level=1, step=4)
    packed = torch.tensor([4 | 1 << 16 | 2 << 24])
    word = philox4x32(
        (torch.tensor([3]), packed, torch.tensor([5]), torch.tensor([0])),
        (torch.tensor([9]), torch.tensor([7])),
    )[0]
    assert float(uniforms(keys)[0]) == ((int(word) >> 9) * 2 + 1) * 2.0**-24


def test_every_part_of_the_key_matters() -> None:
    parts = [{}, {"seed": 1}, {"seed": 1 << 40}, {"seed": -1}, {"item": 1}, {"position": 1}]
    parts += [{"stage": 1}, {"level": 1}, {"step": 1}]
    draws = {tuple(float(u) for u in uniforms(make(**part))) for part in parts}
    assert len(draws) == len(parts)


def test_uniforms_are_uniform_open_and_independent() -> None:
    rows = torch.arange(200_000)
    first, second = uniforms(NoiseKeys(seed=torch.full_like(rows, 3), item=rows * 0, position=rows))
    for u in (first, second):
        assert 0.0 < float(u.min()) < float(u.max()) < 1.0
        observed = torch.histc(u, 100, 0, 1)
        assert float(((observed - 2000) ** 2 / 2000).sum()) < 170  # 99 degrees, p = 1e-5
    correlation = torch.corrcoef(torch.stack((first, second)))[0, 1]
    assert abs(float(correlation)) < 0.01


def test_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    uniforms(make())
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("name", "value"), [("step", 1 << 16), ("level", 256), ("stage", 256), ("step", -1)]
)
def test_numbers_that_do_not_fit_the_counter_are_refused(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=name):
        make(**{name: value})
