"""The voice encoder: who speaks, as a unit vector."""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom_starter.blocks import ConvNeXtStack, length_mask
from speechloom_starter.mel import MEL_DIM, log_mel


class VoiceConfig(BaseModel):
    """Sizes of the voice encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = 192
    depth: int = 5
    kernel: int = 7
    expansion: int = 3
    voice_width: int = 128

    @classmethod
    def tiny(cls) -> VoiceConfig:
        """An encoder small enough for a unit test."""
        return cls(width=16, depth=1)


class VoiceEncoder(nn.Module):
    """Log-mel frames, ConvNeXt blocks, attentive mean and spread over time, a unit vector.

    After Desplanques et al. 2020 (ECAPA-TDNN, arXiv:2005.07143) for the pooling and Wan et al. 2018
    (GE2E, arXiv:1710.10467) for the vector; trained contrastively on pairs of utterances.
    """

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__()
        self.config = config
        self.read = nn.Linear(MEL_DIM, config.width)
        self.stack = ConvNeXtStack(config.width, config.depth, config.kernel, config.expansion)
        self.norm = nn.LayerNorm(config.width)
        self.attend = nn.Linear(config.width, config.width)
        self.out = nn.Linear(2 * config.width, config.voice_width)

    def from_mel(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Voice vectors [B, 128] for log-mel frames [B, F, 200]."""
        mask = length_mask(lengths, mel.shape[1])
        hidden = self.norm(self.stack(self.read(mel), mask)).float()
        score = self.attend(hidden).float()
        if mask is not None:
            score = score.masked_fill(mask == 0, float("-inf"))
        weight = score.softmax(1)
        mean = (weight * hidden).sum(1)
        spread = ((weight * hidden.square()).sum(1) - mean.square()).clamp(min=1e-4).sqrt()
        return F.normalize(self.out(torch.cat((mean, spread), -1)).float(), dim=-1)

    def forward(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Voice vectors float32 [B, 128] of length 1 for ``audio`` float [B, T], 16 kHz.

        Args:
            audio: 16 kHz mono; two seconds or more of speech give a stable vector.
            lengths: frames of each item, int64 [B], where the batch is padded with zeros.
        """
        return self.from_mel(log_mel(audio), lengths)
