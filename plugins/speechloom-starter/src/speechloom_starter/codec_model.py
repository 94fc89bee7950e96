"""The codec: 16 kHz speech to 8 x 1024 codes at 50 Hz and back.

Log-mel frames in, ConvNeXt blocks at frame rate, residual quantisation, ConvNeXt blocks, and an
inverse-STFT head after Vocos (Siuzdak 2023, arXiv:2306.00814), with two sub-frames a frame. Every
layer has a finite reach and nothing is normalised over time: a recording coded in overlapping
windows has the codes and the samples of the whole.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom_starter.blocks import ConvNeXtStack, length_mask
from speechloom_starter.mel import (
    EDGE,
    HOP,
    MEL_DIM,
    MEL_EDGE_FRAMES,
    SUB_HOP,
    WINDOW,
    hann,
    log_mel,
)
from speechloom_starter.quantizer import ResidualQuantizer


class CodecConfig(BaseModel):
    """Sizes of the codec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder_width: int = 256
    encoder_depth: int = 6
    decoder_width: int = 384
    decoder_depth: int = 8
    kernel: int = 7
    expansion: int = 3
    latent_width: int = 64
    codebooks: int = 8
    codebook_size: int = 1024

    @classmethod
    def tiny(cls) -> CodecConfig:
        """A codec small enough for a unit test."""
        return cls(
            encoder_width=16, encoder_depth=1, decoder_width=16, decoder_depth=1, latent_width=8
        )


class InverseSTFTHead(nn.Module):
    """Frames to samples: magnitude and phase of two sub-frames per frame, overlapped and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bins = WINDOW // 2 + 1
        self.out = nn.Linear(width, 2 * 3 * self.bins)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map [B, F, D] to float32 samples [B, 320 F]; ``mask`` [B, F, 1] is 0 past the end."""
        batch, frames, _ = x.shape
        parts = self.out(x).float().reshape(batch, frames * 2, 3, self.bins)
        magnitude = (parts[:, :, 0] - 2.0).clamp(max=6.0).exp()
        # Phase as a direction: no jump at +-pi, and the network need not keep its length.
        direction = F.normalize(parts[:, :, 1:], dim=2)
        spectrum = torch.complex(magnitude * direction[:, :, 0], magnitude * direction[:, :, 1])
        pieces = torch.fft.irfft(spectrum, n=WINDOW) * hann(WINDOW, x.device)
        window = hann(WINDOW, x.device).square().expand(1, frames * 2, WINDOW)
        if mask is not None:
            exists = mask.repeat_interleave(2, 1)
            pieces, window = pieces * exists, window * exists
        return _overlap_add(pieces) / _overlap_add(window).clamp(min=1e-3)


def _overlap_add(pieces: Tensor) -> Tensor:
    """Add [B, J, 640] at a hop of 160 and cut the outer edges: [B, 160 J]."""
    batch, count, size = pieces.shape
    total = (count - 1) * SUB_HOP + size
    # Four hops to a window: add four shifted copies instead of folding.
    hops = pieces.reshape(batch, count, size // SUB_HOP, SUB_HOP)
    out = pieces.new_zeros(batch, count + size // SUB_HOP - 1, SUB_HOP)
    for shift in range(size // SUB_HOP):
        out = out + F.pad(hops[:, :, shift], (0, 0, shift, size // SUB_HOP - 1 - shift))
    return out.reshape(batch, total)[:, EDGE : total - EDGE]


class CodecModel(nn.Module):
    """Encoder, quantiser and decoder.

    ``encoder_reach_frames`` and ``decoder_reach_frames`` say how many frames to either side a frame
    of the output depends on: the overlap that makes windowed use equal to whole use.
    """

    hop = HOP

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.read = nn.Linear(MEL_DIM, config.encoder_width)
        self.encoder = ConvNeXtStack(
            config.encoder_width, config.encoder_depth, config.kernel, config.expansion
        )
        self.to_latent = nn.Sequential(
            nn.LayerNorm(config.encoder_width), nn.Linear(config.encoder_width, config.latent_width)
        )
        self.quantizer = ResidualQuantizer(
            config.latent_width, config.codebooks, config.codebook_size
        )
        self.from_latent = nn.Linear(config.latent_width, config.decoder_width)
        self.decoder = ConvNeXtStack(
            config.decoder_width, config.decoder_depth, config.kernel, config.expansion
        )
        self.norm = nn.LayerNorm(config.decoder_width)
        self.head = InverseSTFTHead(config.decoder_width)
        self.encoder_reach_frames = self.encoder.reach_frames + MEL_EDGE_FRAMES
        # The windows of the outermost sub-frames reach 240 samples into the neighbouring frame.
        self.decoder_reach_frames = self.decoder.reach_frames + 1

    def latents(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Latents float [B, F, D] of ``audio`` [B, T]; ``lengths`` int64 [B] in frames."""
        mel = log_mel(audio)
        mask = length_mask(lengths, mel.shape[1])
        latents: Tensor = self.to_latent(self.encoder(self.read(mel), mask)).float()
        return latents

    def synthesise(self, latents: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Samples float32 [B, 320 F] of ``latents`` [B, F, D]."""
        mask = length_mask(lengths, latents.shape[1])
        samples: Tensor = self.head(self.norm(self.decoder(self.from_latent(latents), mask)), mask)
        return samples

    @torch.no_grad()
    def encode(self, audio: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Codes int64 [B, K, F] of ``audio`` float [B, T], with ``F = ceil(T / 320)``.

        Args:
            audio: 16 kHz mono.
            lengths: frames of each item, int64 [B], where the batch is padded with zeros.
        """
        latents = self.latents(audio, lengths)
        batch, frames, width = latents.shape
        codes = self.quantizer.encode(latents.reshape(-1, width))
        return codes.reshape(batch, frames, -1).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Samples float32 [B, 320 F] of ``codes`` int64 [B, k, F], the first ``k <= K`` levels."""
        return self.synthesise(self.quantizer.decode(codes.transpose(1, 2)), lengths)
