"""Cross entropy on the masked positions of the current level, and how often it is right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom_speechsec.masks import TrainingMask
from speechloom_speechsec.model import SpeechSEC


@dataclass(frozen=True, kw_only=True)
class LossReport:
    """Result of one step.

    Attributes:
        loss: scalar float32 with gradient, nats per masked position.
        positions: int64 [K], masked positions per level.
        correct: int64 [K], how many of them the network ranks first.
        nats: float32 [K], summed cross entropy per level, without gradient.
    """

    loss: Tensor
    positions: Tensor
    correct: Tensor
    nats: Tensor

    def accuracy(self) -> Tensor:
        """Share of masked positions that are right, float32 [K]; NaN for a level not drawn."""
        return self.correct / self.positions


def masked_loss(
    model: SpeechSEC,
    codes: Tensor,
    lengths: Tensor | None,
    mask: TrainingMask,
    *,
    voice: Tensor | None = None,
    label_smoothing: float = 0.0,
    dropout_generator: torch.Generator | None = None,
) -> LossReport:
    """Run the network on a drawn mask and score what was asked for, nothing else.

    Args:
        model: the network.
        codes: int64 [B, K, F], the true codes.
        lengths: int64 [B], or None when no frame is padding.
        mask: what `draw_training_mask` returned.
        voice: float32 [B, voice_dim] or None.
        label_smoothing: share of the target spread over all ids.
        dropout_generator: randomness of dropout; None runs without.
    """
    cond = model.embed_condition(mask.content, mask.task, voice, voice_known=mask.voice_known)
    if model.config.prompt_embedding:
        cond = cond + _prompts(model, codes, mask)
    hidden = model.hidden(
        mask.inputs, mask.level, cond, lengths, dropout_generator=dropout_generator
    )
    return score_hidden(model, hidden, codes, mask, label_smoothing=label_smoothing)


def _prompts(model: SpeechSEC, codes: Tensor, mask: TrainingMask) -> Tensor:
    """The known codes of each item's level, embedded, where a continuation has no content."""
    own = codes[torch.arange(len(codes), device=codes.device), mask.level]
    prompt = own.masked_fill(mask.region, model.config.mask_id)
    return model.embed_prompt(prompt, mask.level) * mask.free[:, None, None]


def score_hidden(
    model: SpeechSEC,
    hidden: Tensor,
    codes: Tensor,
    mask: TrainingMask,
    *,
    label_smoothing: float = 0.0,
) -> LossReport:
    """Score hidden states [B, F, D] at the masked positions; heads run on those rows only."""
    item, frame = mask.loss_positions.nonzero(as_tuple=True)
    rows, row_level = hidden[item, frame], mask.level[item]
    targets = codes[item, row_level, frame]
    levels = model.config.codebooks
    total = rows.new_zeros((), dtype=torch.float32)
    positions, correct = (codes.new_zeros(levels) for _ in range(2))
    nats = rows.new_zeros(levels, dtype=torch.float32)
    for level in torch.unique(row_level).tolist():
        own = row_level == level
        logits, target = model.logits(rows[own], level).float(), targets[own]
        level_nats = F.cross_entropy(
            logits, target, reduction="sum", label_smoothing=label_smoothing
        )
        total = total + level_nats
        positions[level] = target.numel()
        correct[level] = (logits.argmax(-1) == target).sum()
        nats[level] = level_nats.detach()
    return LossReport(
        loss=total / max(1, item.numel()), positions=positions, correct=correct, nats=nats
    )
