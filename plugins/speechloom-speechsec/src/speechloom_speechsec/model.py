"""The SpeechSEC network: a Conformer over frames, one output head per level."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom_speechsec.config import TASKS, SpeechSECConfig
from speechloom_speechsec.conformer import ConformerBlock, rotary_table

NO_CONTENT = -1
"""Content id of a frame whose content is not given."""


class SpeechSEC(nn.Module):
    """Masked multi-level token network for four speech tasks.

    The input of a frame is the sum of the embeddings of all its levels (an unknown code has the
    mask id), its content, the task, the voice and the level that is being predicted. Nothing is
    shared between the items of a batch, and padded frames never reach real ones.

    Source: SpeechSEC (Task Register, input sum; known from its figure only) and Borsos et al.
    2023, SoundStorm, arXiv:2305.09636, section 3 (Conformer, masking). We differ: LayerNorm
    where the Conformer has batch norm, a level embedding, and a learned null where there is no
    content. What the figure has instead for continuation, the known codes of the current level
    through a second embedding, is added to that null where `SpeechSECConfig.prompt_embedding` says
    so (`embed_prompt`).

    Args:
        config: sizes.
        seed: of the initial weights; the global random state is not touched. None leaves it without
            memory, on the device ``meta``, for weights that are loaded next.
    """

    def __init__(self, config: SpeechSECConfig, *, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # torch's own initialisation would use global randomness
            self._build(config)
        if seed is None:
            return
        self.to_empty(device="cpu")
        self._initialise(torch.Generator().manual_seed(seed))

    def _build(self, config: SpeechSECConfig) -> None:
        dim, levels, size = config.dim, config.codebooks, config.codebook_size
        self.code_embedding = nn.Embedding(levels * (size + 1), dim)
        self.content_embedding = nn.Embedding(config.content_vocab + 1, dim)  # last id: none
        if config.prompt_embedding:
            self.prompt_embedding = nn.Embedding(levels * (size + 1), dim)
        self.task_embedding = nn.Embedding(len(TASKS), dim)
        self.level_embedding = nn.Embedding(levels, dim)
        if config.voice_dim:
            self.voice_projection = nn.Linear(config.voice_dim, dim)
            self.no_voice = nn.Parameter(torch.empty(dim))
        self.blocks = nn.ModuleList(ConformerBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        if not config.tie_heads:
            self.head_weight = nn.Parameter(torch.empty(levels, size, dim))
        self.head_bias = nn.Parameter(torch.empty(levels, size))

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """Normal weights of 0.02; residual outputs smaller, so that depth does not grow them."""
        residual = 0.02 / math.sqrt(4 * self.config.layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            elif "depthwise" in name:
                parameter.normal_(0.0, 1 / math.sqrt(self.config.conv_kernel), generator=generator)
            else:
                std = residual if name.endswith("out.weight") else 0.02
                parameter.normal_(0.0, std, generator=generator)

    def embed_condition(
        self,
        content: Tensor,
        task: Tensor,
        voice: Tensor | None = None,
        *,
        voice_known: Tensor | None = None,
    ) -> Tensor:
        """Embed what stays the same through all decoding steps.

        Args:
            content: int64 [B, F]; `NO_CONTENT` (-1) where there is none.
            task: int64 [B], index into `TASKS`.
            voice: float32 [B, voice_dim], or None for no voice at all.
            voice_known: bool [B]; False treats that item as having no voice.

        Returns:
            float32 [B, F, D].
        """
        none = self.config.content_vocab
        cond = self.content_embedding(torch.where(content < 0, none, content))
        cond = cond + self.task_embedding(task)[:, None]
        if not self.config.voice_dim:
            return cast(Tensor, cond)
        if voice is None:
            return cast(Tensor, cond + self.no_voice)
        projected = self.voice_projection(voice)
        if voice_known is not None:
            projected = torch.where(voice_known[:, None], projected, self.no_voice)
        return cast(Tensor, cond + projected[:, None])

    def embed_prompt(self, prompt: Tensor, level: int | Tensor) -> Tensor:
        """Embed what is known of the current level, the condition of a continuation.

        Source: SpeechSEC's figure, "Acoustic Embedding Layer" of the continuation task.

        Args:
            prompt: int64 [B, F], codes of that level; the mask id from the start of what is to be
                made on.
            level: which level that is, one or int64 [B].

        Returns:
            float32 [B, F, D], to be added to what `embed_condition` gives.
        """
        rows = self.config.codebook_size + 1
        first = level * rows if isinstance(level, int) else (level * rows)[:, None]
        return cast(Tensor, self.prompt_embedding(prompt + first))

    def hidden(
        self,
        codes: Tensor,
        level: int | Tensor,
        cond: Tensor,
        lengths: Tensor | None = None,
        *,
        dropout_generator: torch.Generator | None = None,
    ) -> Tensor:
        """Run the network over a padded batch.

        Args:
            codes: int64 [B, K, F], the mask id where a code is unknown.
            level: the level to predict, one or int64 [B].
            cond: float32 [B, F, D] of `embed_condition`.
            lengths: int64 [B], real frames per item; None when no frame is padding.
            dropout_generator: randomness of dropout; None runs without dropout.

        Returns:
            float [B, F, D]; rows past an item's length mean nothing.
        """
        x = self.embed(codes, level, cond)
        frames = codes.shape[-1]
        real = None
        if lengths is not None:
            real = torch.arange(frames, device=codes.device) < lengths[:, None]
        rotary = rotary_table(frames, self.config.dim // self.config.heads, codes.device)
        for block in self.blocks:
            x = block(x, rotary, real)
            x = _drop(x, self.config.dropout, dropout_generator)
        return cast(Tensor, self.norm(x))

    def embed(self, codes: Tensor, level: int | Tensor, cond: Tensor) -> Tensor:
        """The input of the first block, float32 [B, F, D]; arguments as in `hidden`."""
        return cond + self._embed_codes(codes) + self._embed_level(level)

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level: weight [V, D] and bias [V]."""
        if not self.config.tie_heads:
            return self.head_weight[level], self.head_bias[level]
        start = level * (self.config.codebook_size + 1)
        weight = self.code_embedding.weight[start : start + self.config.codebook_size]
        return weight, self.head_bias[level]

    def logits(self, hidden: Tensor, level: int) -> Tensor:
        """Scores [..., V] of one level for hidden rows [..., D]."""
        return F.linear(hidden, *self.head(level))

    def _embed_codes(self, codes: Tensor) -> Tensor:
        rows = self.config.codebook_size + 1
        offsets = torch.arange(self.config.codebooks, device=codes.device) * rows
        ids = (codes + offsets[:, None]).transpose(1, 2)
        batch, frames, levels = ids.shape
        bags = F.embedding_bag(
            ids.reshape(batch * frames, levels), self.code_embedding.weight, mode="sum"
        )
        return bags.view(batch, frames, -1)

    def _embed_level(self, level: int | Tensor) -> Tensor:
        if isinstance(level, int):
            return self.level_embedding.weight[level]
        return cast(Tensor, self.level_embedding(level)[:, None])


def _drop(x: Tensor, share: float, generator: torch.Generator | None) -> Tensor:
    if generator is None or share == 0.0:
        return x
    keep = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
    return x * keep / (1.0 - share)
