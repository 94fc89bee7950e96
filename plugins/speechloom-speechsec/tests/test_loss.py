from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom_speechsec.config import tiny
from speechloom_speechsec.loss import masked_loss
from speechloom_speechsec.masks import TrainingMask, draw_training_mask
from speechloom_speechsec.model import SpeechSEC

LENGTHS = torch.tensor([20, 9, 14, 20])


@pytest.fixture
def model() -> SpeechSEC:
    return SpeechSEC(tiny(), seed=1)


@pytest.fixture
def codes() -> Tensor:
    return torch.randint(0, 11, (4, 3, 20), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def mask(codes: Tensor) -> TrainingMask:
    generator = torch.Generator().manual_seed(2)
    drawn = draw_training_mask(codes, codes[:, 0] % 7, LENGTHS, mask_id=11, generator=generator)
    return replace(drawn, level=torch.tensor([0, 1, 1, 0]))


def test_loss_is_the_mean_over_masked_positions(
    model: SpeechSEC, codes: Tensor, mask: TrainingMask
) -> None:
    report = masked_loss(model, codes, LENGTHS, mask)
    cond = model.embed_condition(mask.content, mask.task, voice_known=mask.voice_known)
    hidden, nats, right = model.hidden(mask.inputs, mask.level, cond, LENGTHS), [], [0, 0, 0]
    for item, frame in mask.loss_positions.nonzero().tolist():
        level = int(mask.level[item])
        logits, target = model.logits(hidden[item, frame], level), codes[item, level, frame]
        nats.append(F.cross_entropy(logits, target))
        right[level] += int(logits.argmax() == target)
    torch.testing.assert_close(report.loss, torch.stack(nats).mean())
    torch.testing.assert_close(report.nats.sum(), torch.stack(nats).sum().detach())
    assert report.correct.tolist() == right
    assert int(report.positions.sum()) == len(nats)
    assert report.accuracy().isnan().tolist() == [False, False, True]


def test_nothing_but_masked_positions_of_the_current_level_is_asked_for(
    model: SpeechSEC, codes: Tensor, mask: TrainingMask
) -> None:
    """The true codes enter as targets only, so others may change without any effect."""
    base = masked_loss(model, codes, LENGTHS, mask).loss
    asked = torch.zeros_like(codes, dtype=torch.bool)
    for item, level in enumerate(mask.level.tolist()):
        asked[item, level] = mask.loss_positions[item]
    elsewhere = torch.where(asked, codes, 10 - codes)
    assert torch.equal(masked_loss(model, elsewhere, LENGTHS, mask).loss, base)
    there = torch.where(asked, 10 - codes, codes)
    assert not torch.equal(masked_loss(model, there, LENGTHS, mask).loss, base)


def test_heads_of_other_levels_get_no_gradient(
    model: SpeechSEC, codes: Tensor, mask: TrainingMask
) -> None:
    masked_loss(model, codes, LENGTHS, mask).loss.backward()  # type: ignore[no-untyped-call]
    gradient = model.head_weight.grad
    assert gradient is not None
    assert gradient[:2].abs().sum() > 0
    assert gradient[2].abs().sum() == 0


def test_every_weight_learns(model: SpeechSEC, codes: Tensor) -> None:
    generator = torch.Generator().manual_seed(3)
    voice = torch.randn(64, 4, generator=generator)
    many, lengths = codes.repeat(16, 1, 1), LENGTHS.repeat(16)
    drawn = draw_training_mask(many, many[:, 0] % 7, lengths, mask_id=11, generator=generator)
    masked_loss(model, many, lengths, drawn, voice=voice).loss.backward()  # type: ignore[no-untyped-call]
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_label_smoothing_raises_the_floor(
    model: SpeechSEC, codes: Tensor, mask: TrainingMask
) -> None:
    with torch.no_grad():
        model.head_bias.zero_()[:, 0] = 30.0
        zeros = torch.zeros_like(codes)
        plain = masked_loss(model, zeros, LENGTHS, mask).loss
        smooth = masked_loss(model, zeros, LENGTHS, mask, label_smoothing=0.1).loss
    assert float(plain) < 0.01
    assert float(smooth) == pytest.approx(0.1 * 30 * 10 / 11, rel=0.05)


def test_a_tiny_network_learns_to_copy_under_bfloat16(model: SpeechSEC) -> None:
    generator = torch.Generator().manual_seed(0)
    content = torch.randint(0, 7, (8, 20), generator=generator)
    codes = torch.stack([(content + level) % 11 for level in range(3)], 1)
    lengths = torch.randint(8, 21, (8,), generator=generator)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    course = []
    for _ in range(150):
        drawn = draw_training_mask(codes, content, lengths, mask_id=11, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            report = masked_loss(model, codes, lengths, drawn)
        assert report.loss.dtype == torch.float32
        report.loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        course.append(report.loss.item())
    assert sum(course[-20:]) < 0.5 * sum(course[:20])
