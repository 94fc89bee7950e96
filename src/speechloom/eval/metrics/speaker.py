"""Speaker similarity by a GE2E speaker encoder."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.packages import require
from speechloom.eval.sample import Sample, mono_16k
from speechloom.eval.spectrum import SAMPLE_RATE
from speechloom.values import Audio

__all__ = ["METRICS", "speaker_similarity"]

_EXTRA = "eval-speaker"


@lru_cache(maxsize=1)
def _encoder() -> Any:
    import torch

    resemblyzer = require("resemblyzer", extra=_EXTRA, purpose="speaker similarity")
    # The encoder is built with random weights before its own are read: the caller's random
    # state must not notice.
    with torch.random.fork_rng(devices=[]):
        return resemblyzer.VoiceEncoder("cpu", verbose=False)


def _embed(audio: Audio) -> NDArray[np.float32]:
    """Speaker vector of unit length, float32 [256]."""
    resemblyzer = require("resemblyzer", extra=_EXTRA, purpose="speaker similarity")
    samples = mono_16k(audio)
    if not samples.any():
        raise UsageError("the recording is silent, so that it has no speaker")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of librosa about short recordings
        voiced = resemblyzer.preprocess_wav(samples, SAMPLE_RATE)
    if not len(voiced):
        raise UsageError("no voice is found in the recording, so that it has no speaker")
    vector: NDArray[np.float32] = _encoder().embed_utterance(voiced)
    return vector


def speaker_similarity(sample: Sample) -> Score:
    """Cosine of the speaker vectors of result and voice, -1 to 1; higher is better.

    Two recordings of one speaker reach about 0.75 to 0.95, of two speakers about 0.5 to 0.75.

    Source: Wan et al. 2018, GE2E, arXiv:1710.10467, as trained and packaged by resemblyzer.
    """
    assert sample.voice is not None
    return Score(float(_embed(sample.audio) @ _embed(sample.voice)))


METRICS = (
    Metric(
        "speaker_similarity",
        speaker_similarity,
        "",
        "higher",
        ("voice",),
        ("resemblyzer",),
        _EXTRA,
    ),
)
"""Similarity to the wanted voice."""
