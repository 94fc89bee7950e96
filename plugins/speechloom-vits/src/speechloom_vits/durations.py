"""How long each symbol lasts: drawn from flows, or predicted."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechloom_vits.config import VitsConfig
from speechloom_vits.spline import rational_quadratic

__all__ = ["DurationPredictor", "StochasticDurationPredictor"]

LOG_2_PI = math.log(2 * math.pi)


class SeparableStack(nn.Module):
    """Dilated depth-wise and point-wise convolutions with residuals.

    Args:
        hidden: D in and out.
        layers: layer i has dilation ``kernel ** i``.
        kernel: odd.
        dropout: at the end of each layer.
    """

    def __init__(self, hidden: int, layers: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.convs_dilated = nn.ModuleList()
        for layer in range(layers):
            step = kernel**layer
            self.convs_dilated.append(
                nn.Conv1d(
                    hidden,
                    hidden,
                    kernel,
                    groups=hidden,
                    dilation=step,
                    padding=step * (kernel - 1) // 2,
                )
            )
        self.convs_pointwise = nn.ModuleList(nn.Conv1d(hidden, hidden, 1) for _ in range(layers))
        self.norms_1 = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.norms_2 = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))

    def forward(self, hidden: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """Run on [B, D, N] under a mask [B, 1, N]; the condition is added first."""
        if condition is not None:
            hidden = hidden + condition
        layers = zip(
            self.convs_dilated, self.norms_1, self.convs_pointwise, self.norms_2, strict=True
        )
        for spread, norm_1, mix, norm_2 in layers:
            inner = functional.gelu(normed(norm_1, spread(hidden * mask)))
            inner = functional.gelu(normed(norm_2, mix(inner)))
            hidden = hidden + self.dropout(inner)
        return hidden * mask


def normed(norm: nn.Module, hidden: Tensor) -> Tensor:
    """Layer norm over the channels of [B, D, N]."""
    out: Tensor = norm(hidden.transpose(1, 2))
    return out.transpose(1, 2)


class Affine(nn.Module):
    """Scale and shift of each of two channels."""

    def __init__(self) -> None:
        super().__init__()
        self.translate = nn.Parameter(torch.zeros(2, 1))
        self.log_scale = nn.Parameter(torch.zeros(2, 1))

    def forward(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B, 2, N] and the log determinant [B]."""
        moved = (self.translate + self.log_scale.exp() * values) * mask
        return moved, (self.log_scale * mask).sum((1, 2))

    def inverse(self, values: Tensor, mask: Tensor) -> Tensor:
        """Undo it."""
        return (values - self.translate) * torch.exp(-self.log_scale) * mask


