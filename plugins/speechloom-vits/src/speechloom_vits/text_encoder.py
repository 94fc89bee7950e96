"""Text to the statistics of the prior: a transformer with relative positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechloom_vits.config import VitsConfig

__all__ = ["RelativeAttention", "RelativeEncoder", "TextEncoder"]


class RelativeAttention(nn.Module):
    """Self-attention with learnt vectors of relative positions (arXiv:1803.02155).

    Positions further apart than `window` have no vector. The vectors are shared by the heads.

    Args:
        hidden: D.
        heads: D is a multiple of it.
        window: farthest position with a vector.
        dropout: of the attention weights.
    """

    def __init__(self, hidden: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.dropout = dropout
        size = hidden // heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self.emb_rel_k = nn.Parameter(torch.randn(1, 2 * window + 1, size) * size**-0.5)
        self.emb_rel_v = nn.Parameter(torch.randn(1, 2 * window + 1, size) * size**-0.5)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Attend.

        Args:
            hidden: float32 [B, N, D].
            mask: float32 [B, 1, N], 1 inside.

        Returns:
            float32 [B, N, D].
        """
        batch, length, width = hidden.shape
        query, key, value = (
            project(hidden).view(batch, length, self.heads, -1).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )  # [B, H, N, D / H]
        query = query * (width // self.heads) ** -0.5
        near, index = self._neighbours(length, hidden.device)
        by_position = query @ self.emb_rel_k[0].T  # [B, H, N, 2 W + 1]
        scores = query @ key.transpose(-1, -2)
        scores = scores + by_position.gather(-1, index.expand_as(scores)) * near
        scores = scores.masked_fill(mask[:, None] == 0, -1e4)
        weights = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        mixed = weights @ value + self._by_offset(weights) @ self.emb_rel_v[0]
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return projected

    def _neighbours(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Which pairs are near, float [N, N], and the vector of each, int64 [N, N]."""
        at = torch.arange(length, device=device)
        offset = at[None, :] - at[:, None] + self.window
        inside = (offset >= 0) & (offset <= 2 * self.window)
        return inside.float(), offset.clamp(0, 2 * self.window)

    def _by_offset(self, weights: Tensor) -> Tensor:
        """Attention weights [B, H, N, N] by relative position, [B, H, N, 2 W + 1]."""
        length = weights.shape[-1]
        padded = functional.pad(weights, (self.window, self.window))
        at = torch.arange(length, device=weights.device)[:, None]
        index = at + torch.arange(2 * self.window + 1, device=weights.device)
        return padded.gather(-1, index.expand(*weights.shape[:2], -1, -1))


class FeedForward(nn.Module):
    """Two convolutions around a rectifier.

    Args:
        hidden: D in and out.
        inner: D between.
        kernel: padded on both sides; an even one more on the right.
        dropout: between.
    """

    def __init__(self, hidden: int, inner: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv_1 = nn.Conv1d(hidden, inner, kernel)
        self.conv_2 = nn.Conv1d(inner, hidden, kernel)
        self.pad = ((kernel - 1) // 2, kernel // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run on [B, N, D] under a mask [B, 1, N]."""
        inner = hidden.transpose(1, 2) * mask
        inner = torch.relu(self.conv_1(functional.pad(inner, self.pad)))
        inner = self.dropout(inner) * mask
        out: Tensor = self.conv_2(functional.pad(inner, self.pad)) * mask
        return out.transpose(1, 2)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, normalised after each.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        hidden, epsilon = config.hidden, config.norm_epsilon
        self.attention = RelativeAttention(hidden, config.heads, config.window, config.dropout)
        self.layer_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.feed_forward = FeedForward(
            hidden, config.feed_forward, config.text_kernel, config.dropout
        )
        self.final_layer_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run on [B, N, D] under a mask [B, 1, N]."""
        hidden = self.layer_norm(hidden + self.dropout(self.attention(hidden, mask)))
        return self._normed(hidden + self.dropout(self.feed_forward(hidden, mask)))

    def _normed(self, hidden: Tensor) -> Tensor:
        normed: Tensor = self.final_layer_norm(hidden)
        return normed


class RelativeEncoder(nn.Module):
    """A row of `EncoderLayer`.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.text_layers))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run on [B, N, D] under a mask [B, 1, N]; padding of the result is 0."""
        inside = mask.transpose(1, 2)
        hidden = hidden * inside
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden * inside


class TextEncoder(nn.Module):
    """Symbols to hidden states and to the mean and log deviation of the prior.

    Args:
        config: sizes.
    """

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.hidden)
        self.embed_tokens = nn.Embedding(config.symbols, config.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=config.hidden**-0.5)
        self.encoder = RelativeEncoder(config)
        self.project = nn.Conv1d(config.hidden, 2 * config.latent_size, 1)

    def forward(self, symbols: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode.

        Args:
            symbols: int64 [B, N].
            mask: float32 [B, 1, N], 1 inside.

        Returns:
            Hidden states [B, D, N]; mean and log deviation of the prior [B, L, N].
        """
        embedded = self.embed_tokens(symbols) * self.scale
        hidden = self.encoder(embedded, mask).transpose(1, 2)
        mean, log_deviation = (self.project(hidden) * mask).chunk(2, dim=1)
        return hidden, mean, log_deviation
