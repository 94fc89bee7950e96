"""The stack of gated convolutions (from WaveNet) in the posterior encoder and in the flows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GatedStack"]


class GatedStack(nn.Module):
    """Non-causal dilated convolutions with gates, residuals and skips (arXiv:1811.00002).

    Args:
        hidden: D in and out.
        layers: how many.
        kernel: odd.
        dilation: layer i has dilation ``dilation ** i``.
        condition_size: of a vector that moves every gate; 0 for none.
    """

    def __init__(
        self, hidden: int, layers: int, kernel: int, dilation: int, condition_size: int
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        if condition_size:
            self.cond_layer = nn.Conv1d(condition_size, 2 * hidden * layers, 1)
        for layer in range(layers):
            step = dilation**layer
            padding = step * (kernel - 1) // 2
            self.in_layers.append(
                nn.Conv1d(hidden, 2 * hidden, kernel, dilation=step, padding=padding)
            )
            # The last layer has no residual: nothing follows it.
            outputs = 2 * hidden if layer < layers - 1 else hidden
            self.res_skip_layers.append(nn.Conv1d(hidden, outputs, 1))

    def forward(self, hidden: Tensor, mask: Tensor, condition: Tensor | None = None) -> Tensor:
        """Run the stack.

        Args:
            hidden: float32 [B, D, F].
            mask: float32 [B, 1, F], 1 inside, 0 in the padding.
            condition: float32 [B, C, 1] or None.

        Returns:
            float32 [B, D, F], the sum of the skips.
        """
        skips = torch.zeros_like(hidden)
        shifts = self._shifts(condition)
        for layer, (convolve, split) in enumerate(
            zip(self.in_layers, self.res_skip_layers, strict=True)
        ):
            gates = convolve(hidden)
            if shifts is not None:
                gates = gates + shifts[layer]
            content, gate = gates.chunk(2, dim=1)
            out = split(torch.tanh(content) * torch.sigmoid(gate))
            if layer == len(self.in_layers) - 1:
                skips = skips + out
            else:
                residual, skip = out.chunk(2, dim=1)
                hidden = (hidden + residual) * mask
                skips = skips + skip
        return skips * mask

    def _shifts(self, condition: Tensor | None) -> tuple[Tensor, ...] | None:
        """What the condition adds to the gates of each layer, [B, 2 D, 1] each."""
        if condition is None:
            return None
        shifts: tuple[Tensor, ...] = self.cond_layer(condition).chunk(len(self.in_layers), dim=1)
        return shifts
