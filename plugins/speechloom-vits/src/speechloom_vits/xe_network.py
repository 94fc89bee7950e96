"""The X-E-Speech network: text, content of a recording and speech in one chain of flows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechloom_vits.alignment import durations_of, search
from speechloom_vits.decoder import Decoder
from speechloom_vits.durations import StochasticDurationPredictor
from speechloom_vits.flow import CouplingFlow, PosteriorEncoder
from speechloom_vits.network import mask_of, prior_scores
from speechloom_vits.text_encoder import TextEncoder
from speechloom_vits.xe_config import XESizes

__all__ = ["REFERENCE_FRAMES", "StyleEncoder", "XEHeard", "XESpeech"]

REFERENCE_FRAMES = 300
"""Of the slice of a recording that the style is taken from: six seconds."""


class StyleEncoder(nn.Module):
    """A mel spectrogram to one vector of who speaks and how.

    The recurrent state is drawn for long memory (arXiv:1804.11188): by the usual initialisation it
    has forgotten all but the last few frames, whose phones say nothing of the style, and the rest
    of the network learns to pass over it.

    Args:
        bands: of the mel.
        hidden: of the recurrent layers.
        layers: how many.
        size: of the vector.
    """

    def __init__(self, bands: int, hidden: int, layers: int, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(bands, hidden, layers, batch_first=True)
        self.project = nn.Linear(hidden, size)
        self._remember()

    def forward(self, mel: Tensor) -> Tensor:
        """Vectors [B, S], mean square 1, of mels [B, bands, F] without padding."""
        _, (state, _) = self.lstm(mel.transpose(1, 2))
        direction = functional.normalize(torch.relu(self.project(state[-1])), dim=1, eps=1e-6)
        return direction * math.sqrt(direction.shape[1])

    @torch.no_grad()
    def _remember(self) -> None:
        """Let each cell keep its state for between one frame and all frames of a reference."""
        cells = self.lstm.hidden_size
        for layer in range(self.lstm.num_layers):
            keeping = torch.empty(cells).uniform_(1, REFERENCE_FRAMES - 1).log()
            bias = self.lstm.get_parameter(f"bias_ih_l{layer}")
            bias.zero_()
            bias[:cells], bias[cells : 2 * cells] = -keeping, keeping
            self.lstm.get_parameter(f"bias_hh_l{layer}").zero_()


@dataclass(frozen=True)
class XEHeard:
    """What a training pass gives; latents and statistics are float32 [B, L, F].

    Attributes:
        latent: of the speech, drawn.
        speech_log_deviation: of its posterior.
        speech_as_content: it through the second flow.
        speech_as_text: that through the first.
        content_mean: of the posterior of the content.
        content_log_deviation: likewise.
        content_as_text: a drawn content latent through the first flow.
        text_mean: of the prior, of the symbol of each frame.
        text_log_deviation: likewise.
        duration_loss: float32 [B].
        mask: float32 [B, 1, F].
        text_mask: float32 [B, 1, N].
        style: float32 [B, S, 1].
    """

    latent: Tensor
    speech_log_deviation: Tensor
    speech_as_content: Tensor
    speech_as_text: Tensor
    content_mean: Tensor
    content_log_deviation: Tensor
    content_as_text: Tensor
    text_mean: Tensor
    text_log_deviation: Tensor
    duration_loss: Tensor
    mask: Tensor
    text_mask: Tensor
    style: Tensor


class XESpeech(nn.Module):
    """X-E-Speech: cross-lingual emotional speech from text, or from another's speech.

    Three latents in a row: text, content (of a Whisper encoder), speech. The first flow, under the
    language, lies between text and content; the second, under the style, between content and
    speech. Text goes through both to be spoken, a recording only through the second to be
    converted.

    Module names are those that a recipe freezes: ``style_encoder``, ``decoder`` and
    ``flow_content_to_speech`` stay as they are in the second stage.

    Args:
        sizes: of the networks.
    """

    def __init__(self, sizes: XESizes) -> None:
        super().__init__()
        voice = sizes.voice
        style, latent = voice.speaker_size, voice.latent_size
        self.sizes = sizes
        self.language = nn.Embedding(len(sizes.languages), sizes.language_size)
        self.text_encoder = TextEncoder(voice)
        self.text_language = nn.Linear(sizes.language_size, voice.hidden)
        self.content_encoder = PosteriorEncoder(
            sizes.content_size,
            voice.hidden,
            latent,
            layers=sizes.content_layers,
            kernel=voice.gated_kernel,
            condition_size=sizes.language_size,
        )
        self.speech_encoder = PosteriorEncoder(
            sizes.bands,
            voice.hidden,
            latent,
            layers=voice.posterior_layers,
            kernel=voice.gated_kernel,
            condition_size=style,
        )
        self.flow_text_to_content = self._flow(sizes, sizes.language_size)
        self.flow_content_to_speech = self._flow(sizes, style)
        self.duration_predictor = StochasticDurationPredictor(voice)
        self.duration_language = nn.Linear(sizes.language_size, style)
        self.decoder = Decoder(voice.decoder)
        self.style_encoder = StyleEncoder(
            sizes.bands, sizes.style_hidden, sizes.style_layers, style
        )

    @staticmethod
    def _flow(sizes: XESizes, condition_size: int) -> CouplingFlow:
        voice = sizes.voice
        return CouplingFlow(
            voice.latent_size,
            voice.hidden,
            flows=voice.flows,
            layers=voice.flow_layers,
            kernel=voice.gated_kernel,
            condition_size=condition_size,
            attention_layers=sizes.attention_layers,
        )

    # Speaking -----------------------------------------------------------------------------

    def durations(
        self, symbols: Tensor, language: Tensor, style: Tensor, noise: Tensor, length_scale: float
    ) -> Tensor:
        """Frames of each symbol, float32 [1, N], whole numbers of at least 1.

        Args:
            symbols: int64 [1, N].
            language: int64 [1].
            style: float32 [1, S, 1].
            noise: float32 [1, 2, N], scaled.
            length_scale: every duration is multiplied by it.
        """
        mask = torch.ones_like(symbols, dtype=torch.float32)[:, None]
        spoken = self.language(language)
        hidden, _, _ = self._text(symbols, mask, spoken)
        condition = self._duration_condition(spoken, style)
        log_frames = self.duration_predictor(hidden, mask, condition, noise)
        return torch.ceil(torch.exp(log_frames) * length_scale)[:, 0].clamp_min(1)

    def content_of_text(
        self, symbols: Tensor, frames: Tensor, language: Tensor, noise: Tensor
    ) -> Tensor:
        """The content latent [1, L, F] of a text.

        Args:
            symbols: int64 [1, N].
            frames: int64 [N], of each.
            language: int64 [1].
            noise: float32 [1, L, F], scaled.
        """
        mask = torch.ones_like(symbols, dtype=torch.float32)[:, None]
        spoken = self.language(language)
        _, mean, log_deviation = self._text(symbols, mask, spoken)
        mean, log_deviation = (
            stats.repeat_interleave(frames, dim=2) for stats in (mean, log_deviation)
        )
        drawn = mean + noise * torch.exp(log_deviation)
        latent: Tensor = self.flow_text_to_content(
            drawn, torch.ones_like(drawn[:, :1]), spoken[..., None], inverse=True
        )
        return latent

    def content_of_speech(self, features: Tensor, language: Tensor, noise: Tensor) -> Tensor:
        """The content latent [1, L, F] of a recording.

        The original takes it through the first flow and back, which changes nothing.

        Args:
            features: float32 [1, D, F].
            language: int64 [1].
            noise: float32 [1, L, F], scaled.
        """
        mask = torch.ones_like(features[:, :1])
        mean, log_deviation = self.content_encoder(
            features, mask, self.language(language)[..., None]
        )
        latent: Tensor = mean + noise * torch.exp(log_deviation)
        return latent

    def speech_latent(self, content: Tensor, style: Tensor) -> Tensor:
        """What the decoder plays, [1, L, F], of a content latent [1, L, F]."""
        mask = torch.ones_like(content[:, :1])
        latent: Tensor = self.flow_content_to_speech(content, mask, style, inverse=True)
        return latent

    # Learning -----------------------------------------------------------------------------

    def hear(
        self,
        symbols: Tensor,
        symbol_counts: Tensor,
        mel: Tensor,
        content: Tensor,
        frame_counts: Tensor,
        language: Tensor,
        reference: Tensor,
        noise: tuple[Tensor, Tensor],
        duration_noise: Tensor,
    ) -> XEHeard:
        """Everything of a training step but the samples.

        Args:
            symbols: int64 [B, N].
            symbol_counts: int64 [B].
            mel: float32 [B, bands, F].
            content: float32 [B, D, F].
            frame_counts: int64 [B].
            language: int64 [B].
            reference: float32 [B, bands, R], a slice of mel of each item without padding.
            noise: two of float32 [B, L, F], standard normal, of speech and content.
            duration_noise: float32 [B, 2, N], standard normal.
        """
        text_mask = mask_of(symbol_counts, symbols.shape[1])
        mask = mask_of(frame_counts, mel.shape[2])
        spoken = self.language(language)
        style = self.style_encoder(reference)[..., None]
        hidden, mean, log_deviation = self._text(symbols, text_mask, spoken)

        content_mean, content_deviation = self.content_encoder(content, mask, spoken[..., None])
        content_latent = (content_mean + noise[1] * torch.exp(content_deviation)) * mask
        content_as_text = self.flow_text_to_content(content_latent, mask, spoken[..., None])

        speech_mean, speech_deviation = self.speech_encoder(mel, mask, style)
        latent = (speech_mean + noise[0] * torch.exp(speech_deviation)) * mask
        speech_as_content = self.flow_content_to_speech(latent, mask, style)
        speech_as_text = self.flow_text_to_content(speech_as_content, mask, spoken[..., None])

        with torch.no_grad():
            scores = prior_scores(content_as_text, mean, log_deviation)
            path = search(scores, symbol_counts, frame_counts).to(symbols.device)
        frames = durations_of(path, symbols.shape[1])[:, None].float()
        at = path.clamp_min(0)[:, None].expand(-1, mean.shape[1], -1)
        return XEHeard(
            latent=latent,
            speech_log_deviation=speech_deviation,
            speech_as_content=speech_as_content,
            speech_as_text=speech_as_text,
            content_mean=content_mean,
            content_log_deviation=content_deviation,
            content_as_text=content_as_text,
            text_mean=mean.gather(2, at) * mask,
            text_log_deviation=log_deviation.gather(2, at) * mask,
            duration_loss=self.duration_predictor.loss(
                hidden, text_mask, self._duration_condition(spoken, style), frames, duration_noise
            ),
            mask=mask,
            text_mask=text_mask,
            style=style,
        )

    def _text(self, symbols: Tensor, mask: Tensor, spoken: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The text encoder, with the language added to every symbol."""
        encoder = self.text_encoder
        embedded = encoder.embed_tokens(symbols) * encoder.scale
        embedded = embedded + self.text_language(spoken)[:, None]
        hidden = encoder.encoder(embedded, mask).transpose(1, 2)
        mean, log_deviation = (encoder.project(hidden) * mask).chunk(2, dim=1)
        return hidden, mean, log_deviation

    def _duration_condition(self, spoken: Tensor, style: Tensor) -> Tensor:
        """Style and language together, [B, S, 1]; neither learns from durations."""
        language: Tensor = self.duration_language(spoken.detach())
        return style.detach() + language[..., None]
