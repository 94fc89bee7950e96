"""A network together with what it is conditioned on, as the decoding loop wants it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from speechloom.decoding import ExecutionConfig, FrameMemory
from speechloom_speechsec.inference import InferenceSpeechSEC
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC


@dataclass(frozen=True)
class ConditionedSpeechSEC:
    """A `speechloom.decoding.MaskedNetwork`.

    On a CPU items run one by one, so that an item's numbers do not depend on its batch; on other
    devices they run as a padded batch. What is the same in two passes over an item may be kept
    here, so that a network belongs to one request, in one thread.

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
    _memories: dict[int, FrameMemory] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def codebook_size(self) -> int:
        """Ids per level."""
        return self.network.model.config.codebook_size

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """Hidden states float32 [N, D] of open positions; see `MaskedNetwork.hidden`."""
        cond = self._cond_of(items, level, codes.shape[-1])
        if not runs_alone(codes.device):
            states = self.network.hidden(codes, level, cond, lengths if self.padded else None)
            return states[rows, frames]
        # Decoding with fixed shapes asks for a frame even of an item that has none.
        real = lengths.clamp(min=1).tolist()
        wanted = torch.split(frames, torch.bincount(rows, minlength=len(items)).tolist())
        each = zip(items.tolist(), codes, cond, real, wanted, strict=True)
        return torch.cat(
            [
                self._hidden_of(item, own[:, :length], level, given[:length], at)
                for item, own, given, length, at in each
            ]
        )

    def _cond_of(self, items: Tensor, level: int, frames: int) -> Tensor:
        """The condition [A, F, D] of some items at a level."""
        cond = self.cond[items, :frames]
        if self.prompts is None:
            return cond
        return cond + self.network.model.embed_prompt(self.prompts[items, level, :frames], level)

    def _hidden_of(
        self, item: int, codes: Tensor, level: int, cond: Tensor, frames: Tensor
    ) -> Tensor:
        """Hidden states [N, D] of some frames of one item, which is remembered."""
        memory = self._memories.setdefault(item, FrameMemory())
        return self.network.hidden_at(codes, level, cond, frames, memory=memory)

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level."""
        return self.network.model.head(level)


def runs_alone(device: torch.device) -> bool:
    """Whether items run one by one on a device; see `InferenceSpeechSEC.hidden_at`."""
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
