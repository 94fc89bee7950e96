from __future__ import annotations

import numpy as np
import pytest
import torch

from speechloom.errors import UsageError
from speechloom.mel import GE2E, R9Y9_WAVENET, RTVC_SYNTHESIZER, TACOTRON2, MelSpec
from speechloom.testing import Inputs, check_plugin
from speechloom.values import Audio, Features
from speechloom_wavenet._spec import GRIFFIN_LIM
from speechloom_wavenet.griffin_lim import GriffinLimVocoder, magnitudes

KINDS = [
    RTVC_SYNTHESIZER,
    GE2E,
    TACOTRON2,
    TACOTRON2.model_copy(update={"edges": "hop"}),
    R9Y9_WAVENET.model_copy(update={"edges": "zeros", "scale": "htk", "norm": "peak"}),
]


def vocoder(mel: MelSpec) -> GriffinLimVocoder:
    facts = GRIFFIN_LIM.facts.playing(f"features:{mel.kind}")  # type: ignore[union-attr]
    return GriffinLimVocoder.from_pretrained(GRIFFIN_LIM.model_copy(update={"facts": facts}))


def harmonics(rate: int, seconds: float = 0.5) -> Audio:
    at = np.arange(round(rate * seconds)) / rate
    tones = sum(np.sin(2 * np.pi * 200 * n * at + n) / n for n in range(1, 12))
    return Audio((0.1 * np.asarray(tones) * np.hanning(len(at))).astype(np.float32), rate)


def test_conformance() -> None:
    check_plugin(GRIFFIN_LIM, inputs=Inputs(long_seconds=5))


@pytest.mark.parametrize("mel", KINDS)
def test_what_is_played_has_the_mel_again(mel: MelSpec) -> None:
    features = mel.compute(harmonics(mel.rate))
    (audio,) = vocoder(mel).render(features)
    assert audio.sample_rate == mel.rate
    assert audio.length == features.values.shape[-1] * mel.hop
    back = mel.expand(mel.compute(audio).values)[0, :, 4:-4]
    given = mel.expand(features.values)[0, :, 4:-4]
    error = float((back - given).norm() / given.norm())
    assert error < 0.25, f"the mel is off by {error:.2f} of its size"


def test_magnitudes_have_the_mel() -> None:
    mel = TACOTRON2
    values = mel.compute(harmonics(mel.rate)).values[0]
    bins = magnitudes(mel, values)
    assert bool((bins >= 0).all())
    error = torch.tensor(mel.filters()) @ bins - values.exp()
    assert float(error.norm() / values.exp().norm()) < 0.03


def test_silence_stays_silent() -> None:
    features = TACOTRON2.compute(Audio(np.zeros(4000, np.float32), 22050))
    (audio,) = vocoder(TACOTRON2).render(features)
    assert np.abs(audio.samples).max() < 1e-3


def test_one_frame_and_none() -> None:
    one = Features(torch.zeros(1, 80, 1), RTVC_SYNTHESIZER.kind, RTVC_SYNTHESIZER.frame_rate)
    assert vocoder(RTVC_SYNTHESIZER).render(one)[0].length == 200
    none = Features(torch.zeros(1, 80, 0), RTVC_SYNTHESIZER.kind, RTVC_SYNTHESIZER.frame_rate)
    with pytest.raises(UsageError, match="no frames"):
        vocoder(RTVC_SYNTHESIZER).render(none)


def test_a_kind_that_it_was_not_built_for_is_refused() -> None:
    features = TACOTRON2.compute(harmonics(22050))
    with pytest.raises(UsageError, match="names of mel kinds"):
        vocoder(RTVC_SYNTHESIZER).render(features)
