"""A small encoder of Whisper's shape as content for X-E-Speech, from recordings with known phones.

For machines that cannot fetch a Whisper checkpoint, and for languages that none knows. The encoder
learns which phone each frame of 20 ms belongs to, first from windows of 6 s, which are cheap, then
from those of 30 s that Whisper sees. Two things keep the speaker out of its content, so that a
conversion has to take the speaker from the reference: noise on it, which what is said has to
outweigh, and a classifier of speakers that it is to leave undecided (arXiv:1510.02192). ::

    python content_encoder.py train.jsonl validation.jsonl whisper-phones

Every line of the manifests needs ``speaker`` and ``alignment``. The folder that it writes is read
by ``content: whisper-phones`` in a recipe, and by `transformers.WhisperModel`; its decoder is
random. The command prints how many frames of the validation data are right, and how much of the
speaker is left in the content.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechloom.errors import UsageError
from speechloom.training.manifest import read_manifest
from speechloom.values import Audio

RATE = 16_000
FRAME = RATE // 50
IGNORED = -100
SPEEDS = (0.84, 0.89, 0.94, 1.0, 1.0, 1.06, 1.12, 1.19)
"""A recording is played this much faster, its pitch and its formants with it."""
NOISE = 0.5
"""Of the content, whose deviation is about 1, before it is judged."""
POOLED = 15
"""Frames over which the classifier of speakers averages the content."""


@dataclass(frozen=True)
class Sentence:
    """One recording at 16 kHz, the phones with their ends in seconds, the number of its speaker."""

    samples: NDArray[np.float32]
    ends: tuple[tuple[int, float], ...]
    speaker: int

    def phones(self, speed: float, frames: int) -> NDArray[np.int64]:
        """The phone at each frame, int64 [frames]; what lies behind the last one is ignored."""
        labels = np.full(frames, IGNORED)
        first = 0
        for phone, end in self.ends:
            last = min(frames, math.ceil(end / speed * RATE / FRAME))
            labels[first:last] = phone
            first = last
        return labels

    def played(self, speed: float) -> NDArray[np.float32]:
        """The samples, this much faster."""
        if speed == 1:
            return self.samples
        faster = Audio(self.samples[None], round(RATE * speed)).resampled(RATE)
        return np.asarray(faster.samples[0], np.float32)


@dataclass(frozen=True)
class Window:
    """What the encoder sees at once: samples [320 F], phones and speakers int64 [F]."""

    samples: NDArray[np.float32]
    phones: NDArray[np.int64]
    speakers: NDArray[np.int64]


def sentences(manifest: Path, phones: Sequence[str], speakers: Sequence[str]) -> list[Sentence]:
    """Read all sentences of a manifest."""
    found = []
    for one in read_manifest(manifest):
        if one.alignment is None or one.speaker not in speakers:
            raise UsageError(
                f"{manifest}: {one.id} needs an alignment, and a speaker of the training data: "
                f"{', '.join(speakers)}"
            )
        unknown = {phone for phone, _ in one.alignment} - set(phones)
        if unknown:
            raise UsageError(f"{manifest}: {one.id} has phones that were not learnt: {unknown}")
        samples = one.load().mono().resampled(RATE).samples[0]
        ends = tuple((phones.index(phone), end) for phone, end in one.alignment)
        found.append(Sentence(samples, ends, speakers.index(one.speaker)))
    return found


def window(chosen: Sequence[Sentence], seconds: int, rng: np.random.Generator | None) -> Window:
    """Sentences one after the other, then silence; played at random speeds where there is `rng`."""
    samples = np.zeros(seconds * RATE, np.float32)
    phones = np.full(len(samples) // FRAME, IGNORED)
    speakers = np.full(len(samples) // FRAME, IGNORED)
    first = 0
    for one in chosen:
        speed = float(rng.choice(SPEEDS)) if rng else 1.0
        gain = 10 ** rng.uniform(-0.6, 0.1) if rng else 1.0
        played = one.played(speed)
        frames = len(played) // FRAME
        if first + frames > len(phones):
            break
        samples[first * FRAME : (first + frames) * FRAME] = played[: frames * FRAME] * gain
        phones[first : first + frames] = one.phones(speed, frames)
        speakers[first : first + frames] = one.speaker
        first += frames + (int(rng.integers(25)) if rng else 0)
    return Window(samples, phones, speakers)


def drawn(found: Sequence[Sentence], seconds: int, rng: np.random.Generator) -> Window:
    """Random sentences up to a random part of the window; one alone, as in use, more often."""
    count = 1 if rng.random() < 0.25 else int(rng.integers(2, max(3, seconds // 2)))
    return window([found[int(at)] for at in rng.integers(len(found), size=count)], seconds, rng)


class Content:
    """An encoder of Whisper's shape that sees windows of a given length.

    Args:
        width: of the content.
        layers: of the encoder.
        seconds: of a window.
    """

    def __init__(self, width: int, layers: int, seconds: int) -> None:
        self.seconds = seconds
        self.mels = WhisperFeatureExtractor(feature_size=80, chunk_length=seconds)
        self.model = WhisperModel(
            WhisperConfig(
                d_model=width,
                encoder_layers=layers,
                encoder_attention_heads=max(1, width // 48),
                encoder_ffn_dim=4 * width,
                max_source_positions=seconds * RATE // FRAME,
                decoder_layers=1,
                decoder_attention_heads=1,
                decoder_ffn_dim=8,
                vocab_size=16,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                decoder_start_token_id=1,
            )
        )

    def lengthened(self, seconds: int) -> Content:
        """The same weights for longer windows; positions are sinusoids, and are not learnt."""
        config = self.model.config
        longer = Content(config.d_model, config.encoder_layers, seconds)
        own = {
            name: value
            for name, value in self.model.encoder.state_dict().items()
            if name != "embed_positions.weight"
        }
        longer.model.encoder.load_state_dict(own, strict=False)
        return longer

    def encode(self, windows: Sequence[Window]) -> Tensor:
        """The content of windows, float32 [B, F, D]."""
        mel = self.mels(
            [one.samples for one in windows], sampling_rate=RATE, return_tensors="pt"
        ).input_features
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden: Tensor = self.model.encoder(mel).last_hidden_state
        return hidden.float()

    @torch.no_grad()
    def heard(self, found: Sequence[Sentence]) -> tuple[Tensor, Tensor, Tensor]:
        """Content [N, D], phones [N] and speakers [N] of sentences, each alone in its window."""
        hidden, phones, speakers = [], [], []
        for one in found:
            seen = window([one], self.seconds, None)
            known = torch.from_numpy(seen.phones != IGNORED)
            hidden.append(self.encode([seen])[0][known])
            phones.append(torch.from_numpy(seen.phones)[known])
            speakers.append(torch.from_numpy(seen.speakers)[known])
        return torch.cat(hidden), torch.cat(phones), torch.cat(speakers)


@dataclass(frozen=True)
class Judges:
    """What reads phones in the content, and what looks for the speaker in it."""

    phones: nn.Module
    speakers: nn.Module

    @classmethod
    def of(cls, width: int, phones: int, speakers: int) -> Judges:
        """Linear for the phones, one hidden layer for the speakers."""
        looks = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, speakers))
        return cls(nn.Linear(width, phones), looks)

    def losses(self, hidden: Tensor, windows: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
        """Cross entropies, nats: of phones, of speakers, and of speakers to even odds.

        The second teaches the classifier of speakers alone, the third the encoder alone.
        """
        phones = torch.from_numpy(np.stack([one.phones for one in windows]))
        speakers = torch.from_numpy(np.stack([one.speakers for one in windows]))
        noisy = hidden + NOISE * torch.randn_like(hidden)
        pooled = functional.avg_pool1d(
            hidden.transpose(1, 2), POOLED, stride=1, padding=POOLED // 2
        ).transpose(1, 2)
        fixed = {name: value.detach() for name, value in self.speakers.named_parameters()}
        odds = torch.func.functional_call(self.speakers, fixed, pooled).log_softmax(2)
        return (
            _cross_entropy(self.phones(noisy), phones),
            _cross_entropy(self.speakers(pooled.detach()), speakers),
            -odds[speakers != IGNORED].mean(),
        )


def train(
    content: Content,
    judges: Judges,
    found: Sequence[Sentence],
    *,
    steps: int,
    windows: int,
    learning_rate: float,
    adversary: float,
    rng: np.random.Generator,
) -> None:
    """Train by AdamW; the learning rate rises over 50 steps and falls along a cosine.

    Args:
        content: is changed.
        judges: are changed.
        found: to learn from.
        steps: how many.
        windows: of a step.
        learning_rate: the highest.
        adversary: weight of leaving the classifier of speakers undecided.
        rng: for what a step sees.
    """
    encoder = content.model.encoder
    optimizer = torch.optim.AdamW(
        [
            {"params": [one for one in encoder.parameters() if one.requires_grad]},
            {"params": judges.phones.parameters()},
            {"params": judges.speakers.parameters(), "lr": 3 * learning_rate},
        ],
        lr=learning_rate,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1, (n + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * n / steps))
    )
    for step in range(steps):
        seen = [drawn(found, content.seconds, rng) for _ in range(windows)]
        phones, speakers, odds = judges.losses(content.encode(seen), seen)
        optimizer.zero_grad()
        (phones + speakers + adversary * odds).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"{content.seconds} s, step {step}: phones {phones.item():.3f} nats, "
                f"speakers {speakers.item():.3f} nats",
                flush=True,
            )


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def explained(hidden: Tensor, phones: Tensor, speakers: Tensor) -> tuple[float, float]:
    """Shares of the content's variance: between phones, and between speakers of the same phone."""
    whole = hidden - hidden.mean(dim=0)
    of_phone = _means(whole, phones)
    of_both = _means(whole, phones * (int(speakers.max()) + 1) + speakers)
    total = whole.square().sum()
    between = (of_both - of_phone).square().sum()
    return float(of_phone.square().sum() / total), float(between / total)


