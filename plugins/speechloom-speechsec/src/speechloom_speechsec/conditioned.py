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
        padded: some items are shorter than F. False spares attention its mask, with which CUDA
            has no flash attention.
        prompts: int64 [B, K, F], the known codes, the mask id elsewhere, for a network that takes
            them as the condition of a continuation without content; else None.
    """

    network: InferenceSpeechSEC
    cond: Tensor
    unconditional: ConditionedSpeechSEC | None = None
    padded: bool = True
    prompts: Tensor | None = None

    @property
    def codebook_size(self) -> int:
        """Ids per level."""
        return self.network.model.config.codebook_size

    def hidden(self, codes: Tensor, level: int, lengths: Tensor, items: Tensor) -> Tensor:
        """Hidden states [A, F, D] of some items."""
        cond = self.cond[items, : codes.shape[-1]]
        if self.prompts is not None:
            prompts = self.prompts[items, level, : codes.shape[-1]]
            cond = cond + self.network.model.embed_prompt(prompts, level)
        if runs_alone(codes.device):
            return self.network.hidden_each(codes, level, cond, lengths)
        return self.network.hidden(codes, level, cond, lengths if self.padded else None)

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level."""
        return self.network.model.head(level)


def runs_alone(device: torch.device) -> bool:
    """Whether items run one by one on a device; see `InferenceSpeechSEC.hidden_each`."""
    return device.type == "cpu"


@torch.no_grad()
def condition(
    model: SpeechSEC | InferenceSpeechSEC,
    content: Tensor,
    task: Tensor,
    voice: Tensor | None = None,
    *,
    guided: bool = False,
    padded: bool = True,
    prompts: Tensor | None = None,
) -> ConditionedSpeechSEC:
    """Embed a condition once, for all decoding steps.

    Args:
        model: the network, or one that is laid out for decoding already.
        content: int64 [B, F], `NO_CONTENT` where there is none.
        task: int64 [B].
        voice: float32 [B, voice_dim] or None.
        guided: also make the unconditional twin that guidance needs.
        padded: False where all items are F frames long.
        prompts: the known codes, see `ConditionedSpeechSEC`; a network without an embedding for
            them ignores them.
    """
    if isinstance(model, SpeechSEC):
        model = InferenceSpeechSEC(model, ExecutionConfig().on(content.device))
    embed, twin = model.model.embed_condition, None
    if not model.model.config.prompt_embedding:
        prompts = None
    if guided:
        nothing = torch.full_like(content, NO_CONTENT)
        twin = ConditionedSpeechSEC(model, embed(nothing, task), None, padded, prompts)
    return ConditionedSpeechSEC(model, embed(content, task, voice), twin, padded, prompts)
