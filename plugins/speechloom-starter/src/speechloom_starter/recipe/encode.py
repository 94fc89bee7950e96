"""Stages ``units`` and ``encode``: the corpus as content units, codes and voice vectors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from speechloom.training.precision import mixed_precision
from speechloom_starter.codec_model import CodecModel
from speechloom_starter.content_model import ContentModel
from speechloom_starter.quantizer import k_means
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.voice_model import VoiceEncoder

PART = 400


@torch.no_grad()
def learn_units(
    content: ContentModel, corpus: Corpus, count: int, utterances: int, seed: int
) -> Tensor:
    """Cluster the content features of random utterances: codebook float32 [count, D]."""
    rng = np.random.default_rng([seed, 0])
    chosen = rng.choice(len(corpus), min(utterances, len(corpus)), replace=False)
    features = []
    for index in chosen:
        with mixed_precision():
            out = content(torch.from_numpy(corpus.samples(int(index)))[None])
        features.append(out.features[0])
    return k_means(torch.cat(features), count, torch.Generator().manual_seed(seed), rounds=40)


@dataclass(frozen=True)
class Networks:
    """What turns audio into units, codes and voice vectors."""

    content: ContentModel
    codebook: Tensor
    codec: CodecModel
    voice: VoiceEncoder


def encode_corpus(networks: Networks, corpus: Corpus, folder: Path) -> None:
    """Write ``part-<n>.npz`` files of 400 utterances; parts that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, len(corpus), PART)):
        path = folder / f"part-{part:04d}.npz"
        if path.exists():
            continue
        rows = [_encode(networks, corpus.samples(i)) for i in _span(start, len(corpus))]
        partial = folder / f"unfinished-{part:04d}.npz"
        np.savez(
            partial,
            frames=np.array([len(units) for units, _, _ in rows]),
            units=np.concatenate([units for units, _, _ in rows]),
            codes=np.concatenate([codes for _, codes, _ in rows]),
            voices=np.stack([voice for _, _, voice in rows]),
        )
        os.replace(partial, path)


def _span(start: int, end: int) -> range:
    return range(start, min(end, start + PART))


@torch.no_grad()
def _encode(
    networks: Networks, samples: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    audio = torch.from_numpy(samples)[None]
    # Some ids near a border between two codes differ from those in float32; it is 5 times faster.
    with mixed_precision():
        units = networks.content.units(audio, networks.codebook)[0]
        codes = networks.codec.encode(audio)[0].T
        voice = networks.voice(audio)[0]
    return units.numpy().astype(np.int16), codes.numpy().astype(np.int16), voice.numpy()


class EncodedCorpus:
    """The encoded utterances, in the order of the corpus."""

    def __init__(self, folder: Path) -> None:
        parts = [np.load(path) for path in sorted(folder.glob("part-*.npz"))]
        self.frames = np.concatenate([part["frames"] for part in parts])
        self.units = np.concatenate([part["units"] for part in parts])
        self.codes = np.concatenate([part["codes"] for part in parts])
        self.voices = np.concatenate([part["voices"] for part in parts])
        self.offsets = np.concatenate(([0], np.cumsum(self.frames)[:-1]))
