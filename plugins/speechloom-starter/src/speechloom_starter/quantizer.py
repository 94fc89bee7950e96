"""Residual vector quantisation with codebooks that follow the data.

After Zeghidour et al. 2021 (SoundStream, arXiv:2107.03312): k-means start, moving averages, dead
codes replaced, fewer levels for some items in training. All draws take a generator.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Index int64 [N] of the nearest row of ``codebook`` [V, D] to each of ``vectors`` [N, D]."""
    with torch.autocast(vectors.device.type, enabled=False):
        score = torch.addmm(codebook.square().sum(1), vectors, codebook.T, alpha=-2.0)
        return score.argmin(1)


@torch.no_grad()
def k_means(vectors: Tensor, count: int, generator: torch.Generator, rounds: int = 12) -> Tensor:
    """Cluster ``vectors`` [N, D] into ``count`` centres [count, D]; empty clusters start anew."""
    picks = torch.randint(len(vectors), (count,), generator=generator)
    if len(vectors) >= count:
        picks = torch.randperm(len(vectors), generator=generator)[:count]
    centres = vectors[picks].clone()
    for _ in range(rounds):
        sums, sizes = cluster_sums(vectors, nearest(vectors, centres), count)
        fresh = vectors[torch.randint(len(vectors), (count,), generator=generator)]
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], fresh)
    return centres


def cluster_sums(vectors: Tensor, ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sum [count, D] and size [count] of each cluster."""
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, ids, vectors)
    sizes = vectors.new_zeros(count).index_add_(0, ids, vectors.new_ones(len(ids)))
    return sums, sizes


class ResidualQuantizer(nn.Module):
    """``levels`` codebooks of ``size`` vectors; level k codes what levels before k left over."""

    def __init__(self, width: int, levels: int, size: int, decay: float = 0.98) -> None:
        super().__init__()
        self.levels = levels
        self.size = size
        self.decay = decay
        self.codebooks: Tensor
        self.register_buffer("codebooks", torch.zeros(levels, size, width))

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """Codes int64 [N, K] of ``vectors`` float [N, D]."""
        residual = vectors.float()
        codes = []
        for codebook in self.codebooks:
            ids = nearest(residual, codebook)
            residual = residual - codebook[ids]
            codes.append(ids)
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors float [..., D] of ``codes`` int64 [..., k] with the first ``k <= K`` levels."""
        parts = [self.codebooks[level][codes[..., level]] for level in range(codes.shape[-1])]
        return torch.stack(parts).sum(0)


class QuantizerTrainer:
    """Moves the codebooks of a quantiser while the network around it learns."""

    def __init__(self, quantizer: ResidualQuantizer) -> None:
        self.quantizer = quantizer
        self.sums = quantizer.codebooks.clone()
        self.sizes = torch.ones(quantizer.levels, quantizer.size)

    @torch.no_grad()
    def start(self, vectors: Tensor, generator: torch.Generator) -> None:
        """Set every codebook by k-means on what the levels before it leave of ``vectors``."""
        residual = vectors.float()
        size = self.quantizer.size
        for level in range(self.quantizer.levels):
            centres = k_means(residual, size, generator)
            self.quantizer.codebooks[level] = centres
            ids = nearest(residual, centres)
            residual = residual - centres[ids]
        self.sums = self.quantizer.codebooks.clone()
        self.sizes = torch.ones(self.quantizer.levels, size)

    def __call__(
        self, latents: Tensor, generator: torch.Generator, whole_share: float = 0.5
    ) -> tuple[Tensor, Tensor]:
        """Quantise ``latents`` [B, F, D] straight through and learn from them.

        Returns:
            The quantised latents [B, F, D], and the commitment loss. An item keeps all levels with
            probability ``whole_share``, else a random number of them.
        """
        batch = latents.shape[0]
        levels = self.quantizer.levels
        kept = torch.randint(1, levels + 1, (batch,), generator=generator)
        kept[torch.rand(batch, generator=generator) < whole_share] = levels
        flat = latents.float()
        residual = flat.detach().reshape(-1, latents.shape[-1])
        total = torch.zeros_like(flat)
        for level in range(levels):
            ids = nearest(residual, self.quantizer.codebooks[level])
            chosen = self.quantizer.codebooks[level][ids]
            self._follow(level, residual, ids, generator)
            residual = residual - chosen
            total += chosen.view_as(flat) * (level < kept)[:, None, None]
        commitment = F.mse_loss(flat, total)
        return flat + (total - flat).detach(), commitment

    @torch.no_grad()
    def _follow(self, level: int, vectors: Tensor, ids: Tensor, generator: torch.Generator) -> None:
        decay, size = self.quantizer.decay, self.quantizer.size
        sums, sizes = cluster_sums(vectors, ids, size)
        self.sums[level].mul_(decay).add_(sums, alpha=1 - decay)
        self.sizes[level].mul_(decay).add_(sizes, alpha=1 - decay)
        # A code that gets under a twentieth of its fair share moves to a random vector.
        dead = self.sizes[level] < 0.05 * len(vectors) / size
        fresh = vectors[torch.randint(len(vectors), (size,), generator=generator)]
        share = len(vectors) / size
        self.sums[level] = torch.where(dead[:, None], fresh * share, self.sums[level])
        self.sizes[level] = torch.where(
            dead, torch.full_like(self.sizes[level], share), self.sizes[level]
        )
        self.quantizer.codebooks[level] = self.sums[level] / self.sizes[level][:, None]

    def state_dict(self) -> dict[str, Tensor]:
        """The moving averages."""
        return {"sums": self.sums, "sizes": self.sizes}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the moving averages of an earlier run."""
        self.sums, self.sizes = state["sums"].clone(), state["sizes"].clone()
