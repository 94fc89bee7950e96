"""A network together with what it is conditioned on, as the decoding loop wants it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from speechloom.decoding import ExecutionConfig
from speechloom_speechsec.inference import InferenceSpeechSEC
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC


@dataclass(frozen=True)
class ConditionedSpeechSEC:
    """A `speechloom.decoding.MaskedNetwork`.

    On a CPU items run one by one, so that an item's numbers do not depend on its batch; on other
    devices they run as a padded batch.

    Attributes:
        network: runs the network.
        cond: float32 [B, F, D], the embedded condition.
        unconditional: the same without content and voice; None when it is not needed.
    """

    network: InferenceSpeechSEC
    cond: Tensor
    unconditional: ConditionedSpeechSEC | None = None

    @property
    def codebook_size(self) -> int:
        """Ids per level."""
        return self.network.model.config.codebook_size

    def hidden(self, codes: Tensor, level: int, lengths: Tensor, items: Tensor) -> Tensor:
        """Hidden states [A, F, D] of some items."""
        network = self.network
        run = network.hidden_each if codes.device.type == "cpu" else network.hidden
        return run(codes, level, self.cond[items, : codes.shape[-1]], lengths)

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level."""
        return self.network.model.head(level)


@torch.no_grad()
def condition(
    model: SpeechSEC | InferenceSpeechSEC,
    content: Tensor,
    task: Tensor,
    voice: Tensor | None = None,
    *,
    guided: bool = False,
) -> ConditionedSpeechSEC:
    """Embed a condition once, for all decoding steps.

    Args:
        model: the network, or one that is laid out for decoding already.
        content: int64 [B, F], `NO_CONTENT` where there is none.
        task: int64 [B].
        voice: float32 [B, voice_dim] or None.
        guided: also make the unconditional twin that guidance needs.
    """
    if isinstance(model, SpeechSEC):
        model = InferenceSpeechSEC(model, ExecutionConfig().on(content.device))
    embed, twin = model.model.embed_condition, None
    if guided:
        nothing = torch.full_like(content, NO_CONTENT)
        twin = ConditionedSpeechSEC(model, embed(nothing, task))
    return ConditionedSpeechSEC(model, embed(content, task, voice), twin)
