"""The pairs of the SpeechSEC paper, and others at other rates: whole pipelines, text to audio."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from speechloom import RoutingError
from speechloom.compatibility import SPEECHSEC_PAIRS, Composition
from speechloom.pipeline import Pipeline
from speechloom.testing.inputs import made_audio

PLUGINS = (
    "speechloom_dac",
    "speechloom_hubert",
    "speechloom_speechtokenizer",
    "speechloom_starter",
)
missing = [name for name in PLUGINS if importlib.util.find_spec(name) is None]
if missing:
    pytest.skip(f"the pairs need {', '.join(missing)}", allow_module_level=True)

from speechloom_speechsec.pairs import untrained  # noqa: E402  # after the check of what it needs

UNITS, HUBERT = "speechtokenizer-hubert-avg-units", "hubert-base-ls960-l9-km500"
OTHER_RATES = (
    Composition("SpeechTokenizer + DAC at 75 Hz", UNITS, "dac-24khz"),
    Composition("HuBERT + DAC at 86.13 Hz", HUBERT, "dac-44khz"),
)
SAMPLE_RATES = {"dac-24khz": 24_000, "dac-44khz": 44_100}


def _pipeline(pair: Composition) -> Pipeline:
    return untrained(
        pair, frontend="starter-english", aligner="starter-aligner", voice="starter-voice"
    )


@pytest.fixture(scope="module", params=[*SPEECHSEC_PAIRS, *OTHER_RATES], ids=lambda pair: pair.name)
def case(request: pytest.FixtureRequest) -> tuple[Composition, Pipeline]:
    return request.param, _pipeline(request.param)


def test_all_four_tasks_end_in_audio(case: tuple[Composition, Pipeline]) -> None:
    pair, pipeline = case
    rate = SAMPLE_RATES.get(pair.codec, 16_000)
    recording = made_audio(16_000)

    spoken = pipeline.synthesize("A word.", voice=recording, seed=1).audio
    assert spoken.sample_rate == rate
    assert spoken.length > 0

    converted = pipeline.convert(recording, voice=made_audio(16_000, number=3), seed=1).audio
    assert (converted.sample_rate, converted.length) == (rate, rate)

    continued = pipeline.continue_(recording, seconds=0.3, seed=1).audio
    assert continued.length == 16_000 + 4_800
    assert np.array_equal(continued.samples[:, :16_000], recording.samples)

    edited = pipeline.edit(recording, spans=[(0.4, 0.6, "word")], seed=1)
    (region,) = edited.regions
    assert 0 < region.start <= 6_400 < region.end  # with a little on either side
    before = edited.audio.samples[:, : region.start]
    assert np.array_equal(before, recording.samples[:, : region.start])


def test_the_same_seed_says_the_same(case: tuple[Composition, Pipeline]) -> None:
    _, pipeline = case
    one, same, other = (
        pipeline.continue_(made_audio(9_000), seconds=0.2, seed=seed).audio for seed in (1, 1, 2)
    )
    assert np.array_equal(one.samples, same.samples)
    assert not np.array_equal(one.samples, other.samples)


@pytest.mark.parametrize("pair", OTHER_RATES, ids=lambda pair: pair.name)
def test_other_frame_rates_are_bridged_by_name(pair: Composition) -> None:
    (bridge,) = _pipeline(pair).plan("convert").bridges
    assert "50" in bridge
    assert {"dac-24khz": "75", "dac-44khz": "86.13"}[pair.codec] in bridge


def test_what_is_left_out_is_missed_by_the_router() -> None:
    pipeline = untrained(SPEECHSEC_PAIRS[0])
    assert pipeline.continue_(made_audio(8_000), seconds=0.2, seed=1).audio.length == 11_200
    with pytest.raises(RoutingError):
        pipeline.synthesize("A word.")
