"""The original package with random weights that give lively codes, and the same weights in ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from speechtokenizer import SpeechTokenizer
from torch import Tensor

from speechloom.testing.inputs import made_audio
from speechloom_speechtokenizer import SpeechTokenizerCodec, spec_for

PUBLISHED: dict[str, Any] = {
    "sample_rate": 16_000,
    "strides": [8, 5, 4, 2],
    "n_filters": 64,
    "n_residual_layers": 1,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "activation": "ELU",
    "lstm_layers": 2,
    "bidirectional": True,
    "dimension": 1024,
    "semantic_dimension": 768,
    "n_q": 8,
    "codebook_size": 1024,
}
"""The configuration of the published checkpoint."""

GAIN = 1.6
"""Of random convolutions, so that what they give has about the power of what they take."""

NARROW = {**PUBLISHED, "n_filters": 8, "dimension": 128}
"""The same with an eighth of the channels."""


def pair(config: dict[str, Any], folder: Path) -> tuple[SpeechTokenizer, SpeechTokenizerCodec]:
    """The original with random weights, and ours read from the files that it would save."""
    torch.manual_seed(0)
    theirs = SpeechTokenizer(config).eval()
    _liven(theirs)
    _fill_codebooks(theirs)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(theirs.state_dict(), folder / "SpeechTokenizer.pt")
    ours = SpeechTokenizerCodec.from_pretrained(spec_for(folder, id="same-weights"))
    return theirs, ours


@torch.no_grad()
def _liven(model: SpeechTokenizer) -> None:
    """Let the input reach the other end: torch's defaults damp it to a constant."""
    for name, value in model.named_parameters():
        if name.endswith("weight_g"):
            value.mul_(GAIN)
        elif name.endswith("conv.bias") or name.endswith("convtr.bias"):
            value.mul_(0.1)


@torch.no_grad()
def _fill_codebooks(model: SpeechTokenizer) -> None:
    """Codebooks as k-means would begin: residuals of something spoken, a little moved."""
    spoken = torch.from_numpy(made_audio(21 * 16_000, 16_000, 1, 5).samples)[None]
    spoken = spoken + 0.05 * torch.randn(spoken.shape)
    residual: Tensor = model.encoder(spoken)[0].t()
    for layer in model.quantizer.vq.layers:
        codebook = layer._codebook
        chosen = residual[torch.randperm(len(residual))[: codebook.codebook_size]]
        codebook.embed.copy_(chosen + 0.1 * residual.std() * torch.randn(chosen.shape))
        codebook.inited.fill_(1)
        residual = residual - codebook.decode(codebook.encode(residual))
