"""The known mistakes of public SoundStorm code in training, each put back and caught.

One judge draws masks and losses and says what is wrong with them; it finds nothing in the library,
and each mistake makes it find its name. The mistakes of decoding are caught in the same way in the
core's tests of the loop and of the sampling step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from speechloom_speechsec import loss, masked_learner, masks
from speechloom_speechsec.config import tiny
from speechloom_speechsec.conformer import Attention, Convolution
from speechloom_speechsec.masks import CONTINUE, CONVERT, EDIT, MaskConfig, TrainingMask
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC

ITEMS, LEVELS, MASK = 600, 3, 11
LENGTHS = torch.arange(ITEMS) % 37 + 4
FRAMES = 44
Mistake = tuple[Any, str, Any]


def drawn() -> tuple[Tensor, TrainingMask]:
    """Codes and masks of many items of all tasks, levels and lengths."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, MASK, (ITEMS, LEVELS, FRAMES), generator=generator)
    content = codes[:, 0] % 7
    config = MaskConfig(task_weights=(1, 1, 1, 1), first_level_weight=1, content_dropout=0.0)
    made = masks.draw_training_mask(
        codes, content, LENGTHS, mask_id=MASK, generator=generator, config=config
    )
    return codes, made


def judge() -> set[str]:
    """Everything that is wrong with masks, loss and network."""
    codes, made = drawn()
    found = set(_judge_hidden(codes, made)) | set(_judge_regions(made)) | set(_judge_shares(made))
    return found | set(_judge_loss(codes, made)) | set(_judge_padding(codes, made)) | _judge_crops()


def _judge_hidden(codes: Tensor, made: TrainingMask) -> set[str]:
    found = set()
    hidden = made.inputs == MASK
    number = torch.arange(LEVELS)[:, None]
    now, region = made.level[:, None, None], made.region[:, None].expand_as(hidden)
    if hidden[(number < now).expand_as(hidden)].any():
        found.add("coarser levels hidden")
    if not hidden[(number > now) & region].all():
        found.add("finer levels shown")
    if (hidden & ~region).any():
        found.add("prompt hidden")
    if not torch.equal(made.inputs[~hidden], codes[~hidden]):
        found.add("codes changed")
    asked = made.loss_positions
    if (asked & ~made.region).any() or (asked.sum(-1) < 1).any():
        found.add("asked outside the region")
    if (made.region & (torch.arange(FRAMES) >= LENGTHS[:, None])).any():
        found.add("padding in the region")
    return found


def _judge_regions(made: TrainingMask) -> set[str]:
    found = set()
    frame = torch.arange(FRAMES)
    start = torch.where(made.region, frame, FRAMES).amin(-1)
    end = torch.where(made.region, frame, -1).amax(-1) + 1
    if (end[made.task != EDIT] != LENGTHS[made.task != EDIT]).any():
        found.add("region does not reach the end")
    if not ((end < LENGTHS)[made.task == EDIT].float().mean() > 0.5):
        found.add("an edit sees nothing behind it")
    if (start[made.task == CONVERT] > 0).any() or (start[made.task == CONTINUE] == 0).any():
        found.add("region of another task")
    prompted = start[(made.task == CONTINUE) & (LENGTHS > 20)]
    if len(torch.unique(prompted)) < 10:
        found.add("one prompt for the whole batch")
    with_content = (made.content != NO_CONTENT).any(-1)
    if not torch.equal(with_content, made.task != CONTINUE):
        found.add("content where there is none")
    return found


def _judge_shares(made: TrainingMask) -> set[str]:
    """The masked share of a region is cos(u pi / 2), u uniform: its mean is 2 / pi."""
    size = made.region.sum(-1)
    large = size > 12
    share = (made.loss_positions.sum(-1) / size)[large]
    below = [float((share <= edge).float().mean()) for edge in (0.3, 0.6, 0.9)]
    wanted = [1 - 2 / math.pi * math.acos(edge) for edge in (0.3, 0.6, 0.9)]
    off = max(abs(a - b) for a, b in zip(below, wanted, strict=True))
    return {"masked share"} if off > 0.12 else set()


