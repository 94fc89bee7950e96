"""Residual vector quantisation (Zeghidour et al. 2021, arXiv:2107.03312)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

__all__ = ["ResidualQuantizer"]


class Codebook(nn.Module):
    """The vectors of one level, ``embed`` float32 [V, D]."""

    embed: Tensor

    def __init__(self, size: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.zeros(size, dimension))

    def nearest(self, x: Tensor) -> Tensor:
        """The id int64 [F] of the nearest vector to each row of `x` [F, D].

        The squared distance is summed in the order of the original, though its first term is the
        same for all vectors: it rounds, and so decides between vectors that are about as near.
        """
        vectors = self.embed.t()
        distance = x.pow(2).sum(1, keepdim=True) - 2 * x @ vectors
        distance += vectors.pow(2).sum(0, keepdim=True)
        return distance.argmin(-1)


class ResidualQuantizer(nn.Module):
    """Levels of codebooks, each of which quantises what those before it leave."""

    def __init__(self, levels: int, size: int, dimension: int) -> None:
        super().__init__()
        # Module by module the names of the original: `vq.layers.0._codebook.embed`.
        layers = [nn.ModuleDict({"_codebook": Codebook(size, dimension)}) for _ in range(levels)]
        self.vq = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    @property
    def codebooks(self) -> list[Codebook]:
        """One per level."""
        layers = cast("list[nn.ModuleDict]", self.vq["layers"])
        return [cast("Codebook", layer["_codebook"]) for layer in layers]

    def encode(self, latents: Tensor) -> Tensor:
        """Codes int64 [K, F] of latents [D, F]."""
        residual = latents.t()
        ids = []
        for codebook in self.codebooks:
            ids.append(codebook.nearest(residual))
            residual = residual - F.embedding(ids[-1], codebook.embed)
        return torch.stack(ids)

    def decode(self, ids: Tensor) -> Tensor:
        """Latents [D, F] of the first k levels of codes int64 [k, F]."""
        first, *finer = (
            F.embedding(row, codebook.embed)
            for row, codebook in zip(ids, self.codebooks, strict=False)
        )
        return sum(finer, start=first).t()
