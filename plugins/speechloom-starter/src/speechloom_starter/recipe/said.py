"""Stage ``said``: the units that the text-to-units generator makes of the spoken texts.

In synthesis the units-to-codes generator hears units that were predicted, cleaner than those of any
recording. It learns from both kinds.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from speechloom.spec import TASKS
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.encode import EncodedCorpus
from speechloom_starter.thirds import phone_thirds

Ints = npt.NDArray[np.int64]
PART = 400


def spoken_thirds(corpus: Corpus, index: int, frames: int) -> Ints:
    """Thirds of the phones of an utterance at their true times, int64 [F]."""
    phones = corpus.utterances[index].phones
    at = corpus.phone_at(index, frames)
    return phone_thirds(phones, np.bincount(at, minlength=len(phones)))


@torch.no_grad()
def best_units(network: SpeechSEC, content: Ints) -> Ints:
    """The best unit of each frame when none is known, int64 [F]; what synthesis takes."""
    frames = len(content)
    codes = torch.full((1, 1, frames), network.config.mask_id)
    task = torch.tensor([TASKS.index("synthesize")])
    condition = network.embed_condition(torch.from_numpy(content)[None], task)
    hidden = network.hidden(codes, 0, condition, torch.tensor([frames]))
    weight, bias = network.head(0)
    units: Ints = torch.nn.functional.linear(hidden[0], weight, bias).argmax(-1).numpy()
    return units


def say_corpus(network: SpeechSEC, corpus: Corpus, encoded: EncodedCorpus, folder: Path) -> None:
    """Write ``part-<n>.npy`` files of 400 utterances; parts that exist are kept.

    Recordings, whose phones are not known, keep their own units.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, len(corpus), PART)):
        path = folder / f"part-{part:04d}.npy"
        if path.exists():
            continue
        span = range(start, min(start + PART, len(corpus)))
        units = np.concatenate([_said(network, corpus, encoded, index) for index in span])
        partial = folder / f"unfinished-{part:04d}.npy"
        np.save(partial, units.astype(np.int16))
        os.replace(partial, path)


def _said(network: SpeechSEC, corpus: Corpus, encoded: EncodedCorpus, index: int) -> Ints:
    frames, offset = int(encoded.frames[index]), int(encoded.offsets[index])
    if corpus.utterances[index].is_real:
        return encoded.units[offset : offset + frames].astype(np.int64)
    return best_units(network, spoken_thirds(corpus, index, frames))


def said_units(folder: Path) -> npt.NDArray[np.int16]:
    """The units of all utterances, end to end, in the order of the corpus."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("part-*.npy"))])