def _judge_loss(codes: Tensor, made: TrainingMask) -> set[str]:
    """Targets that are not asked for change nothing, and what is asked for is counted once."""
    found = set()
    model = SpeechSEC(tiny(), seed=0)
    few, one = slice(0, 24), _first(made, 24)
    with torch.no_grad():
        report = loss.masked_loss(model, codes[few], LENGTHS[few], one)
        own = torch.arange(LEVELS)[:, None] == made.level[few, None, None]
        asked = own & made.loss_positions[few, None]
        other = torch.where(asked, codes[few], (codes[few] + 1) % MASK)
        if not torch.equal(report.loss, loss.masked_loss(model, other, LENGTHS[few], one).loss):
            found.add("loss at other levels or positions")
    if int(report.positions.sum()) != int(made.loss_positions[few].sum()):
        found.add("loss counts other positions")
    return found


def _judge_padding(codes: Tensor, made: TrainingMask) -> set[str]:
    few, one = slice(0, 8), _first(made, 8)
    model = SpeechSEC(tiny(), seed=0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" not in name:
                value.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(len(name)))
        cond = model.embed_condition(one.content.clamp(min=0), one.task)
        padding = torch.arange(FRAMES) >= LENGTHS[few, None]
        other = torch.where(padding[:, None], 0, one.inputs)
        first, second = (model.hidden(x, 1, cond, LENGTHS[few]) for x in (one.inputs, other))
    return set() if torch.equal(first[~padding], second[~padding]) else {"padding is heard"}


def _judge_crops() -> set[str]:
    """A crop takes content and codes at one place, for batches of any size."""

    class Cropping(masked_learner.MaskedLearner):
        __init__ = object.__init__  # type: ignore[assignment]
        cache_key = prepare = collate = loss = None  # type: ignore[assignment]

    learner = Cropping()
    learner.crop = 8
    learner.config = type("Config", (), {"network": tiny()})()  # type: ignore[assignment]
    row = torch.arange(40)
    batch = learner.pieces(
        [(row, row.repeat(3, 1)), (row[:5], row[:5].repeat(3, 1))], np.random.default_rng(2)
    )
    same = all(torch.equal(batch["codes"][:, level], batch["content"]) for level in range(3))
    return set() if same and batch["lengths"].tolist() == [8, 5] else {"crops disagree"}


def _first(made: TrainingMask, count: int) -> TrainingMask:
    return TrainingMask(**{name: value[:count] for name, value in vars(made).items()})


def test_the_library_makes_no_known_mistake() -> None:
    assert judge() == set()


def prompt_in_the_budget() -> Mistake:
    """soundstorm-speechtokenizer, defect 4: the share is of the whole item, prompt included."""

    def draw(region: Tensor, generator: torch.Generator) -> Tensor:
        u = torch.rand(len(region), generator=generator)
        size = torch.full_like(u, region.shape[-1])
        count = (torch.cos(u * math.pi / 2) * size).round().long().clamp(min=1)
        noise = torch.rand(region.shape, generator=generator).masked_fill(~region, 2.0)
        return (noise.argsort(-1).argsort(-1) < count[:, None]) & region

    return masks, "draw_masked", draw


def masked_first_then_cut() -> Mistake:
    """The other half of defect 4: chosen among all frames, the prompt taken out afterwards."""
    draw_masked = masks.draw_masked

    def draw(region: Tensor, generator: torch.Generator) -> Tensor:
        return draw_masked(torch.ones_like(region), generator) & region

    return masks, "draw_masked", draw


def prompt_masked() -> Mistake:
    """Defect 6 in training: frames of the prompt are hidden at the finer levels."""
    hide = masks.hide
    return (
        masks,
        "hide",
        lambda level, masked, region, k: hide(level, masked, torch.ones_like(region), k),
    )


def guessed_finer_levels() -> Mistake:
    """Defect 6: the network meets finer levels that decoding cannot know yet."""

    def hide(level: Tensor, masked: Tensor, region: Tensor, levels: int) -> Tensor:
        number = torch.arange(levels)[:, None]
        return (number == level[:, None, None]) & masked[:, None]

    return masks, "hide", hide


def all_levels_masked() -> Mistake:
    """soundstorm-pytorch #7: the mask falls on coarser levels too."""

    def hide(level: Tensor, masked: Tensor, region: Tensor, levels: int) -> Tensor:
        return masked[:, None].expand(-1, levels, -1) | region[:, None] & (
            torch.arange(levels)[:, None] > level[:, None, None]
        )

    return masks, "hide", hide


def padding_masked() -> Mistake:
    """soundstorm-pytorch #29: padding counts as part of the item."""
    draw_region = masks.draw_region

    def draw(task: Tensor, lengths: Tensor, frames: int, *rest: Any) -> Tensor:
        return draw_region(task, torch.full_like(lengths, frames), frames, *rest)

    return masks, "draw_region", draw