class SplineCoupling(nn.Module):
    """One of two channels decides a spline of the other.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        hidden, self.bins = config.hidden, config.duration_bins
        self.bound = config.duration_bound
        self.scale = math.sqrt(hidden)
        self.conv_pre = nn.Conv1d(1, hidden, 1)
        self.conv_dds = SeparableStack(hidden, config.duration_layers, config.duration_kernel)
        self.conv_proj = nn.Conv1d(hidden, 3 * self.bins - 1, 1)
        nn.init.zeros_(self.conv_proj.weight)
        if self.conv_proj.bias is not None:
            nn.init.zeros_(self.conv_proj.bias)

    def forward(self, values: Tensor, mask: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B, 2, N] and the log determinant [B]."""
        moved, log_slope = self._moved(values, mask, condition, inverse=False)
        return moved, (log_slope * mask).sum((1, 2))

    def inverse(self, values: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        """Undo it."""
        return self._moved(values, mask, condition, inverse=True)[0]

    def _moved(
        self, values: Tensor, mask: Tensor, condition: Tensor, *, inverse: bool
    ) -> tuple[Tensor, Tensor]:
        kept, moved = values.chunk(2, dim=1)
        hidden = self.conv_dds(self.conv_pre(kept), mask, condition)
        knots = (self.conv_proj(hidden) * mask).transpose(1, 2)[:, None]  # [B, 1, N, 3 K - 1]
        moved, log_slope = rational_quadratic(
            moved,
            knots[..., : self.bins] / self.scale,
            knots[..., self.bins : 2 * self.bins] / self.scale,
            knots[..., 2 * self.bins :],
            bound=self.bound,
            inverse=inverse,
        )
        return torch.cat([kept, moved], dim=1) * mask, log_slope


class StochasticDurationPredictor(nn.Module):
    """Durations as a distribution: a flow over variationally dequantised durations.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        hidden, kernel = config.hidden, config.duration_kernel
        layers, dropout = config.duration_layers, config.duration_dropout
        self.conv_pre = nn.Conv1d(hidden, hidden, 1)
        self.conv_proj = nn.Conv1d(hidden, hidden, 1)
        self.conv_dds = SeparableStack(hidden, layers, kernel, dropout)
        if config.speaker_size:
            self.cond = nn.Conv1d(config.speaker_size, hidden, 1)
        self.flows = _duration_flows(config)
        self.post_conv_pre = nn.Conv1d(1, hidden, 1)
        self.post_conv_proj = nn.Conv1d(hidden, hidden, 1)
        self.post_conv_dds = SeparableStack(hidden, layers, kernel, dropout)
        self.post_flows = _duration_flows(config)

    def forward(
        self, hidden: Tensor, mask: Tensor, condition: Tensor | None, noise: Tensor
    ) -> Tensor:
        """Logarithms of durations, drawn.

        Args:
            hidden: float32 [B, D, N], of the text encoder.
            mask: float32 [B, 1, N].
            condition: float32 [B, S, 1], of the speaker, or None.
            noise: float32 [B, 2, N], scaled.

        Returns:
            float32 [B, 1, N].
        """
        context = self._context(hidden, mask, condition)
        # The first spline is left out, as in the original: it was found to do nothing good here.
        values = noise
        first, _, *others = self.flows
        for spline in reversed(others):
            assert isinstance(spline, SplineCoupling)
            values = spline.inverse(values.flip(1), mask, context)
        assert isinstance(first, Affine)
        return first.inverse(values.flip(1), mask)[:, :1]

    def loss(
        self,
        hidden: Tensor,
        mask: Tensor,
        condition: Tensor | None,
        durations: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """A bound of the negative log likelihood of durations (section 2.2.2 of the paper).

        Args:
            hidden: as in `forward`; no gradient flows back through it.
            mask: as in `forward`.
            condition: as in `forward`; here a gradient does flow back.
            durations: float32 [B, 1, N], whole frames.
            noise: float32 [B, 2, N], standard normal.

        Returns:
            float32 [B].
        """
        context = self._context(hidden, mask, condition)
        heard = self.post_conv_dds(self.post_conv_pre(durations), mask)
        heard = self.post_conv_proj(heard) * mask
        noise = noise * mask
        drawn, log_det = self._through(self.post_flows, noise, mask, context + heard)
        part, extra = drawn.chunk(2, dim=1)
        log_det = log_det + (
            (functional.logsigmoid(part) + functional.logsigmoid(-part)) * mask
        ).sum((1, 2))
        log_q = (-0.5 * (LOG_2_PI + noise.square()) * mask).sum((1, 2)) - log_det

        left = (durations - torch.sigmoid(part)) * mask
        log_left = torch.log(left.clamp_min(1e-5)) * mask
        values, log_det = self._through(
            self.flows, torch.cat([log_left, extra], dim=1), mask, context
        )
        log_det = log_det - log_left.sum((1, 2))
        log_p = (-0.5 * (LOG_2_PI + values.square()) * mask).sum((1, 2)) + log_det
        return log_q - log_p

    def _context(self, hidden: Tensor, mask: Tensor, condition: Tensor | None) -> Tensor:
        context = self.conv_pre(hidden.detach())
        if condition is not None:
            context = context + self.cond(condition)
        projected: Tensor = self.conv_proj(self.conv_dds(context, mask)) * mask
        return projected

    @staticmethod
    def _through(
        flows: nn.ModuleList, values: Tensor, mask: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Forward through all flows; the two channels change places behind each spline."""
        values, log_det = flows[0](values, mask)
        for flow in flows[1:]:
            values, more = flow(values, mask, context)
            values, log_det = values.flip(1), log_det + more
        return values, log_det


def _duration_flows(config: VitsConfig) -> nn.ModuleList:
    splines = [SplineCoupling(config) for _ in range(config.duration_flows)]
    return nn.ModuleList([Affine(), *splines])


class DurationPredictor(nn.Module):
    """Logarithms of durations, predicted by two convolutions.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        hidden, inner, kernel = config.hidden, config.duration_filter, config.duration_kernel
        epsilon = config.norm_epsilon
        self.dropout = nn.Dropout(config.duration_dropout)
        self.conv_1 = nn.Conv1d(hidden, inner, kernel, padding=kernel // 2)
        self.norm_1 = nn.LayerNorm(inner, eps=epsilon)
        self.conv_2 = nn.Conv1d(inner, inner, kernel, padding=kernel // 2)
        self.norm_2 = nn.LayerNorm(inner, eps=epsilon)
        self.proj = nn.Conv1d(inner, 1, 1)
        if config.speaker_size:
            self.cond = nn.Conv1d(config.speaker_size, hidden, 1)

    def forward(
        self, hidden: Tensor, mask: Tensor, condition: Tensor | None, noise: Tensor | None = None
    ) -> Tensor:
        """Logarithms of durations [B, 1, N]; `noise` is not used. No gradient flows to `hidden`."""
        hidden = hidden.detach()
        if condition is not None:
            hidden = hidden + self.cond(condition)
        inner = normed(self.norm_1, torch.relu(self.conv_1(hidden * mask)))
        inner = normed(self.norm_2, torch.relu(self.conv_2(self.dropout(inner) * mask)))
        projected: Tensor = self.proj(self.dropout(inner) * mask)
        return projected * mask

    def loss(
        self,
        hidden: Tensor,
        mask: Tensor,
        condition: Tensor | None,
        durations: Tensor,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Squared error of the logarithms, [B]; arguments as in the stochastic predictor."""
        wanted = torch.log(durations + 1e-6) * mask
        error: Tensor = self(hidden, mask, condition) - wanted
        return error.square().sum((1, 2))
