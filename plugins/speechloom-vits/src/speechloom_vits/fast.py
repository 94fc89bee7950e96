"""The HiFi-GAN decoder for speaking: the weights of `Decoder`, on a faster way."""

from __future__ import annotations

from torch import Tensor

from speechloom_vits.decoder import Decoder

__all__ = ["FastDecoder"]


class FastDecoder:
    """Runs a decoder.

    Args:
        decoder: with weight normalisation folded in.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def __call__(self, latent: Tensor, condition: Tensor | None) -> Tensor:
        """Samples float32 [B, 1, T] of latents [B, L, F]."""
        samples: Tensor = self._decoder(latent, condition)
        return samples
