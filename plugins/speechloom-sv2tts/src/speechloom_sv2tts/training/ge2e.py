"""The ``ge2e`` learner: the generalized end-to-end loss (Wan et al. 2018, arXiv:1710.10467).

A batch holds several recordings of each of several speakers. Each embedding shall lie nearer to the
centre of its own speaker's other recordings than to the centres of all others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from speechloom.errors import AudioError, UsageError
from speechloom.mel import GE2E
from speechloom.spec import ComponentSpec
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner
from speechloom_sv2tts._spec import ge2e_spec
from speechloom_sv2tts.config import Ge2eConfig
from speechloom_sv2tts.ge2e import WINDOW_FRAMES, Ge2eNetwork
from speechloom_sv2tts.speech_only import speech_of

__all__ = ["Ge2eLearner", "Ge2eSettings", "ge2e_loss", "similarities"]


class Ge2eSettings(BaseModel):
    """Settings of the learner.

    Attributes:
        sizes: of the network.
        recordings: of each speaker in a batch, at least 2; a batch of the recipe's ``max_items``
            holds ``max_items / recordings`` speakers where the data allow it.
        voice: name of the vector space of the exported encoder; its id when not given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sizes: Ge2eConfig = Ge2eConfig()
    recordings: int = Field(default=5, ge=2)
    voice: str | None = None


class _Trained(nn.Module):
    """The encoder, and the scale of its similarities."""

    def __init__(self, config: Ge2eConfig) -> None:
        super().__init__()
        self.encoder = Ge2eNetwork(config)
        self.weight = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(-5.0))


class Ge2eLearner(Learner):
    """Trains a `Ge2eNetwork`."""

    settings_type = Ge2eSettings
    network: _Trained
    watch = {
        "loss": "the logarithm of the number of speakers at first, below 0.3 in the end",
        "right": "share of recordings nearest to their own speaker, towards 1",
    }

    def __init__(self, settings: Ge2eSettings, *, seed: int) -> None:
        self.settings = settings
        self.network = _Trained(settings.sizes)

    def cache_key(self) -> str:
        """The mel and how pauses are cut out."""
        return json.dumps(["ge2e-1", GE2E.kind, "energy"])

    def prepare(self, example: Example) -> Item:
        """Mel float32 [F, bands] of the speech, and a number for the speaker's name.

        Raises:
            UsageError: the example names no speaker.
            AudioError: it holds too little speech.
        """
        if example.speaker is None:
            raise UsageError("an example needs a speaker; give it one")
        audio = example.load().mono().resampled(GE2E.rate)
        speech = speech_of(audio.samples[0], "energy")
        if len(speech) < WINDOW_FRAMES * GE2E.hop // 2:
            raise AudioError(
                f"{example.audio} holds {len(speech) / GE2E.rate:.2f} s of speech; at least "
                f"{WINDOW_FRAMES * GE2E.hop / 2 / GE2E.rate:g} s are needed"
            )
        mel = GE2E.of_samples(torch.from_numpy(speech)[None])[0].T.contiguous()
        return {"mel": mel, "speaker": torch.tensor(_number(example.speaker))}

    def length(self, item: Item) -> int:
        """Frames of a window, which is what it takes of every recording."""
        return WINDOW_FRAMES

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Windows at random places; several of a recording where a speaker has too few."""
        by_speaker: dict[int, list[Tensor]] = {}
        for item in items:
            by_speaker.setdefault(int(item["speaker"]), []).append(item["mel"])
        count = self.settings.recordings
        speakers = []
        for mels in by_speaker.values():
            chosen = [mels[i % len(mels)] for i in rng.permutation(max(count, len(mels)))[:count]]
            speakers.append(torch.stack([_window(mel, rng) for mel in chosen]))
        return {"mel": torch.stack(speakers)}

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar, the softmax form; a batch of one speaker has nothing to tell apart."""
        mel = batch["mel"]
        speakers, recordings = mel.shape[:2]
        embedded = self.network.encoder(mel.flatten(0, 1)).view(speakers, recordings, -1)
        scores = similarities(embedded) * self.network.weight.clamp(min=1e-6) + self.network.bias
        loss = ge2e_loss(scores)
        own = torch.arange(speakers, device=mel.device)[:, None]
        right = (scores.argmax(-1) == own).float().mean()
        return loss, {"right": right, "speakers": float(speakers)}

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """One speaker encoder."""
        state = self.network.encoder.state_dict()
        save_file(
            {name: value.contiguous() for name, value in state.items()},
            target.folder / "ge2e.safetensors",
        )
        spec = ge2e_spec(
            target.checkpoint,
            id=target.id,
            voice=self.settings.voice,
            config=self.settings.sizes,
            weights_license=target.weights_license,
        )
        return [spec.model_copy(update={"install": target.install})]


def similarities(embedded: Tensor) -> Tensor:
    """Cosine of each embedding to each speaker's centre; to its own without itself.

    Args:
        embedded: float [S, R, D] of length 1, R recordings of S speakers, R at least 2.

    Returns:
        float [S, R, S].
    """
    speakers, recordings, _ = embedded.shape
    centres = functional.normalize(embedded.mean(1), dim=-1)
    others = embedded.sum(1, keepdim=True) - embedded
    own = (embedded * functional.normalize(others / (recordings - 1), dim=-1)).sum(-1)
    every = torch.einsum("srd,td->srt", embedded, centres)
    mine = torch.eye(speakers, dtype=torch.bool, device=embedded.device)[:, None]
    return torch.where(mine, own[..., None], every)


def ge2e_loss(scores: Tensor) -> Tensor:
    """The mean over all recordings of the cross entropy of their own speaker.

    Args:
        scores: float [S, R, S].
    """
    speakers, recordings, _ = scores.shape
    own = torch.arange(speakers, device=scores.device).repeat_interleave(recordings)
    return functional.cross_entropy(scores.flatten(0, 1), own)


def _window(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """A window of a recording at a random place; a short one is repeated to fill it."""
    repeated = mel.repeat(-(-WINDOW_FRAMES // len(mel)), 1)
    start = int(rng.integers(0, len(repeated) - WINDOW_FRAMES + 1))
    return repeated[start : start + WINDOW_FRAMES]


def _number(speaker: str) -> int:
    """A number that stands for a name, the same in every process."""
    import hashlib

    digest: Any = hashlib.sha256(speaker.encode()).digest()
    return int.from_bytes(digest[:7], "big")