def one_prompt_for_the_batch() -> Mistake:
    """soundstorm-speechtokenizer: one start, up to the shortest item, for all items."""
    draw_region = masks.draw_region

    def draw(task: Tensor, lengths: Tensor, frames: int, *rest: Any) -> Tensor:
        drawn = draw_region(task, lengths, frames, *rest)
        late = torch.arange(frames) >= int(lengths.min()) - 1
        real = torch.arange(frames) < lengths[:, None]
        return torch.where((task == CONTINUE)[:, None], late & real, drawn)

    return masks, "draw_region", draw


def an_edit_to_the_end() -> Mistake:
    """The mask of an edit without its right side."""
    draw_region = masks.draw_region

    def draw(task: Tensor, lengths: Tensor, *rest: Any) -> Tensor:
        return draw_region(task.where(task != EDIT, CONTINUE), lengths, *rest)

    return masks, "draw_region", draw


def linear_share() -> Mistake:
    """A share that is uniform instead of a cosine."""

    def draw(region: Tensor, generator: torch.Generator) -> Tensor:
        share = torch.rand(len(region), generator=generator)
        count = (share * region.sum(-1)).round().long().clamp(min=1)
        noise = torch.rand(region.shape, generator=generator).masked_fill(~region, 2.0)
        return (noise.argsort(-1).argsort(-1) < count[:, None]) & region

    return masks, "draw_masked", draw


def content_for_continuations() -> Mistake:
    """The condition of another task: a continuation that is told what follows."""
    return masks, "CONTINUE", 99


def loss_on_what_is_seen() -> Mistake:
    """SoundStorm port by rishikksh20, #4: loss beside what is masked at the current level."""
    score = loss.score_hidden

    def everywhere(model: Any, hidden: Tensor, codes: Tensor, mask: Any, **rest: Any) -> Any:
        fields = vars(mask) | {"loss_positions": mask.region}
        return score(model, hidden, codes, TrainingMask(**fields), **rest)

    return loss, "score_hidden", everywhere


def loss_at_another_level() -> Mistake:
    """The same: the target of a level that is not being predicted."""
    score = loss.score_hidden

    def shifted(model: Any, hidden: Tensor, codes: Tensor, mask: Any, **rest: Any) -> Any:
        return score(model, hidden, codes.roll(1, 1), mask, **rest)

    return loss, "score_hidden", shifted


def attention_to_padding() -> Mistake:
    """Padding is attended to: an item depends on its batch."""
    forward = Attention.forward
    return Attention, "forward", lambda self, x, rotary, real: forward(self, x, rotary, None)


def convolution_over_padding() -> Mistake:
    """Padding leaks through the convolution."""
    forward = Convolution.forward
    return Convolution, "forward", lambda self, x, real: forward(self, x, None)


def crops_apart() -> Mistake:
    """Defect 8: content and codes are cropped each for itself."""
    pieces = masked_learner.MaskedLearner.pieces

    def apart(self: Any, pairs: Any, rng: np.random.Generator) -> Any:
        codes = pieces(self, pairs, rng)["codes"]
        return pieces(self, pairs, rng) | {"codes": codes}

    return masked_learner.MaskedLearner, "pieces", apart


@pytest.mark.parametrize(
    ("mistake", "verdict"),
    [
        (prompt_in_the_budget, "masked share"),
        (masked_first_then_cut, "asked outside the region"),
        (prompt_masked, "prompt hidden"),
        (guessed_finer_levels, "finer levels shown"),
        (all_levels_masked, "coarser levels hidden"),
        (padding_masked, "padding in the region"),
        (one_prompt_for_the_batch, "one prompt for the whole batch"),
        (an_edit_to_the_end, "an edit sees nothing behind it"),
        (linear_share, "masked share"),
        (content_for_continuations, "content where there is none"),
        (loss_on_what_is_seen, "loss counts other positions"),
        (loss_at_another_level, "loss at other levels or positions"),
        (attention_to_padding, "padding is heard"),
        (convolution_over_padding, "padding is heard"),
        (crops_apart, "crops disagree"),
    ],
)
def test_every_known_mistake_is_caught(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[], Mistake], verdict: str
) -> None:
    monkeypatch.setattr(*mistake())
    assert verdict in judge()
