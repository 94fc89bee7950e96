"""What may be hidden, what is asked for, and how often: one property for every known mistake."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechloom.errors import UsageError
from speechloom_speechsec.masks import (
    CONTINUE,
    CONVERT,
    EDIT,
    SYNTHESIZE,
    MaskConfig,
    TrainingMask,
    draw_masked,
    draw_region,
    draw_training_mask,
)
from speechloom_speechsec.model import NO_CONTENT

MASK = 9


def draw(
    lengths: Tensor, *, levels: int = 3, seed: int = 0, config: MaskConfig | None = None
) -> tuple[Tensor, Tensor, TrainingMask]:
    generator = torch.Generator().manual_seed(seed)
    frames = int(lengths.max()) + 3
    codes = torch.randint(0, MASK, (len(lengths), levels, frames), generator=generator)
    content = torch.randint(0, 5, (len(lengths), frames), generator=generator)
    mask = draw_training_mask(
        codes, content, lengths, mask_id=MASK, generator=generator, config=config
    )
    return codes, content, mask


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    levels=st.integers(1, 5),
    seed=st.integers(0, 10_000),
)
def test_exactly_what_may_be_hidden_is_hidden(lengths: list[int], levels: int, seed: int) -> None:
    codes, _, mask = draw(torch.tensor(lengths), levels=levels, seed=seed)
    for item, length in enumerate(lengths):
        level = int(mask.level[item])
        hidden = mask.inputs[item] == MASK
        region, asked = mask.region[item], mask.loss_positions[item]
        assert torch.equal(mask.inputs[item][~hidden], codes[item][~hidden])
        assert not hidden[:level].any()  # coarser levels are always seen
        assert torch.equal(hidden[level], asked)  # the loss asks for what is masked, no more
        assert all(torch.equal(finer, region) for finer in hidden[level + 1 :])
        assert 1 <= int(asked.sum()) <= int(region.sum())
        assert not asked[~region].any()  # a prompt is never masked nor in the budget
        assert not region[length:].any()  # nor is padding


@pytest.mark.parametrize("task", [SYNTHESIZE, CONTINUE, EDIT, CONVERT])
def test_regions_have_the_form_of_their_task(task: int) -> None:
    lengths = torch.arange(1, 41).repeat(50)
    generator = torch.Generator().manual_seed(task)
    region = draw_region(torch.full_like(lengths, task), lengths, 42, 0.3, generator)
    frame = torch.arange(42)
    start = torch.where(region, frame, 99).amin(-1)
    end = torch.where(region, frame, -1).amax(-1) + 1
    assert torch.equal(region.sum(-1), end - start)  # one piece
    assert (end > start).all()
    assert (end <= lengths).all()
    if task != EDIT:
        assert torch.equal(end, lengths)
    if task == CONVERT:
        assert (start == 0).all()
    if task == CONTINUE:
        assert (start[lengths > 1] > 0).all()
    if task == EDIT:
        assert ((start > 0) & (end < lengths)).float().mean() > 0.5


def test_synthesis_without_a_prompt_has_its_share() -> None:
    lengths = torch.full((20_000,), 50)
    region = draw_region(
        torch.zeros_like(lengths), lengths, 50, 0.3, torch.Generator().manual_seed(0)
    )
    whole = float(region[:, 0].float().mean())
    assert whole == pytest.approx(0.3 + 0.7 / 50, abs=0.015)


def test_prompt_starts_are_drawn_per_item_and_uniform() -> None:
    lengths = torch.full((20_000,), 20)
    region = draw_region(
        torch.zeros_like(lengths), lengths, 20, 0.0, torch.Generator().manual_seed(0)
    )
    starts = torch.bincount(20 - region.sum(-1), minlength=20).double()
    assert float(((starts - 1000) ** 2 / 1000).sum()) < 52  # 19 degrees, p = 7e-5


def test_masked_share_follows_the_cosine() -> None:
    region = torch.zeros(20_000, 260, dtype=torch.bool)
    region[:, 60:] = True
    share = draw_masked(region, torch.Generator().manual_seed(0)).sum(-1) / 200
    for edge in (0.1, 0.3, 0.5, 0.7, 0.9):
        wanted = 1 - 2 / math.pi * math.acos(edge)
        assert float((share <= edge).float().mean()) == pytest.approx(wanted, abs=0.015)


def test_every_place_of_the_region_is_masked_equally_often() -> None:
    region = torch.ones(20_000, 10, dtype=torch.bool)
    often = draw_masked(region, torch.Generator().manual_seed(0)).float().mean(0)
    assert float(often.max() - often.min()) < 0.03


def test_tasks_and_levels_come_as_often_as_asked() -> None:
    config = MaskConfig(task_weights=(4, 1, 3, 2), level_weights=(5, 3, 2))
    _, _, mask = draw(torch.full((20_000,), 4), config=config)
    for drawn, weights in ((mask.task, (0.4, 0.1, 0.3, 0.2)), (mask.level, (0.5, 0.3, 0.2))):
        often = torch.bincount(drawn, minlength=len(weights)) / 20_000
        torch.testing.assert_close(often, torch.tensor(weights), atol=0.015, rtol=0)


def test_first_level_comes_more_often_by_default() -> None:
    _, _, mask = draw(torch.full((20_000,), 4), config=MaskConfig(first_level_weight=2.0))
    assert float((mask.level == 0).float().mean()) == pytest.approx(0.5, abs=0.015)


@pytest.mark.parametrize("per_item", [True, False])
def test_task_is_drawn_per_item_or_once_per_step(per_item: bool) -> None:
    config = MaskConfig(task_per_item=per_item, task_weights=(1, 1, 1, 1))
    kinds = {
        len(torch.unique(draw(torch.full((30,), 9), seed=seed, config=config)[2].task))
        for seed in range(5)
    }
    assert (kinds == {1}) != per_item
    assert per_item == (max(kinds) == 4)


def test_content_is_dropped_for_continuations_and_for_guidance() -> None:
    lengths = torch.full((5000,), 6)
    codes, content, mask = draw(lengths, config=MaskConfig(content_dropout=0.0))
    dropped = mask.content == NO_CONTENT
    assert torch.equal(dropped.all(-1), mask.task == CONTINUE)
    assert torch.equal(mask.content[~dropped], content[~dropped])
    _, _, mask = draw(lengths, config=MaskConfig(content_dropout=0.2, voice_dropout=0.4))
    others = mask.content[mask.task != CONTINUE]
    assert float((others[:, 0] < 0).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(mask.voice_known.float().mean()) == pytest.approx(0.6, abs=0.03)


def test_only_the_given_generator_is_used() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (draw(torch.tensor([9, 30]), seed=s)[2].inputs for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("lengths", [[0, 4], [4, 13], [4]])
def test_impossible_lengths_are_refused(lengths: list[int]) -> None:
    codes = torch.zeros(2, 3, 12, dtype=torch.int64)
    with pytest.raises(UsageError, match="lengths"):
        draw_training_mask(
            codes,
            codes[:, 0],
            torch.tensor(lengths),
            mask_id=MASK,
            generator=torch.Generator(),
        )


def test_level_weights_must_fit_the_levels() -> None:
    with pytest.raises(UsageError, match="level_weights"):
        draw(torch.tensor([5]), config=MaskConfig(level_weights=(1, 2)))