def _means(values: Tensor, groups: Tensor) -> Tensor:
    """For each row the mean of its group."""
    _, at = groups.unique(return_inverse=True)
    sums = torch.zeros(int(at.max()) + 1, values.shape[1]).index_add_(0, at, values)
    return (sums / at.bincount()[:, None])[at]


def main() -> None:
    """Train, save, and say how good it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, help="manifest with speaker and alignment")
    parser.add_argument("validation", type=Path, help="another of the same phones and speakers")
    parser.add_argument("folder", type=Path, help="to be written")
    parser.add_argument("--width", type=int, default=96, help="of the content")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--steps", type=int, default=700, help="with short windows")
    parser.add_argument("--long-steps", type=int, default=60, help="with those of 30 s")
    parser.add_argument("--adversary", type=float, default=0.2, help="weight; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    torch.manual_seed(given.seed)
    rng = np.random.default_rng(given.seed)
    examples = read_manifest(given.train)
    phones = sorted({phone for one in examples for phone, _ in one.alignment or ()})
    speakers = sorted({one.speaker for one in examples if one.speaker})
    learnt = sentences(given.train, phones, speakers)
    judges = Judges.of(given.width, len(phones), len(speakers))
    short = Content(given.width, given.layers, seconds=6)
    train(
        short,
        judges,
        learnt,
        steps=given.steps,
        windows=8,
        learning_rate=1.5e-3,
        adversary=given.adversary,
        rng=rng,
    )
    content = short.lengthened(30)
    train(
        content,
        judges,
        learnt,
        steps=given.long_steps,
        windows=2,
        learning_rate=3e-4,
        adversary=given.adversary,
        rng=rng,
    )
    content.model.train(False)
    content.model.save_pretrained(given.folder)
    content.mels.save_pretrained(given.folder)

    hidden, labels, who = content.heard(sentences(given.validation, phones, speakers))
    right = (judges.phones(hidden).argmax(1) == labels).float().mean().item()
    of_phones, of_speakers = explained(hidden, labels, who)
    print(f"frames whose phone is right: {right:.1%} of {len(labels)} ({len(phones)} phones)")
    print(f"variance between phones {of_phones:.1%}, between speakers of one {of_speakers:.1%}")


if __name__ == "__main__":
    main()
