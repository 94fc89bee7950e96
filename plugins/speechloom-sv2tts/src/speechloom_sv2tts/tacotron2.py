"""Tacotron 2 with a speaker vector at every encoder step, as in SV2TTS.

Sources: Shen et al. 2018, "Natural TTS synthesis by conditioning WaveNet on mel spectrogram
predictions" (arXiv:1712.05884); Jia et al. 2018, "Transfer learning from speaker verification to
multispeaker text-to-speech synthesis" (arXiv:1806.04558). Where the papers leave room the network
is that of NVIDIA's published checkpoints: pre-net without bias, dropout of 0.1 on the LSTMs in the
place of zoneout, the attention weights and their sum as location features. It differs from that
code in three ways: padding is silent in every layer, so that an item is the same alone and in a
batch; a step may give several frames; and in training the second LSTM, which nothing feeds back
from, runs over all steps at once.

Shape letters: B batch, N symbols, S decoder steps, F frames, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from speechloom_sv2tts.config import TacotronConfig

__all__ = ["Attention", "Decoder", "Encoder", "Postnet", "Predicted", "Tacotron2", "inside"]

CONV_DROPOUT = 0.5
LSTM_DROPOUT = 0.1
PRENET_KEPT = 0.5
"""Of the pre-net's units; half of them are dropped when speaking too (section 2.2)."""


def inside(lengths: Tensor, size: int) -> Tensor:
    """Bool [B, size]: which positions are no padding."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class ConvBlock(nn.Module):
    """A convolution with batch normalisation that neither sees nor changes padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map [B, C, T] under `valid`, bool [B, T]; what is not valid comes out 0."""
        y = self.conv(x).transpose(1, 2)
        values: Tensor = self.norm(y[valid])
        normed = values.new_zeros(y.shape)
        normed[valid] = values
        return normed.transpose(1, 2)


class Encoder(nn.Module):
    """Symbols to memory: convolutions, then an LSTM in both directions."""

    def __init__(self, config: TacotronConfig) -> None:
        super().__init__()
        size = config.embedding
        self.blocks = nn.ModuleList(
            ConvBlock(size, size, config.encoder_kernel) for _ in range(config.encoder_layers)
        )
        self.lstm = nn.LSTM(size, config.encoder // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Encode embedded symbols.

        Args:
            x: float [B, N, D].
            lengths: int64 [B], on the CPU, at least 1 each.

        Returns:
            float [B, N, encoder], 0 in the padding.
        """
        valid = inside(lengths, x.shape[1]).to(x.device)
        y = x.transpose(1, 2) * valid[:, None]
        for block in self.blocks:
            y = functional.dropout(torch.relu(block(y, valid)), CONV_DROPOUT, self.training)
        packed = nn.utils.rnn.pack_padded_sequence(
            y.transpose(1, 2), lengths, batch_first=True, enforce_sorted=False
        )
        memory, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return memory


class Attention(nn.Module):
    """Location-sensitive attention (Chorowski et al. 2015, arXiv:1506.07503)."""

    def __init__(self, config: TacotronConfig) -> None:
        super().__init__()
        size = config.attention
        self.query = nn.Linear(config.attention_rnn, size, bias=False)
        self.memory = nn.Linear(config.memory, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)
        self.location_conv = nn.Conv1d(
            2,
            config.location_filters,
            config.location_kernel,
            padding=config.location_kernel // 2,
            bias=False,
        )
        self.location = nn.Linear(config.location_filters, size, bias=False)

    def weights(self, query: Tensor, keys: Tensor, earlier: Tensor, allowed: Tensor) -> Tensor:
        """Where to look.

        Args:
            query: float [B, attention_rnn].
            keys: float [B, N, attention], ``memory`` of the encoder's output.
            earlier: float [B, 2, N], the weights of the last step and the sum of all.
            allowed: bool [B, N], at least one position each.

        Returns:
            float [B, N] that sum to 1.
        """
        where = self.location(self.location_conv(earlier).transpose(1, 2))
        energy = self.score(torch.tanh(self.query(query)[:, None] + where + keys))[..., 0]
        return torch.softmax(energy.masked_fill(~allowed, -torch.inf), -1)


