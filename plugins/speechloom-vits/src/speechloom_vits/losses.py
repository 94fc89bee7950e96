"""The losses of VITS."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechloom_vits.discriminators import Judgement

__all__ = ["adversarial_loss", "discriminator_loss", "feature_loss", "kl_loss"]


def kl_loss(
    latent: Tensor,
    posterior_log_deviation: Tensor,
    mean: Tensor,
    log_deviation: Tensor,
    mask: Tensor,
) -> Tensor:
    """Divergence of the posterior from the prior, per frame, at a drawn latent.

    Args:
        latent: float32 [B, L, F], drawn from the posterior, through the flow.
        posterior_log_deviation: float32 [B, L, F].
        mean: float32 [B, L, F], of the prior.
        log_deviation: float32 [B, L, F], of the prior.
        mask: float32 [B, 1, F].

    Returns:
        Scalar; summed over L, averaged over frames.
    """
    divergence = log_deviation - posterior_log_deviation - 0.5
    divergence = divergence + 0.5 * (latent - mean).square() * torch.exp(-2 * log_deviation)
    return (divergence * mask).sum() / mask.sum()


def discriminator_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """A scalar, least squares (arXiv:1611.04076): speech is 1, decoded speech 0."""
    terms = [
        (1 - ours).square().mean() + theirs.square().mean()
        for (ours, _), (theirs, _) in zip(real, made, strict=True)
    ]
    return torch.stack(terms).sum()


def adversarial_loss(made: Sequence[Judgement]) -> Tensor:
    """A scalar: how far decoded speech is from being taken for speech."""
    return torch.stack([(1 - scores).square().mean() for scores, _ in made]).sum()


def feature_loss(real: Sequence[Judgement], made: Sequence[Judgement]) -> Tensor:
    """A scalar: how far apart the discriminators' layers are, twice their sum as in HiFi-GAN."""
    terms = [
        (one.detach() - other).abs().mean()
        for (_, ours), (_, theirs) in zip(real, made, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return 2 * torch.stack(terms).sum()
