"""The VITS network: text and speech meet in one latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechloom_vits.alignment import durations_of, search
from speechloom_vits.config import VitsConfig
from speechloom_vits.decoder import Decoder
from speechloom_vits.durations import DurationPredictor, StochasticDurationPredictor
from speechloom_vits.flow import CouplingFlow, PosteriorEncoder
from speechloom_vits.text_encoder import TextEncoder

__all__ = ["Heard", "Vits", "mask_of", "prior_scores"]


@dataclass(frozen=True)
class Heard:
    """What a training pass gives.

    Attributes:
        latent: float32 [B, L, F], drawn from the posterior.
        prior_latent: float32 [B, L, F], the same through the flow.
        posterior_log_deviation: float32 [B, L, F].
        prior_mean: float32 [B, L, F], of the symbol of each frame.
        prior_log_deviation: float32 [B, L, F], likewise.
        durations: float32 [B, 1, N], frames of each symbol in the best alignment.
        duration_loss: float32 [B].
        mask: float32 [B, 1, F].
        text_mask: float32 [B, 1, N].
        speaker: float32 [B, S, 1], or None.
    """

    latent: Tensor
    prior_latent: Tensor
    posterior_log_deviation: Tensor
    prior_mean: Tensor
    prior_log_deviation: Tensor
    durations: Tensor
    duration_loss: Tensor
    mask: Tensor
    text_mask: Tensor
    speaker: Tensor | None


class Vits(nn.Module):
    """VITS (Kim et al. 2021, arXiv:2106.06103).

    The names of its weights are those of transformers' ``VitsModel``.

    Args:
        config: sizes.
        posterior: whether to have the posterior encoder, which text to speech does not need.
    """

    def __init__(self, config: VitsConfig, *, posterior: bool = True) -> None:
        super().__init__()
        self.config = config
        self.text_encoder = TextEncoder(config)
        self.flow = CouplingFlow(
            config.latent_size,
            config.hidden,
            flows=config.flows,
            layers=config.flow_layers,
            kernel=config.gated_kernel,
            dilation=config.gated_dilation,
            condition_size=config.speaker_size,
        )
        self.decoder = Decoder(config.decoder)
        predictor = StochasticDurationPredictor if config.stochastic else DurationPredictor
        self.duration_predictor: StochasticDurationPredictor | DurationPredictor = predictor(config)
        if config.speakers > 1:
            self.embed_speaker = nn.Embedding(config.speakers, config.speaker_size)
            nn.init.normal_(self.embed_speaker.weight)
        if posterior:
            self.posterior_encoder = PosteriorEncoder(
                config.spectrum_bins,
                config.hidden,
                config.latent_size,
                layers=config.posterior_layers,
                kernel=config.gated_kernel,
                dilation=config.gated_dilation,
                condition_size=config.speaker_size,
            )

    # Speaking -----------------------------------------------------------------------------

    def durations(
        self,
        symbols: Tensor,
        noise: Tensor,
        speaker: Tensor | None,
        *,
        length_scale: float,
    ) -> Tensor:
        """Frames of each symbol.

        Args:
            symbols: int64 [1, N].
            noise: float32 [1, 2, N], scaled.
            speaker: float32 [1, S, 1], or None.
            length_scale: every duration is multiplied by it.

        Returns:
            float32 [1, N], whole numbers of at least 1.
        """
        mask = torch.ones_like(symbols, dtype=torch.float32)[:, None]
        hidden, _, _ = self.text_encoder(symbols, mask)
        log_frames = self.duration_predictor(hidden, mask, speaker, noise)
        frames: Tensor = torch.ceil(torch.exp(log_frames) * length_scale)
        return frames[:, 0].clamp_min(1)

    def latent_of_text(
        self,
        symbols: Tensor,
        frames: Tensor,
        noise: Tensor,
        speaker: Tensor | None,
    ) -> Tensor:
        """The latent that the decoder plays.

        Args:
            symbols: int64 [1, N].
            frames: int64 [N], of each symbol.
            noise: float32 [1, L, F], scaled.
            speaker: float32 [1, S, 1], or None.

        Returns:
            float32 [1, L, F].
        """
        mask = torch.ones_like(symbols, dtype=torch.float32)[:, None]
        _, mean, log_deviation = self.text_encoder(symbols, mask)
        mean, log_deviation = (
            stats.repeat_interleave(frames, dim=2) for stats in (mean, log_deviation)
        )
        return self.latent_of_content(mean + noise * torch.exp(log_deviation), speaker)

    def latent_of_content(self, prior_latent: Tensor, speaker: Tensor | None) -> Tensor:
        """The latent that the decoder plays, of what is said without the speaker.

        Args:
            prior_latent: float32 [1, L, F].
            speaker: float32 [1, S, 1], of the one who is to speak, or None.

        Returns:
            float32 [1, L, F].
        """
        mask = torch.ones_like(prior_latent[:, :1])
        latent: Tensor = self.flow(prior_latent, mask, speaker, inverse=True)
        return latent

    def prior_latent_of_speech(
        self, spectrum: Tensor, noise: Tensor, speaker: Tensor | None
    ) -> Tensor:
        """A recording as the prior sees it: what is said and how, without the speaker.

        Args:
            spectrum: float32 [1, bins, F], linear magnitudes.
            noise: float32 [1, L, F], scaled.
            speaker: float32 [1, S, 1], of the one who speaks, or None.

        Returns:
            float32 [1, L, F].
        """
        mask = torch.ones_like(spectrum[:, :1])
        mean, log_deviation = self.posterior_encoder(spectrum, mask, speaker)
        latent: Tensor = self.flow(mean + noise * torch.exp(log_deviation), mask, speaker)
        return latent

    # Learning -----------------------------------------------------------------------------

    def hear(
        self,
        symbols: Tensor,
        symbol_counts: Tensor,
        spectrum: Tensor,
        frame_counts: Tensor,
        speakers: Tensor | None,
        noise: Tensor,
        duration_noise: Tensor,
    ) -> Heard:
        """Everything of a training step but the samples.

        Args:
            symbols: int64 [B, N].
            symbol_counts: int64 [B].
            spectrum: float32 [B, bins, F], linear magnitudes.
            frame_counts: int64 [B].
            speakers: int64 [B], or None.
            noise: float32 [B, L, F], standard normal.
            duration_noise: float32 [B, 2, N], standard normal.
        """
        text_mask = mask_of(symbol_counts, symbols.shape[1])
        mask = mask_of(frame_counts, spectrum.shape[2])
        speaker = None if speakers is None else self.embed_speaker(speakers)[..., None]
        hidden, mean, log_deviation = self.text_encoder(symbols, text_mask)
        heard_mean, heard_deviation = self.posterior_encoder(spectrum, mask, speaker)
        latent = (heard_mean + noise * torch.exp(heard_deviation)) * mask
        prior_latent = self.flow(latent, mask, speaker)
        with torch.no_grad():
            scores = prior_scores(prior_latent, mean, log_deviation)
            path = search(scores, symbol_counts, frame_counts).to(symbols.device)
        frames = durations_of(path, symbols.shape[1])[:, None].float()
        known = None if speaker is None else speaker.detach()  # voices do not learn from durations
        at = path.clamp_min(0)[:, None].expand(-1, mean.shape[1], -1)
        return Heard(
            latent=latent,
            prior_latent=prior_latent,
            posterior_log_deviation=heard_deviation,
            prior_mean=mean.gather(2, at) * mask,
            prior_log_deviation=log_deviation.gather(2, at) * mask,
            durations=frames,
            duration_loss=self.duration_predictor.loss(
                hidden, text_mask, known, frames, duration_noise
            ),
            mask=mask,
            text_mask=text_mask,
            speaker=speaker,
        )


def mask_of(lengths: Tensor, longest: int) -> Tensor:
    """1 inside and 0 in the padding, float32 [B, 1, longest]."""
    at = torch.arange(longest, device=lengths.device)
    return (at < lengths[:, None]).float()[:, None]


def prior_scores(latent: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Log likelihood of each frame under the normal distribution of each symbol.

    Args:
        latent: float32 [B, L, F].
        mean: float32 [B, L, N].
        log_deviation: float32 [B, L, N].

    Returns:
        float32 [B, N, F], but for a constant.
    """
    precision = torch.exp(-2 * log_deviation)
    of_symbol = (-log_deviation - 0.5 * mean.square() * precision).sum(1)[..., None]
    crossed = (mean * precision).transpose(1, 2) @ latent
    squared = (-0.5 * precision).transpose(1, 2) @ latent.square()
    return of_symbol + crossed + squared
