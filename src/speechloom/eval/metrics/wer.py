"""Word error rate by a small offline recogniser."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from speechloom.errors import UsageError
from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.packages import require
from speechloom.eval.sample import Sample, mono_16k
from speechloom.eval.spectrum import SAMPLE_RATE
from speechloom.eval.transcript import spoken_words
from speechloom.values import Audio

__all__ = ["METRICS", "recognise", "word_errors"]

_EXTRA = "eval"
_PURPOSE = "word error rate"


def word_errors(expected: str, heard: str) -> tuple[int, int]:
    """Count word errors.

    Args:
        expected: what should be said.
        heard: what was recognised.

    Returns:
        Substitutions + deletions + insertions, and the number of expected words; both texts are
        brought to lower-case words without punctuation, with numbers spelled out.

    Raises:
        UsageError: no words are expected.
    """
    reference, hypothesis = spoken_words(expected), spoken_words(heard)
    if not reference:
        raise UsageError(f"the transcript {expected!r} has no words to count errors in")
    jiwer = require("jiwer", extra=_EXTRA, purpose=_PURPOSE)
    counts = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return counts.substitutions + counts.deletions + counts.insertions, len(reference)


def recognise(audio: Audio) -> str:
    """What the recogniser hears in English speech.

    PocketSphinx with the model of its wheel. What is heard does not depend on what was
    recognised before.
    """
    samples = np.clip(mono_16k(audio), -1, 1)
    decoder = _decoder()
    decoder.reinit_feat()  # it would remember the spectrum of the last recording
    decoder.start_utt()
    decoder.process_raw((samples * 32767).astype("<i2").tobytes(), full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return "" if hypothesis is None else str(hypothesis.hypstr)


@lru_cache(maxsize=1)
def _decoder() -> Any:
    pocketsphinx = require("pocketsphinx", extra=_EXTRA, purpose=_PURPOSE)
    return pocketsphinx.Decoder(samprate=float(SAMPLE_RATE), cmn="batch", loglevel="FATAL")


def _rate(audio: Audio, transcript: str) -> Score:
    errors, words = word_errors(transcript, recognise(audio))
    return Score(errors / words, weight=words)


def wer(sample: Sample) -> Score:
    """Word error rate of the result: errors / expected words; lower is better.

    Weighted by the number of words, so that the mean is the rate over all of them. The recogniser
    makes errors on perfect speech too: compare with `wer_reference`, never with zero.
    """
    assert sample.transcript is not None  # what the metric says that it needs
    return _rate(sample.spoken or sample.audio, sample.transcript)


def wer_reference(sample: Sample) -> Score:
    """Word error rate of the reference by the same recogniser: what `wer` can hope to reach."""
    assert sample.transcript is not None
    assert sample.reference is not None
    return _rate(sample.reference, sample.transcript)


_PACKAGES = ("jiwer", "pocketsphinx")

METRICS = (
    Metric("wer", wer, "", "lower", ("transcript",), _PACKAGES, _EXTRA),
    Metric(
        "wer_reference", wer_reference, "", "lower", ("transcript", "reference"), _PACKAGES, _EXTRA
    ),
)
"""Word error of the result, and that of the reference beside it."""
