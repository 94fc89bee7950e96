"""The letter-to-sound network: letters in, two phone slots a letter out, read by CTC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechloom_starter.phones import PHONES

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
BLANK = 0
"""CTC's blank takes the id of the pause, which no word contains."""
SLOTS = 2
MAX_LETTERS = 48
_PAD = len(LETTERS)


@dataclass(frozen=True)
class G2pConfig:
    """Size of the network: 1.26 million parameters.

    Attributes:
        width: channels D.
        heads: attention heads.
        layers: transformer layers.
    """

    width: int = 160
    heads: int = 4
    layers: int = 4


class G2pNetwork(nn.Module):
    """A small transformer encoder over letters.

    Each letter owns `SLOTS` output positions, so a word of N letters has up to 2N phones; CTC
    (Graves et al. 2006) lines letters and phones up. Without a decoder it costs one pass and cannot
    loop or stop early.
    """

    def __init__(self, config: G2pConfig) -> None:
        super().__init__()
        # No dropout: after a few looks at a word it is not learned by heart, and drawing the random
        # numbers takes most of a step on a CPU.
        self.letters = nn.Embedding(len(LETTERS) + 1, config.width)
        self.places = nn.Parameter(torch.zeros(MAX_LETTERS, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            4 * config.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, SLOTS * len(PHONES))

    def forward(self, letters: Tensor) -> Tensor:
        """Score phones.

        Args:
            letters: ids int64 [B, N], N at most `MAX_LETTERS`, padded as `encode_words` does.

        Returns:
            Scores float [B, 2N, V]; id 0 is the blank.
        """
        hidden = self.letters(letters) + self.places[: letters.shape[1]]
        hidden = self.encoder(hidden, src_key_padding_mask=letters == _PAD)
        scores: Tensor = self.head(self.norm(hidden))
        return scores.reshape(letters.shape[0], SLOTS * letters.shape[1], len(PHONES))


def encode_words(words: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Words of `LETTERS` as ids.

    Returns:
        Ids int64 [B, N] and word lengths int64 [B].
    """
    lengths = torch.tensor([len(word) for word in words])
    ids = torch.full((len(words), int(lengths.max())), _PAD)
    for row, word in zip(ids, words, strict=True):
        row[: len(word)] = torch.tensor([LETTERS.index(letter) for letter in word])
    return ids, lengths


@torch.no_grad()
def decode_words(network: G2pNetwork, words: Sequence[str]) -> list[tuple[str, ...]]:
    """Best phone in each slot, repeats merged, blanks dropped; may be empty."""
    letters, lengths = encode_words(words)
    best = network(letters).argmax(-1).tolist()
    return [
        _collapse(row[: SLOTS * length]) for row, length in zip(best, lengths.tolist(), strict=True)
    ]


def _collapse(ids: Sequence[int]) -> tuple[str, ...]:
    kept = [index for place, index in enumerate(ids) if place == 0 or index != ids[place - 1]]
    return tuple(PHONES[index] for index in kept if index != BLANK)
