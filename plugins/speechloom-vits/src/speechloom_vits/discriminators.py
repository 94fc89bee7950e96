"""What tells speech from decoded speech: HiFi-GAN's periods, and one scale (arXiv:2010.05646)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["Discriminators", "Judgement"]

Judgement = tuple[Tensor, list[Tensor]]
"""Scores of a batch [B, ...], and what every layer saw on the way."""

SLOPE = 0.1


class PeriodDiscriminator(nn.Module):
    """Looks at every p-th sample.

    Args:
        period: p.
        channels: of its layers.
        kernel: in time.
        stride: of all layers but the last.
    """

    def __init__(
        self, period: int, channels: tuple[int, ...], kernel: int = 5, stride: int = 3
    ) -> None:
        super().__init__()
        self.period = period
        self.convs = nn.ModuleList()
        before = 1
        for index, after in enumerate(channels):
            step = stride if index < len(channels) - 1 else 1
            self.convs.append(
                weight_norm(
                    nn.Conv2d(before, after, (kernel, 1), (step, 1), padding=(kernel // 2, 0))
                )
            )
            before = after
        self.conv_post = weight_norm(nn.Conv2d(before, 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> Judgement:
        """Judge samples [B, 1, T]."""
        missing = -samples.shape[-1] % self.period
        hidden = functional.pad(samples, (0, missing), mode="reflect" if missing else "constant")
        hidden = hidden.view(*samples.shape[:2], -1, self.period)
        return _judged(hidden, self.convs, self.conv_post)


class ScaleDiscriminator(nn.Module):
    """Looks at the samples as they are, in groups of channels.

    Args:
        width: channels of the first layer; 16 in the original.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        shapes = [
            (1, width, 15, 1, 1),
            (width, 4 * width, 41, 4, 4),
            (4 * width, 16 * width, 41, 4, 16),
            (16 * width, 64 * width, 41, 4, 64),
            (64 * width, 64 * width, 41, 4, 256),
            (64 * width, 64 * width, 5, 1, 1),
        ]
        self.convs = nn.ModuleList(
            weight_norm(
                nn.Conv1d(a, b, k, s, groups=min(g, a), padding=k // 2)
                if a > 1
                else nn.Conv1d(a, b, k, s, padding=k // 2)
            )
            for a, b, k, s, g in shapes
        )
        self.conv_post = weight_norm(nn.Conv1d(64 * width, 1, 3, padding=1))

    def forward(self, samples: Tensor) -> Judgement:
        """Judge samples [B, 1, T]."""
        return _judged(samples, self.convs, self.conv_post)


def _judged(hidden: Tensor, convs: nn.ModuleList, last: nn.Module) -> Judgement:
    seen = []
    for convolve in convs:
        hidden = functional.leaky_relu(convolve(hidden), SLOPE)
        seen.append(hidden)
    hidden = last(hidden)
    seen.append(hidden)
    return hidden.flatten(1), seen


class Discriminators(nn.Module):
    """All of them.

    Args:
        periods: one discriminator each.
        channels: of the layers of each.
        scale_width: of the one that sees every sample.
    """

    def __init__(
        self,
        periods: tuple[int, ...] = (2, 3, 5, 7, 11),
        channels: tuple[int, ...] = (32, 128, 512, 1024, 1024),
        scale_width: int = 16,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [ScaleDiscriminator(scale_width), *(PeriodDiscriminator(p, channels) for p in periods)]
        )

    def forward(self, samples: Tensor) -> list[Judgement]:
        """Judge samples [B, 1, T], by each."""
        return [part(samples) for part in self.parts]
