"""Input embeddings that start from the vectors of the codec and of the content units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom_speechsec.model import SpeechSEC

__all__ = ["code_vectors", "content_vectors", "start_from_vectors"]

SPREAD = 0.02
"""Root mean square of the embeddings that a network is born with; theirs becomes the same."""


def code_vectors(codec: Any) -> list[Tensor]:
    """What each id of each level adds to a frame, float32 [V, d] a level.

    Args:
        codec: a codec with the look-up ``codebook(level)``, as those of DAC, EnCodec,
            SpeechTokenizer and the starter have it.

    Raises:
        UsageError: it has none.
    """
    if not hasattr(codec, "codebook"):
        raise UsageError(
            f"codec {codec.spec.id} does not give its codebooks (`codebook(level)`); set "
            "`embeddings: random`"
        )
    return [codec.codebook(level).float().cpu() for level in range(codec.spec.facts.codebooks)]


def content_vectors(tokenizer: Any) -> Tensor | None:
    """The vector of each content unit, float32 [V, d]; None for a tokenizer that gives none.

    Args:
        tokenizer: its ``centroids`` are taken, where it has them.
    """
    centroids = getattr(tokenizer, "centroids", None)
    return None if centroids is None else centroids.float().cpu()


@torch.no_grad()
def start_from_vectors(
    model: SpeechSEC,
    codes: Sequence[Tensor] = (),
    content: Tensor | None = None,
    *,
    seed: int = 0,
) -> None:
    """Give the embeddings of a network the geometry of its tokens, before it is trained.

    Vectors of another width than the network's are multiplied by a random matrix with orthonormal
    rows or columns, which keeps angles and lengths when the network is wider, and about keeps them
    when it is narrower. All levels of a codec go through one matrix and one scale, so that the sum
    of the embeddings of a frame is the codec's own sum, seen from another side: finer levels are
    smaller, as they are there. Content has its own matrix and scale. The mask id, padding rows and
    everything else keep their drawn start. The second code embedding of a continuation starts as
    the first.

    Source: the recipe of soundstorm-speechtokenizer, which copies vectors of the network's own
    width (and says that it trains faster). We differ: any width, one scale.

    Args:
        model: freshly built; changed in place.
        codes: float [V, d] of each level; empty leaves the code embeddings as they are.
        content: float [V, d] of the content units; None leaves them as they are.
        seed: of the matrices.

    Raises:
        UsageError: there are other numbers of levels or ids than the network has.
    """
    config, draw = model.config, torch.Generator().manual_seed(seed)
    if codes:
        wanted = [config.codebook_size] * config.codebooks
        if [len(level) for level in codes] != wanted:
            raise UsageError(
                f"the network has {config.codebooks} levels of {config.codebook_size} codes, but "
                f"the codebooks have {[len(level) for level in codes]} vectors"
            )
        rows = _placed(torch.stack(list(codes)), config.dim, draw)
        shape = (config.codebooks, config.codebook_size + 1, config.dim)
        embeddings = [model.code_embedding]
        if config.prompt_embedding:
            embeddings.append(model.prompt_embedding)
        for embedding in embeddings:
            embedding.weight.view(shape)[:, :-1] = rows
    if content is not None:
        if len(content) != config.content_vocab:
            raise UsageError(
                f"the network takes {config.content_vocab} content ids, but there are "
                f"{len(content)} vectors"
            )
        model.content_embedding.weight[:-1] = _placed(content, config.dim, draw)


def _placed(vectors: Tensor, dim: int, draw: torch.Generator) -> Tensor:
    """Vectors [..., d] as [..., dim] with the spread of fresh embeddings."""
    placed = vectors.float()
    if vectors.shape[-1] != dim:
        placed = placed @ _orthonormal(vectors.shape[-1], dim, draw)
    size = float(placed.square().mean().sqrt())
    return placed * (SPREAD / size) if size > 0 else placed


def _orthonormal(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    """A matrix [rows, columns] whose shorter side is orthonormal, of mean gain one."""
    long, short = max(rows, columns), min(rows, columns)
    basis: Tensor = torch.linalg.qr(torch.randn(long, short, generator=draw)).Q
    basis = basis * math.sqrt(long / columns)
    return basis if rows == long else basis.T