class Decoder(nn.Module):
    """Memory to mel frames, `reduction` frames a step."""

    def __init__(self, config: TacotronConfig) -> None:
        super().__init__()
        self.config = config
        frame = config.bands
        self.prenet = nn.ModuleList(
            nn.Linear(size, config.prenet, bias=False) for size in (frame, config.prenet)
        )
        self.attention_rnn = nn.LSTMCell(config.prenet + config.memory, config.attention_rnn)
        self.attention = Attention(config)
        self.decoder_rnn = nn.LSTM(
            config.attention_rnn + config.memory, config.decoder_rnn, batch_first=True
        )
        self.project = nn.Linear(config.decoder_rnn + config.memory, frame * config.reduction)
        self.stop = nn.Linear(config.decoder_rnn + config.memory, 1)

    def prepared(self, frames: Tensor, kept: Tensor | None) -> Tensor:
        """The pre-net.

        Args:
            frames: float [..., bands].
            kept: bool [..., 2, prenet], which units of each layer stay; None keeps all.
        """
        x = frames
        for layer, linear in enumerate(self.prenet):
            x = torch.relu(linear(x))
            if kept is not None:
                x = x * kept[..., layer, :] / PRENET_KEPT
        return x

    def forward(
        self,
        memory: Tensor,
        lengths: Tensor,
        frames: Tensor,
        kept: Tensor | None,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict every step from the true frames before it.

        Args:
            memory: float [B, N, memory].
            lengths: int64 [B], symbols.
            frames: float [B, S x reduction, bands], the true ones.
            kept: bool [B, S, 2, prenet] for the pre-net's dropout.
            allowed: bool [B, S, N], where each step may look; None allows all symbols.

        Returns:
            Frames float [B, S x reduction, bands], stop logits [B, S], attention [B, S, N].
        """
        config = self.config
        batch, symbols, _ = memory.shape
        last = frames[:, config.reduction - 1 :: config.reduction]
        before = functional.pad(last, (0, 0, 1, 0))[:, :-1]
        inputs = self.prepared(before, kept)
        if allowed is None:
            allowed = inside(lengths, symbols).to(memory.device)[:, None]
            allowed = allowed.expand(-1, inputs.shape[1], -1)
        asked, contexts, attention = self._attended(memory, allowed, inputs)
        spoken, _ = self.decoder_rnn(torch.cat([asked, contexts], -1))
        spoken = functional.dropout(spoken, LSTM_DROPOUT, self.training)
        heads = torch.cat([spoken, contexts], -1)
        steps = inputs.shape[1]
        mel = self.project(heads).view(batch, steps * config.reduction, config.bands)
        return mel, self.stop(heads)[..., 0], attention.view(batch, steps, symbols)

    def _attended(
        self, memory: Tensor, allowed: Tensor, inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """LSTM states [B, S, .], contexts [B, S, memory] and weights [B, S, N] of all steps."""
        batch, symbols, size = memory.shape
        keys = self.attention.memory(memory)
        hidden = memory.new_zeros(batch, self.config.attention_rnn)
        cell, context = torch.zeros_like(hidden), memory.new_zeros(batch, size)
        weights = memory.new_zeros(batch, symbols)
        total = torch.zeros_like(weights)
        asked, contexts, seen = [], [], []
        for step, there in zip(inputs.unbind(1), allowed.unbind(1), strict=True):
            hidden, cell = self.attention_rnn(torch.cat([step, context], -1), (hidden, cell))
            hidden = functional.dropout(hidden, LSTM_DROPOUT, self.training)
            earlier = torch.stack([weights, total], 1)
            weights = self.attention.weights(hidden, keys, earlier, there)
            total = total + weights
            context = torch.bmm(weights[:, None], memory)[:, 0]
            asked.append(hidden)
            contexts.append(context)
            seen.append(weights)
        return torch.stack(asked, 1), torch.stack(contexts, 1), torch.stack(seen, 1)


class Postnet(nn.Module):
    """What is added to the decoder's mel once the whole of it is there."""

    def __init__(self, config: TacotronConfig) -> None:
        super().__init__()
        between = [config.postnet] * (config.postnet_layers - 1)
        sizes = [config.bands, *between, config.bands]
        self.blocks = nn.ModuleList(
            ConvBlock(a, b, config.postnet_kernel) for a, b in zip(sizes, sizes[1:], strict=False)
        )

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """The residual float [B, bands, F] of a mel [B, bands, F], 0 in the padding."""
        valid = inside(lengths, mel.shape[-1]).to(mel.device)
        x = mel * valid[:, None]
        for number, block in enumerate(self.blocks, 1):
            x = block(x, valid)
            x = torch.tanh(x) if number < len(self.blocks) else x
            x = functional.dropout(x, CONV_DROPOUT, self.training)
        return x


@dataclass(frozen=True)
class Predicted:
    """What the network says of true frames.

    Attributes:
        coarse: float [B, bands, F], of the decoder.
        mel: float [B, bands, F], with the post-net's residual.
        stop: float [B, S], logits that a step is the last.
        attention: float [B, S, N].
    """

    coarse: Tensor
    mel: Tensor
    stop: Tensor
    attention: Tensor


class Tacotron2(nn.Module):
    """The whole network; `forward` is teacher-forced, `speechloom_sv2tts.decoding` speaks."""

    def __init__(self, config: TacotronConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.symbols, config.embedding)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.postnet = Postnet(config)

    def remember(self, symbols: Tensor, lengths: Tensor, voices: Tensor | None) -> Tensor:
        """The memory that the attention reads.

        Args:
            symbols: int64 [B, N].
            lengths: int64 [B], on the CPU.
            voices: float [B, voice], joined to every step; None where the network has none.

        Returns:
            float [B, N, memory].
        """
        memory = cast(Tensor, self.encoder(self.embedding(symbols), lengths))
        if voices is None:
            return memory
        return torch.cat([memory, voices[:, None].expand(-1, memory.shape[1], -1)], -1)

    def forward(
        self,
        symbols: Tensor,
        lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        voices: Tensor | None,
        kept: Tensor | None,
        allowed: Tensor | None = None,
    ) -> Predicted:
        """Predict a mel from itself.

        Args:
            symbols: int64 [B, N].
            lengths: int64 [B], symbols of each.
            mel: float [B, bands, F], F a multiple of the reduction.
            mel_lengths: int64 [B], frames of each.
            voices: as `remember` takes them.
            kept: bool [B, S, 2, prenet], units of the pre-net that stay.
            allowed: bool [B, S, N], where each step may look; None allows all symbols.
        """
        memory = self.remember(symbols, lengths, voices)
        frames, stop, attention = self.decoder(memory, lengths, mel.transpose(1, 2), kept, allowed)
        coarse = frames.transpose(1, 2)
        return Predicted(coarse, coarse + self.postnet(coarse, mel_lengths), stop, attention)
