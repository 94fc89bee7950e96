"""How long each phone lasts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechloom_speechsec.config import DurationConfig
from speechloom_speechsec.convnext import ConvNeXtStack, length_mask

__all__ = ["DurationModel", "duration_loss"]


class DurationModel(nn.Module):
    """Phones to the natural logarithm of their frames, by convolutions over the phones.

    The same for every voice: it learns the tempo of its data, and `frames` takes the rate that a
    speaker or a caller wants.
    """

    def __init__(self, config: DurationConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.phones, config.width)
        self.stack = ConvNeXtStack(config.width, config.depth, config.kernel, config.expansion)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, 1)

    def forward(self, phones: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log-frames float32 [B, N] of ``phones`` int64 [B, N]; ``lengths`` int64 [B] of phones."""
        mask = length_mask(lengths, phones.shape[1])
        hidden = self.stack(self.embed(phones), mask)
        deviation: Tensor = self.out(self.norm(hidden))[..., 0].float()
        return deviation + self.config.mean_log_frames

    @torch.no_grad()
    def frames(self, phones: Tensor, rate: float = 1.0, lengths: Tensor | None = None) -> Tensor:
        """Whole frames int64 [B, N], at least 1 each, for speech ``rate`` times as fast.

        The rounding error is carried from phone to phone, so that the sum stays true.
        """
        exact = self(phones, lengths).double().exp() / rate
        if lengths is not None:
            exact = exact * (torch.arange(phones.shape[1], device=phones.device) < lengths[:, None])
        ends = exact.cumsum(1).round().long()
        frames = torch.diff(ends, dim=1, prepend=torch.zeros_like(ends[:, :1]))
        short = (frames < 1) if lengths is None else (frames < 1) & (exact > 0)
        return torch.where(short, torch.ones_like(frames), frames)


def duration_loss(model: DurationModel, phones: Tensor, lengths: Tensor, frames: Tensor) -> Tensor:
    """Mean absolute error of the logarithm of the frames of a phone.

    Args:
        model: to be trained.
        phones: int64 [B, N].
        lengths: int64 [B], phones of each item.
        frames: float [B, N], how long each phone lasts; below half a frame counts as half.

    Returns:
        Scalar float32 with gradient; 0.1 is 10 % off.
    """
    made = model(phones, lengths)
    mask = length_mask(lengths, phones.shape[1])
    assert mask is not None
    error = (made - frames.clamp(min=0.5).log()).abs() * mask[..., 0]
    loss: Tensor = error.sum() / mask.sum()
    return loss
