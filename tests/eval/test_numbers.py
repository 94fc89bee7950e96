"""The mathematics under the metrics, with answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from speechloom.errors import UsageError
from speechloom.eval.confidence import bootstrap_interval, weighted_mean
from speechloom.eval.pitch import track_pitch
from speechloom.eval.spectrum import cosine_series, frame, mel_filters, power_spectra
from speechloom.eval.transcript import spoken_words
from speechloom.eval.warping import distances, warping_path


def test_frames_are_centred_and_cover_everything():
    frames = frame(np.arange(1.0, 322.0), 5, 160)
    assert frames.shape == (3, 5)
    np.testing.assert_array_equal(frames[0], [0, 0, 1, 2, 3])
    np.testing.assert_array_equal(frames[2], [319, 320, 321, 0, 0])


def test_a_sine_peaks_in_its_bin(sine):
    power = power_spectra(sine(1000.0))
    assert (power[5:-5].argmax(axis=1) == 32).all()  # 1000 Hz / 31.25 Hz


def test_every_mel_filter_catches_something_and_neighbours_overlap():
    filters = mel_filters(40, sample_rate=16_000, fft_size=512)
    assert filters.shape == (40, 257)
    assert (filters.sum(axis=1) > 0).all()
    assert (filters >= 0).all()
    assert (np.diff(filters.argmax(axis=1)) >= 1).all()


def test_cosine_series_gives_the_amplitudes_of_cosines():
    band = np.arange(40) + 0.5
    shape = 7 + 0.5 * np.cos(np.pi * 3 * band / 40) - 0.25 * np.cos(np.pi * 24 * band / 40)
    expected = np.zeros(24)
    expected[2], expected[23] = 0.5, -0.25
    np.testing.assert_allclose(cosine_series(shape[None], 24)[0], expected, atol=1e-12)


def test_warping_finds_a_repetition():
    one = np.array([[0.0], [1.0], [2.0], [3.0]])
    other = np.array([[0.0], [1.0], [1.0], [1.0], [2.0], [3.0]])
    cost = distances(one, other)
    rows, columns = warping_path(cost)
    assert rows.tolist() == [0, 1, 1, 1, 2, 3]
    assert columns.tolist() == [0, 1, 2, 3, 4, 5]
    assert cost[rows, columns].sum() == 0


def test_the_path_is_the_cheapest_by_brute_force():
    rng = np.random.default_rng(3)
    for shape in [(1, 1), (1, 4), (5, 1), (4, 3), (4, 5)]:
        cost = rng.random(shape)

        def cheapest(row: int, column: int, cost: np.ndarray = cost) -> float:
            if (row, column) == (0, 0):
                return float(cost[0, 0])
            before = [(row - 1, column - 1), (row - 1, column), (row, column - 1)]
            return float(cost[row, column]) + min(
                cheapest(r, c) for r, c in before if r >= 0 and c >= 0
            )

        rows, columns = warping_path(cost)
        assert cost[rows, columns].sum() == pytest.approx(cheapest(shape[0] - 1, shape[1] - 1))


@pytest.mark.parametrize("hertz", [70.0, 110.0, 123.456, 220.0, 333.3, 440.0, 480.0])
def test_the_pitch_of_a_sine_is_exact(sine, hertz):
    pitch = track_pitch(sine(hertz))
    assert pitch.hertz.shape == (100,)
    inner = pitch.hertz[4:-4]
    assert (inner > 0).all()
    cents = 1200 * np.log2(inner / hertz)
    assert np.abs(cents).max() < 3


def test_the_pitch_of_harmonics_is_the_fundamental_even_when_it_is_missing(sine):
    samples = sine(300.0) + sine(450.0) + sine(600.0)
    inner = track_pitch(samples).hertz[4:-4]
    assert np.abs(1200 * np.log2(inner / 150.0)).max() < 5


def test_noise_silence_and_quiet_are_not_voiced(sine):
    noise = np.random.default_rng(0).standard_normal(16_000) * 0.1
    assert track_pitch(noise).voiced.mean() < 0.02
    assert not track_pitch(np.zeros(8000)).voiced.any()
    loud_then_quiet = np.concatenate([sine(200.0), sine(200.0, amplitude=0.002)])
    voiced = track_pitch(loud_then_quiet).voiced
    assert voiced[4:96].all()
    assert not voiced[104:].any()


def test_long_recordings_are_tracked_in_blocks_without_seams(sine):
    hertz = track_pitch(sine(200.0, seconds=25.0)).hertz
    assert len(hertz) == 2500
    np.testing.assert_allclose(hertz[4:-4], 200.0, rtol=1e-3)


def test_the_interval_of_coin_tosses_is_that_of_the_binomial():
    tosses = np.tile([0.0, 1.0], 200)  # standard error of the mean: 0.5 / sqrt(400) = 0.025
    low, high = bootstrap_interval(tosses, np.ones(400))
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)
    narrow = bootstrap_interval(tosses, np.ones(400), confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_is_reproducible_and_weights_count():
    values, weights = [0.0, 1.0, 0.5], [1, 8, 1]
    assert bootstrap_interval(values, weights) == bootstrap_interval(values, weights)
    assert bootstrap_interval(values, weights, seed=1) != bootstrap_interval(
        values, weights, seed=2, resamples=7
    )
    assert weighted_mean(values, weights) == pytest.approx(0.85)
    assert bootstrap_interval([2.0, 2.0], [1, 5]) == (2.0, 2.0)


def test_one_value_has_no_interval():
    assert bootstrap_interval([1.0], [1.0]) is None
    with pytest.raises(UsageError, match="between 0 and 1"):
        bootstrap_interval([1.0, 2.0], [1.0, 1.0], confidence=1.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well, HELLO -- there!", "well hello there"),
        ("It\u2019s caf\u00e9 o'clock", "it's cafe o'clock"),
        ("0 13 20 42", "zero thirteen twenty forty two"),
        ("100 1,905", "one hundred one thousand nine hundred five"),
        ("2000003", "two million three"),
        ("3.14", "three point one four"),
        ("007", "zero zero seven"),
        ("Room 4b", "room four b"),
        ("?!", ""),
    ],
)
def test_words_are_spoken_words(text, words):
    assert " ".join(spoken_words(text)) == words
