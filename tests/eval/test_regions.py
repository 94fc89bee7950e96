from __future__ import annotations

import numpy as np
import pytest

from speechloom.errors import UsageError
from speechloom.eval import METRICS, Sample
from speechloom.speech import Region
from speechloom.values import Audio

RATE = 16_000


def spliced(babble, generated, *, start: float = 2.5) -> Sample:
    """A recording in which a stretch was replaced by other samples."""
    samples = babble(8.0).samples.copy()
    first = round(start * RATE)
    last = first + generated.shape[-1]
    samples[:, first:last] = generated
    return Sample(Audio(samples, RATE), regions=(Region(first, last, RATE),))


def score(name: str, sample: Sample) -> float:
    return METRICS[name].function(sample).value


@pytest.mark.parametrize("name", ["seam_flux", "seam_level"])
def test_an_untouched_stretch_has_ordinary_seams_and_a_burst_has_not(babble, name):
    own = babble(8.0).samples[:, round(2.5 * RATE) : round(5 * RATE)]
    assert score(name, spliced(babble, own)) <= 1.2
    burst = np.random.default_rng(0).uniform(-1, 1, own.shape).astype(np.float32)
    assert score(name, spliced(babble, burst)) > 1.5


def test_seams_at_the_ends_of_the_recording_do_not_count(babble):
    audio = babble(4.0)
    whole = Sample(audio, regions=(Region(0, audio.samples.shape[1], RATE),))
    with pytest.raises(UsageError, match="no seam"):
        score("seam_flux", whole)


def test_silence_is_the_share_of_quiet_frames(babble):
    quiet = np.zeros((1, 3 * RATE), np.float32)
    assert score("silence", spliced(babble, quiet)) == pytest.approx(1, abs=0.02)
    half = quiet.copy()
    half[:, : half.shape[1] // 2] = np.random.default_rng(0).standard_normal(half.shape[1] // 2) / 9
    assert score("silence", spliced(babble, half)) == pytest.approx(0.5, abs=0.02)


def test_a_held_vowel_and_a_loop_have_no_variety(babble):
    own = babble(8.0).samples[:, 2 * RATE : 5 * RATE]
    assert 0.5 < score("variety", spliced(babble, own, start=2)) < 2
    time = np.arange(3 * RATE) / RATE
    vowel = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    held = (0.1 * vowel)[None].astype(np.float32)
    assert score("variety", spliced(babble, held, start=2)) < 0.1
    loop = np.tile(own[:, : RATE // 2], (1, 6))
    assert score("variety", spliced(babble, loop, start=2)) < 0.35


def test_short_parts_and_unknown_regions_have_no_value(babble):
    audio = babble(4.0)
    with pytest.raises(UsageError, match="2 s"):
        score("variety", Sample(audio, regions=(Region(0, RATE, RATE),)))
    with pytest.raises(UsageError, match="nothing"):
        score("silence", Sample(audio, regions=(Region(100, 100, RATE),)))
    reason = METRICS["seam_flux"].reason_against(Sample(audio))
    assert reason is not None
    assert "generated" in reason
