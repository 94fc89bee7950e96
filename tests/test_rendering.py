"""Rendering: windows equal the whole, cuts are exact, seams and joins do not click."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.filling import Filled
from speechloom.layout import Copy, Keep, Layout, Make, Sheet
from speechloom.rendering import Player, cut_points, regions_of, render
from speechloom.speech import Region
from speechloom.testing.fake_specs import CODEC, FEATURE_GENERATOR
from speechloom.testing.fakes import (
    FakeCodec,
    FakeFeatureGenerator,
    FakeGenerator,
    FakeVocoder,
)
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio, Codes, joined

torch = pytest.importorskip("torch")

F = Fraction


def codes(frames: int, seed: int = 0) -> Filled:
    draw = np.random.default_rng(seed)
    return Filled(torch.from_numpy(draw.integers(40, 215, (8, frames))))


def player() -> Player:
    return Player(FakeGenerator(), FakeCodec())


def made(seconds: Fraction, count: int = 1) -> Layout:
    pieces = tuple(Make(i, F(0), seconds) for i in range(count))
    return Layout(pieces, tuple(Sheet(i, seconds) for i in range(count)))


# Windows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 49, 50, 51, 99, 100, 173])
def test_windows_joined_are_the_whole_decoded_at_once(frames: int) -> None:
    filled = codes(frames)
    windows = list(player().windows(filled))
    (whole,) = FakeCodec().decode(Codes(filled.result[None], "fake-codes", 256, F(50)))
    assert np.array_equal(np.concatenate(windows, axis=1), whole.samples)
    assert len(windows) == -(-frames // 50)


def test_a_codec_of_unbounded_context_is_decoded_at_once() -> None:
    facts = type(CODEC.facts)(**CODEC.facts.model_dump() | {"context_frames": None})
    codec = FakeCodec(CODEC.model_copy(update={"facts": facts}))
    assert len(list(Player(FakeGenerator(), codec).windows(codes(173)))) == 1


def test_features_and_audio_are_one_window() -> None:
    values = torch.rand(8, 120) - 0.5
    vocoded = Player(FakeFeatureGenerator(), vocoder=FakeVocoder())
    (window,) = vocoded.windows(Filled(values))
    assert window.shape == (1, 120 * 320)
    audio = made_audio(500)
    facts = type(FEATURE_GENERATOR.facts)(
        **FEATURE_GENERATOR.facts.model_dump() | {"gives": "audio", "sample_rate": 22_050}
    )
    speaking = FakeFeatureGenerator(FEATURE_GENERATOR.model_copy(update={"facts": facts}))
    direct = Player(speaking)
    assert direct.sample_rate == 22_050
    assert list(direct.windows(Filled(audio)))[0] is audio.samples


# Cuts -------------------------------------------------------------------------------------


def test_cut_points_by_hand() -> None:
    source = made_audio(11_025, 11_025)
    layout = Layout(
        (Keep(F(0), F(1, 50)), Make(0, F(1), F(6, 5)), Keep(F(1, 4), None)), (Sheet(0, F(2)),)
    )
    # 220.5 samples round to the even 220; 0.2 s are 2205; 0.25 s are 2756.25.
    assert cut_points(layout, source, 11_025) == [(0, 220), (220, 2425), (2425, 2425 + 8269)]
    assert regions_of(layout, source, 11_025) == (Region(220, 2425, 11_025),)


def test_neighbouring_made_stretches_are_one_region() -> None:
    layout = Layout(
        (Make(0, F(0), F(1)), Make(1, F(0), F(1)), Keep(F(0), F(1)), Make(2, F(0), F(1))),
        tuple(Sheet(i, F(1)) for i in range(3)),
    )
    source = made_audio(16_000)
    regions = regions_of(layout, source, 16_000)
    assert [(r.start, r.end) for r in regions] == [(0, 32_000), (48_000, 64_000)]
    assert regions[1].start_seconds == 3.0
    assert regions[1].end_seconds == 4.0


# Made alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [F(1, 50), F(1), F(1234, 1000), F(5, 2)])
def test_the_made_is_as_long_as_the_layout_says(seconds: Fraction) -> None:
    frames = -(-seconds * 50 // 1)
    audio = joined(render(made(seconds), iter([codes(frames)]), player(), None))
    assert audio.length == round(seconds * 16_000)


def test_only_the_edges_of_a_sheet_are_faded() -> None:
    filled = codes(60)
    (raw,) = FakeCodec().decode(Codes(filled.result[None], "fake-codes", 256, F(50)))
    audio = joined(render(made(F(6, 5)), iter([filled]), player(), None))
    fade = 80  # 5 ms
    assert np.array_equal(audio.samples[:, fade:-fade], raw.samples[:, fade:-fade])
    assert abs(audio.samples[0, 0]) <= abs(raw.samples[0, 0]) / 40
    assert abs(audio.samples[0, -1]) <= abs(raw.samples[0, -1]) / 40


def biggest_step(samples: Any, at: int) -> float:
    return float(np.abs(samples[:, at] - samples[:, at - 1]).max())


def test_sheets_join_without_a_click() -> None:
    loud = Filled(torch.full((8, 50), 250))
    low = Filled(torch.full((8, 50), 5))
    audio = joined(render(made(F(1), 4), iter([loud, low, loud, low]), player(), None))
    for join in (16_000, 32_000, 48_000):
        assert biggest_step(audio.samples, join) < 0.05
    assert np.abs(np.diff(audio.samples)).max() < 0.05


def test_samples_stay_within_full_scale() -> None:
    class Loud(FakeCodec):
        def decode(self, codes: Codes) -> list[Audio]:
            return [Audio(a.samples * 50, a.sample_rate) for a in super().decode(codes)]

    loud = Player(FakeGenerator(), Loud())
    audio = joined(render(made(F(1)), iter([codes(50)]), loud, None))
    assert np.abs(audio.samples).max() == 1.0


# Between the caller's samples -------------------------------------------------------------


def splice(source: Audio, start: Fraction, end: Fraction, seconds: Fraction) -> Layout:
    """One second made again on a sheet with half a second of context."""
    half = F(1, 2)
    known = (Copy(F(0), start - half, half),)
    return Layout(
        (Keep(F(0), start), Make(0, half, half + seconds), Keep(end, None)),
        (Sheet(0, seconds + 1, known),),
    )


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_kept_samples_are_the_callers(rate: int, channels: int) -> None:
    source = made_audio(3 * rate + 17, rate, channels)
    layout = splice(source, F(1), F(3, 2), F(1))
    audio = joined(render(layout, iter([codes(100)]), player(), source))
    (region,) = regions_of(layout, source, rate)
    assert audio.sample_rate == rate
    assert np.array_equal(audio.samples[:, : region.start], source.samples[:, :rate])
    rest = source.samples[:, round(F(3, 2) * rate) :]
    assert np.array_equal(audio.samples[:, region.end :], rest)
    assert audio.length == region.end + rest.shape[1]


def test_seams_do_not_click() -> None:
    source = Audio(np.full((1, 48_000), 0.5, np.float32), 16_000)
    layout = splice(source, F(1), F(2), F(1))
    audio = joined(render(layout, iter([Filled(torch.full((8, 100), 10))]), player(), source))
    assert audio.samples[0, 17_000] < -0.4
    assert np.abs(np.diff(audio.samples)).max() < 0.02


def test_a_continuation_closes_the_step_from_the_last_sample() -> None:
    source = Audio(np.full((1, 16_000), 0.5, np.float32), 16_000)
    layout = Layout(
        (Keep(F(0), None), Make(0, F(1, 2), F(3, 2)), Make(1, F(1, 2), F(3, 2))),
        (Sheet(0, F(3, 2)), Sheet(1, F(3, 2))),
    )
    fills = [Filled(torch.full((8, 75), 20)), Filled(torch.full((8, 75), 230))]
    audio = joined(render(layout, iter(fills), player(), source))
    assert audio.length == 48_000
    assert np.abs(np.diff(audio.samples)).max() < 0.05
    assert abs(audio.samples[0, -1]) < 0.02


def test_the_channel_that_speaks_is_the_one_that_goes_on() -> None:
    left = made_audio(48_000)
    source = Audio(np.concatenate([left.samples, 0 * left.samples]), 16_000)
    layout = splice(source, F(1), F(3, 2), F(1))
    audio = joined(render(layout, iter([codes(100)]), player(), source))
    (region,) = regions_of(layout, source, 16_000)
    fresh = audio.samples[:, region.start : region.end]
    assert np.abs(fresh[0]).max() > 0.05
    assert np.abs(fresh[1]).max() == 0


def test_a_silent_recording_can_be_spliced() -> None:
    source = Audio(np.zeros((2, 48_000), np.float32), 16_000)
    layout = splice(source, F(1), F(3, 2), F(1))
    audio = joined(render(layout, iter([codes(100)]), player(), source))
    assert np.isfinite(audio.samples).all()


def test_very_short_stretches() -> None:
    source = made_audio(16_000)
    for samples in (0, 1, 2, 3):
        layout = splice(source, F(1, 2), F(1, 2), F(samples, 16_000))
        audio = joined(render(layout, iter([codes(60)]), player(), source))
        assert audio.length == 16_000 + samples


@given(
    rate=st.sampled_from([8_000, 11_025, 44_100]),
    cuts=st.lists(st.integers(1, 900), min_size=2, max_size=2, unique=True).map(sorted),
    seconds=st.fractions(0, 1, max_denominator=300),
)
@settings(deadline=None, max_examples=25)
def test_any_splice_keeps_the_rest(rate: int, cuts: list[int], seconds: Fraction) -> None:
    source = made_audio(rate, rate, 2)
    start, end = F(cuts[0], 901), F(cuts[1], 901)
    layout = Layout((Keep(F(0), start), Make(0, F(0), seconds), Keep(end, None)), (Sheet(0, F(1)),))
    audio = joined(render(layout, iter([codes(50)]), player(), source))
    first, second = round(start * rate), round(end * rate)
    kept = source.length - second
    assert np.array_equal(audio.samples[:, :first], source.samples[:, :first])
    assert np.array_equal(audio.samples[:, -kept:], source.samples[:, second:])
    assert audio.length == first + round(seconds * rate) + kept


def test_sheets_are_taken_when_they_are_needed() -> None:
    taken: list[int] = []

    def fills() -> Any:
        for i in range(3):
            taken.append(i)
            yield codes(100, i)

    chunks = render(made(F(2), 3), fills(), player(), None)
    next(chunks)
    assert taken == [0]
    next(chunks)
    assert taken == [0]
    next(chunks)
    assert taken == [0, 1]
