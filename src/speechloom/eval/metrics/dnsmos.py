"""Predicted opinion scores, without a reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.packages import require
from speechloom.eval.sample import Sample, mono_16k
from speechloom.eval.spectrum import SAMPLE_RATE

__all__ = ["METRICS", "dnsmos"]

_EXTRA = "eval-mos"
_MODULE = "speechmos.dnsmos"


def dnsmos(sample: Sample, *, scale: str = "ovrl_mos") -> Score:
    """DNSMOS of the result, 1 to 5; higher is better.

    Args:
        sample: only its audio is looked at.
        scale: ``ovrl_mos``, ``sig_mos`` or ``bak_mos`` (ITU-T P.835: overall, speech,
            background) or ``p808_mos``.

    Source: Reddy et al. 2022, arXiv:2110.01763, by the package speechmos. It was trained to judge
    noise suppression: it hears noise and gaps, and not whether the words are right.
    """

    def predict() -> Mapping[str, float]:
        module = require(_MODULE, extra=_EXTRA, purpose="DNSMOS")
        scores: Mapping[str, float] = module.run(
            np.clip(mono_16k(sample.audio), -1, 1), SAMPLE_RATE
        )
        return scores

    return Score(float(sample.once("dnsmos", predict)[scale]))


def _metric(name: str, scale: str, by_default: bool) -> Metric:
    function = partial(dnsmos, scale=scale)
    return Metric(name, function, "MOS", "higher", (), (_MODULE,), _EXTRA, by_default)


METRICS = (
    _metric("dnsmos", "ovrl_mos", True),
    _metric("dnsmos_speech", "sig_mos", False),
    _metric("dnsmos_background", "bak_mos", False),
    _metric("dnsmos_p808", "p808_mos", False),
)
"""The four opinion scores that DNSMOS predicts."""
