"""The network, and the loop that speaks held to it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import Drops, FreeWalk, TimedWalk, decode
from speechloom_sv2tts.tacotron2 import Tacotron2

CPU = torch.device("cpu")


def network(*, reduction: int = 2, voice: int = 3) -> Tacotron2:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = Tacotron2(TacotronConfig.tiny(symbols=9, bands=5, voice=voice, reduction=reduction))
        for module in built.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 1.5)
    return built.eval().requires_grad_(False)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_item_is_the_same_alone_and_in_a_batch() -> None:
    model = network()
    symbols, lengths = torch.tensor([[1, 2, 3, 4, 5, 6], [7, 8, 1, 0, 0, 0]]), torch.tensor([6, 3])
    mel, frames = drawn(2, 5, 8), torch.tensor([8, 4])
    voices, kept = drawn(2, 3), drawn(2, 4, 2, 8) > 0
    together = model(symbols, lengths, mel, frames, voices, kept)
    alone = model(
        symbols[1:, :3], lengths[1:], mel[1:, :, :4], frames[1:], voices[1:], kept[1:, :2]
    )
    assert torch.allclose(together.mel[1:, :, :4], alone.mel, atol=1e-5)
    assert torch.allclose(together.stop[1:, :2], alone.stop, atol=1e-5)
    assert torch.allclose(together.attention[1:, :2, :3], alone.attention, atol=1e-6)
    assert not together.attention[1, :, 3:].any()


def test_training_statistics_see_no_padding() -> None:
    """A batch that is padded twice as far moves the moving averages by the same."""
    moved = []
    for size in (4, 8):
        model = network(voice=0).train()
        symbols = torch.zeros(2, size, dtype=torch.int64)
        symbols[:, :4] = 3
        model.remember(symbols, torch.tensor([4, 2]), None)
        moved.append(model.encoder.blocks[0].norm.running_mean)
    assert torch.allclose(moved[0], moved[1], atol=1e-6)


def test_the_voice_stands_at_every_step() -> None:
    model = network()
    voices = drawn(1, 3)
    memory = model.remember(torch.tensor([[1, 2, 3]]), torch.tensor([3]), voices)
    assert memory.shape == (1, 3, 8 + 3)
    assert torch.equal(memory[0, :, 8:], voices.expand(3, 3))


@pytest.mark.parametrize("reduction", [1, 2, 3])
def test_the_loop_speaks_what_the_network_predicts(reduction: int) -> None:
    """What the loop said, given to the network as the true frames, is predicted again."""
    model = network(reduction=reduction)
    symbols, lengths = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]]), torch.tensor([4, 2])
    voices = drawn(2, 3)
    memory = model.remember(symbols, lengths, voices)
    drops = Drops(torch.tensor([3, 4]), torch.tensor([0, 1]), 8, level=0)
    steps = 7
    frames = torch.zeros(steps * reduction, dtype=torch.int64)
    walk = TimedWalk([frames, frames], lengths, reduction, CPU)
    # Windows of one symbol either way leave the first two of each item: the network must be told.
    said = decode(model.decoder, memory, walk, drops, max_steps=99)
    assert said.frames.shape == (2, steps * reduction, 5)
    predicted, _, attention = model.decoder(
        memory[:, :2], torch.tensor([2, 2]), said.frames, drops.all(steps)
    )
    # The location layer of four symbols sees zeros where that of two sees its own padding.
    assert torch.allclose(attention, said.attention[:, :, :2], atol=1e-5)
    assert torch.allclose(predicted, said.frames, atol=1e-5)


def test_draws_are_named() -> None:
    seeds, items = torch.tensor([5, 6, 5]), torch.tensor([0, 0, 1])
    drops = Drops(seeds, items, 16, level=0)
    every = drops.all(130)
    assert every.shape == (3, 130, 2, 16)
    assert 0.45 < every.float().mean() < 0.55
    assert torch.equal(every[1:2], Drops(seeds[1:2], items[1:2], 16, level=0).all(130))
    assert torch.equal(every[:, 129], Drops(seeds, items, 16, level=0).at(129))
    assert not torch.equal(every[0], every[1])
    assert not torch.equal(every[0], every[2])
    assert not torch.equal(every, Drops(seeds, items, 16, level=1).all(130))
    assert not torch.equal(every[:, :, 0], every[:, :, 1])


def test_whole_steps_are_withheld_and_the_other_draws_stay() -> None:
    seeds, items = torch.tensor([5, 6]), torch.tensor([0, 1])
    plain = Drops(seeds, items, 16, level=0).all(400)
    some = Drops(seeds, items, 16, level=0, withheld=0.25).all(400)
    heard = some.flatten(2).any(-1)
    assert 0.70 < heard.float().mean() < 0.80
    assert torch.equal(some[heard], plain[heard])
    assert not torch.equal(heard[0], heard[1])
    assert torch.equal(some[1:], Drops(seeds[1:], items[1:], 16, level=0, withheld=0.25).all(400))
    assert not Drops(seeds, items, 16, level=0, withheld=1.0).all(9).any()


def test_given_timing_holds_the_attention() -> None:
    frames = torch.tensor([0, 0, 0, 1, 2, 2])
    walk = TimedWalk([frames], torch.tensor([5]), 2, CPU)
    assert walk.steps == 3
    # Frames 0 and 1 say symbol 0, frames 2 and 3 say 0 and 1, frames 4 and 5 say 2.
    assert walk.allowed(0).tolist() == [[True, True, False, False, False]]
    assert walk.allowed(1).tolist() == [[True, True, True, False, False]]
    assert walk.allowed(2).tolist() == [[False, True, True, True, False]]
    never = torch.full((1,), 99.0)
    assert [walk.saw(torch.ones(1, 5), never) for _ in range(3)] == [False, False, True]


def looking_at(place: int, size: int) -> torch.Tensor:
    return torch.eye(size)[place][None]


def test_a_free_walk_follows_the_attention_and_stops() -> None:
    walk = FreeWalk(torch.tensor([3]), 10, CPU)
    go, stop = torch.tensor([-5.0]), torch.tensor([5.0])
    assert walk.allowed(0).tolist() == [[True, True, True]]
    # The stop token says nothing before the last symbol is reached.
    over = [
        walk.saw(looking_at(at, 3), s)
        for at, s in ((0, stop), (1, go), (1, stop), (2, go), (2, stop))
    ]
    assert over == [False, False, False, False, True]
    assert torch.stack(walk.path)[:, 0].tolist() == [0, 1, 1, 2, 2]
    assert walk.steps.tolist() == [5]
    assert walk.stopped.tolist() == [True]
    assert not walk.pushed.any()


def test_a_free_walk_never_goes_back() -> None:
    walk = FreeWalk(torch.tensor([9]), 10, CPU)
    go = torch.tensor([-5.0])
    walk.saw(looking_at(4, 9), go)
    assert walk.allowed(1)[0].nonzero()[:, 0].tolist() == [3, 4, 5, 6, 7]
    walk.saw(looking_at(3, 9), go)
    assert walk.path[-1].tolist() == [4]


def test_who_dwells_is_pushed_on_and_ended() -> None:
    walk = FreeWalk(torch.tensor([2]), 3, CPU)
    go = torch.tensor([-5.0])
    over = [walk.saw(looking_at(0, 2), go) for _ in range(3)]
    assert over == [False] * 3
    assert walk.pushed.tolist() == [[True, False]]
    assert walk.allowed(3).tolist() == [[False, True]]
    assert [walk.saw(looking_at(1, 2), go) for _ in range(3)] == [False, False, True]
    assert walk.pushed.tolist() == [[True, True]]
    assert walk.stopped.tolist() == [False]
    assert walk.steps.tolist() == [6]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 99))
def test_a_free_walk_ends_whatever_the_attention_does(
    lengths: list[int], patience: int, seed: int
) -> None:
    sizes = torch.tensor(lengths)
    walk = FreeWalk(sizes, patience, CPU)
    draw = torch.Generator().manual_seed(seed)
    limit = patience * max(lengths) + 1
    for step in range(limit):
        allowed = walk.allowed(step)
        assert bool(allowed.any(1).all())
        weights = torch.rand(allowed.shape, generator=draw).masked_fill(~allowed, -1)
        if walk.saw(weights, torch.randn(len(lengths), generator=draw)):
            break
    else:
        raise AssertionError("it never ends")
    path = torch.stack(walk.path, 1)
    for row, size in enumerate(lengths):
        own = path[row, : int(walk.steps[row])]
        assert bool((own.diff() >= 0).all())
        assert int(own[-1]) == size - 1


def test_an_untrained_network_is_held_to_the_text() -> None:
    """Its loss is finite and its gradients reach every weight."""
    model = network().train().requires_grad_(True)
    said = model(
        torch.tensor([[1, 2, 3]]), torch.tensor([3]), drawn(1, 5, 6), torch.tensor([6]),
        drawn(1, 3), drawn(1, 3, 2, 8) > 0,
    )  # fmt: skip
    (said.mel.square().mean() + said.stop.square().mean()).backward()
    assert all(
        p.grad is not None and math.isfinite(float(p.grad.sum())) for p in model.parameters()
    )
