from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechloom.errors import AudioError, UsageError
from speechloom.values import (
    Audio,
    Canvas,
    Codes,
    Features,
    Phones,
    Tokens,
    Voice,
    fit_length,
    frames_in,
    joined,
    pad_stack,
    samples_at,
)

RATE = Fraction(50)
SAMPLE_RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
FRAME_RATES = st.sampled_from(
    [Fraction(50), Fraction(25), Fraction(75), Fraction(44_100, 512), Fraction(25, 2)]
)


@pytest.fixture
def tone() -> Audio:
    """A second of 80 Hz at 16 kHz, half of full scale."""
    seconds = np.arange(16_000) / 16_000
    return Audio((0.5 * np.sin(2 * np.pi * 80 * seconds)).astype(np.float32), 16_000)


# Frames and samples.


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (1, 1), (319, 1), (320, 1), (321, 2), (16_000, 50)]
)
def test_frames_that_cover_samples(samples: int, frames: int) -> None:
    assert frames_in(samples, 16_000, RATE) == frames


@pytest.mark.parametrize(
    ("frame", "sample_rate", "rate", "sample"),
    [
        (0, 16_000, RATE, 0),
        (7, 16_000, RATE, 2240),
        (1, 11_025, RATE, 221),  # 220.5 rounds up
        (2, 11_025, RATE, 441),
        (3, 44_100, Fraction(44_100, 512), 1536),
    ],
)
def test_the_sample_at_which_a_frame_begins(
    frame: int, sample_rate: int, rate: Fraction, sample: int
) -> None:
    assert samples_at(frame, sample_rate, rate) == sample


@given(st.integers(1, 10**9), SAMPLE_RATES, FRAME_RATES)
def test_frames_are_the_exact_ceiling(samples: int, sample_rate: int, rate: Fraction) -> None:
    frames = frames_in(samples, sample_rate, rate)
    assert frames == math.ceil(samples * rate / sample_rate)
    assert (frames - 1) / rate < Fraction(samples, sample_rate) <= frames / rate


@given(st.integers(0, 10**7), SAMPLE_RATES, FRAME_RATES)
def test_samples_of_a_frame_lie_within_half_a_sample(
    frame: int, sample_rate: int, rate: Fraction
) -> None:
    exact = frame * sample_rate / rate
    sample = samples_at(frame, sample_rate, rate)
    assert -Fraction(1, 2) < sample - exact <= Fraction(1, 2)
    assert samples_at(frame + 1, sample_rate, rate) > sample


@given(st.integers(1, 10**6), SAMPLE_RATES, FRAME_RATES)
def test_what_frames_play_covers_what_was_encoded(
    samples: int, sample_rate: int, rate: Fraction
) -> None:
    played = samples_at(frames_in(samples, sample_rate, rate), sample_rate, rate)
    assert samples <= played < samples + sample_rate / rate + 1


@given(st.integers(1, 10**6), SAMPLE_RATES, SAMPLE_RATES, FRAME_RATES)
def test_resampling_first_does_not_change_the_frame_count_where_the_hop_is_whole(
    samples: int, sample_rate: int, other: int, rate: Fraction
) -> None:
    if (other / rate).denominator != 1:
        return
    resampled = -(-samples * other // sample_rate)
    assert frames_in(resampled, other, rate) == frames_in(samples, sample_rate, rate)


# Audio.


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((1, 8), np.int16), "divide integer samples by their full scale"),
        (np.zeros((2, 3, 4)), r"must be \[C, T\], but have shape \[2, 3, 4\]"),
        (np.zeros((0, 8)), r"must be \[C, T\]"),
        (np.zeros(()), r"must be \[C, T\]"),
        (np.zeros((1, 0)), "empty"),
        (np.zeros(0), "empty"),
        (np.zeros((16_000, 2)), r"16000 channels; .* perhaps they are \[T, C\]"),
        (np.array([0.0, np.nan, np.inf]), "2 samples that are NaN or infinite"),
        (np.array([1e300]), "1 samples that are NaN or infinite"),
        (np.array([0.0, -1e30]), r"reaches 1e\+30 times full scale.* within -1.0 and 1.0"),
    ],
)
def test_audio_refuses_what_is_no_audio(samples: Any, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        Audio(samples, 16_000)


@pytest.mark.parametrize("rate", [0, -1, 16_000.0, "16k", None])
def test_audio_refuses_rates_that_are_no_positive_integer(rate: Any) -> None:
    with pytest.raises(AudioError, match="sample_rate must be a positive integer"):
        Audio(np.zeros(4, np.float32), rate)


def test_audio_is_float32_with_channels_first() -> None:
    samples: Any = np.array([0.5, -0.5])
    audio = Audio(samples, np.int64(8_000))
    assert audio.samples.dtype == np.float32
    assert (audio.channels, audio.length, audio.seconds) == (1, 2, 2 / 8_000)
    assert type(audio.sample_rate) is int
    assert Audio(np.zeros((2, 5)).T[:, :2].T, 8_000).samples.flags.c_contiguous
    with pytest.raises(FrozenInstanceError):
        audio.sample_rate = 1  # type: ignore[misc]


def test_mono_is_the_mean_of_the_channels() -> None:
    stereo = Audio(np.array([[1.0, 0.5], [0.0, -0.5]]), 8_000)
    assert stereo.mono().samples.tolist() == [[0.5, 0.0]]
    mono = stereo.mono()
    assert mono.mono() is mono


@given(st.integers(1, 4_000), SAMPLE_RATES, SAMPLE_RATES, st.integers(1, 2))
def test_resampled_length_is_the_exact_ratio_rounded_up(
    length: int, rate: int, other: int, channels: int
) -> None:
    audio = Audio(np.full((channels, length), 0.25, np.float32), rate)
    resampled = audio.resampled(other)
    assert (resampled.sample_rate, resampled.channels) == (other, channels)
    assert resampled.length == math.ceil(Fraction(length * other, rate))


def test_resampling_keeps_a_tone(tone: Audio) -> None:
    there = tone.resampled(44_100)
    seconds = np.arange(there.length) / 44_100
    inner = slice(2_000, -2_000)
    expected = 0.5 * np.sin(2 * np.pi * 80 * seconds)
    assert np.abs(there.samples[0] - expected)[inner].max() < 1e-3
    assert tone.resampled(16_000) is tone


def test_a_slice_is_a_view_with_the_subtype(tone: Audio) -> None:
    audio = replace(tone, subtype="PCM_16")
    part = audio.slice(10, 30)
    assert part.length == 20
    assert part.subtype == "PCM_16"
    assert np.shares_memory(part.samples, audio.samples)
    with pytest.raises(AudioError, match="empty"):
        audio.slice(5, 5)


def test_the_hash_knows_rate_shape_and_samples(tone: Audio) -> None:
    same = Audio(tone.samples.copy(), 16_000, subtype="PCM_16")
    assert tone.sha256 == same.sha256
    others = [
        Audio(tone.samples, 8_000),
        Audio(tone.samples.reshape(2, -1), 16_000),
        Audio(-tone.samples, 16_000),
    ]
    assert len({tone.sha256, *(other.sha256 for other in others)}) == 4


def test_a_tensor_of_audio_is_a_copy(tone: Audio) -> None:
    tensor = tone.tensor()
    assert tensor.dtype == torch.float32
    tensor.zero_()
    assert np.abs(tone.numpy()).max() > 0.4


def test_audio_shows_its_length_and_not_its_samples(tone: Audio) -> None:
    assert repr(tone) == "Audio(1 x 1.000 s at 16000 Hz)"


@given(st.integers(1, 50), st.integers(1, 50))
def test_fit_length_keeps_the_beginning(length: int, wanted: int) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)[None]
    fitted = fit_length(samples, wanted)
    shared = min(length, wanted)
    assert fitted.shape == (1, wanted)
    assert (fitted[:, :shared] == samples[:, :shared]).all()
    assert not fitted[:, shared:].any()


def test_audio_is_joined_end_to_end() -> None:
    a = Audio(np.array([0.1, 0.2], np.float32), 8_000)
    b = Audio(np.array([0.3], np.float32), 8_000)
    assert joined(iter([a, b])).samples.tolist() == [
        [pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.3)]
    ]
    with pytest.raises(UsageError, match="nothing to join"):
        joined([])
    with pytest.raises(UsageError, match="agree in rate and channels"):
        joined([a, Audio(b.samples, 16_000)])
    with pytest.raises(UsageError, match="agree in rate and channels"):
        joined([a, Audio(np.zeros((2, 4), np.float32), 8_000)])


# Phones and voices.


def test_words_know_their_phones() -> None:
    phones = Phones(("_", "a", "b", "_", "c"), "x", ("ab", "c"), ((1, 3), (4, 5)), ((0, 2), (3, 4)))
    assert len(phones) == 5
    assert [phones.word_at(i) for i in range(5)] == [None, 0, 0, None, 1]


@pytest.mark.parametrize(
    ("words", "spans", "sources", "message"),
    [
        (("a",), (), (), "1 words but 0 word spans"),
        (("a",), ((0, 1),), ((0, 1), (1, 2)), "1 words but 2 source spans"),
        (("a",), ((0, 4),), (), "end by 3"),
        (("a",), ((1, 1),), (), "word span"),
        (("a", "b"), ((0, 2), (1, 3)), (), r"\[1, 3\) must follow 2"),
        (("a", "b"), ((2, 3), (0, 1)), (), "must follow 3"),
        (("a",), ((-1, 1),), (), "must follow 0"),
    ],
)
def test_spans_that_cannot_be_are_refused(
    words: Any, spans: Any, sources: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Phones(("a", "b", "c"), "x", words, spans, sources)


@pytest.mark.parametrize("vector", [[], [[1.0]], [float("nan")], 1.0])
def test_a_voice_is_a_finite_vector(vector: Any) -> None:
    with pytest.raises(UsageError, match="finite and"):
        Voice(np.array(vector), "v")


def test_a_voice_is_float32() -> None:
    assert Voice(np.array([1.0, 2.0]), "v").vector.dtype == np.float32


# Tokens, codes, features.


def test_tokens_have_full_lengths_unless_told() -> None:
    tokens = Tokens(torch.tensor([[1, 2, 3], [4, 0, 0]]), "v", 5, RATE)
    assert tokens.lengths.tolist() == [3, 3]
    assert tokens.kind == "tokens:v"
    short = replace(tokens, lengths=torch.tensor([3, 1]))
    assert short.item(1).tolist() == [4]


def test_codes_know_their_codebooks() -> None:
    codes = Codes(torch.zeros(2, 3, 4, dtype=torch.int64), "c", 8, RATE, torch.tensor([4, 2]))
    assert codes.codebooks == 3
    assert codes.kind == "codes:c"
    assert codes.item(1).shape == (3, 2)


@pytest.mark.parametrize(
    ("ids", "lengths", "message"),
    [
        (torch.zeros(2, 3), None, "must be int64"),
        (torch.zeros(3, dtype=torch.int64), None, r"must be int64 \[B, F\]"),
        (torch.zeros(2, 3, dtype=torch.int32), None, "torch.int32"),
        (torch.tensor([[0, 5]]), None, "must lie in 0 to 4, but go from 0 to 5"),
        (torch.tensor([[-1, 0]]), None, "go from -1 to 0"),
        (torch.tensor([[0, 1]]), torch.tensor([3]), "lengths must lie in 0 to 2"),
        (torch.tensor([[0, 1]]), torch.tensor([-1]), "lengths must lie in 0 to 2"),
        (torch.tensor([[0, 1]]), torch.tensor([1, 1]), r"lengths must be int64 \[1\]"),
        (torch.tensor([[0, 1]]), torch.tensor([1.0]), "lengths must be int64"),
    ],
)
def test_malformed_tokens_are_refused(ids: Any, lengths: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tokens(ids, "v", 5, RATE, lengths)


def test_scales_are_one_per_frame() -> None:
    ids = torch.zeros(2, 3, 4, dtype=torch.int64)
    assert Codes(ids, "c", 8, RATE, scales=torch.ones(2, 4)).scales is not None
    for wrong in (torch.ones(2), torch.ones(2, 3), torch.ones(2, 4, dtype=torch.int64)):
        with pytest.raises(UsageError, match=r"codes scales must be float32 \[2, 4\]"):
            Codes(ids, "c", 8, RATE, scales=wrong)


def test_codes_need_three_dimensions() -> None:
    with pytest.raises(UsageError, match=r"codes must be int64 \[B, K, F\]"):
        Codes(torch.zeros(2, 3, dtype=torch.int64), "c", 8, RATE)


def test_no_items_and_no_frames_are_values_too() -> None:
    assert Tokens(torch.zeros(0, 0, dtype=torch.int64), "v", 5, RATE).lengths.tolist() == []
    assert Tokens(torch.zeros(1, 0, dtype=torch.int64), "v", 5, RATE).item(0).tolist() == []


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        (torch.zeros(1, 2, 3, dtype=torch.float64), None, r"float32 \[B, D, F\]"),
        (torch.zeros(2, 3), None, r"float32 \[B, D, F\]"),
        (torch.full((1, 2, 3), float("nan")), None, "finite"),
        (torch.zeros(1, 2, 3), torch.tensor([4]), "lengths must lie in 0 to 3"),
        (torch.zeros(1, 2, 3), torch.tensor([1, 2]), r"lengths must be int64 \[1\]"),
    ],
)
def test_malformed_features_are_refused(values: Any, lengths: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Features(values, "mel", RATE, lengths)


def test_features_name_their_kind() -> None:
    features = Features(torch.zeros(2, 3, 4), "mel", RATE)
    assert features.kind == "features:mel"
    assert features.lengths.tolist() == [4, 4]


# The canvas.


def canvas(**changes: Any) -> Canvas:
    given: dict[str, Any] = {
        "task": "edit",
        "ids": torch.zeros(2, 3, 4, dtype=torch.int64),
        "known": torch.zeros(2, 3, 4, dtype=torch.bool),
        "lengths": torch.tensor([4, 2]),
        "gives": "codes:c",
        "codebook_size": 8,
        "frame_rate": RATE,
        "seeds": torch.tensor([1, 2]),
        "items": torch.tensor([0, 0]),
        "content": torch.tensor([[0, 1, 1, -1], [2, 2, -1, -1]]),
        "content_kind": "phones:x",
        "segments": torch.zeros(2, 4, dtype=torch.int64),
        "voices": torch.zeros(2, 5),
    }
    return Canvas(**{**given, **changes})


def test_a_whole_canvas_is_accepted() -> None:
    assert canvas().batch == 2
    assert canvas(content=None, content_kind=None, segments=None, voices=None).batch == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": torch.full((2, 3, 4), 8)}, "canvas must lie in 0 to 7"),
        ({"ids": torch.zeros(2, 4, dtype=torch.int64)}, r"canvas must be int64 \[B, K, F\]"),
        ({"known": torch.zeros(2, 3, 4)}, "known must be bool"),
        ({"known": torch.zeros(2, 3, 5, dtype=torch.bool)}, r"known must be bool \[2, 3, 4\]"),
        ({"lengths": torch.tensor([4, 5])}, "lengths must lie in 0 to 4"),
        ({"seeds": torch.tensor([1])}, r"seeds must be int64 \[2\]"),
        ({"seeds": torch.tensor([1.0, 2.0])}, "seeds must be int64"),
        ({"items": torch.tensor([1])}, r"items must be int64 \[2\]"),
        ({"content": torch.zeros(2, 3, dtype=torch.int64)}, r"content must be .*\[2, 4\]"),
        ({"content": torch.zeros(2, 4)}, r"content must be int64"),
        ({"content": torch.full((2, 4), -2)}, "content ids must be -1"),
        ({"segments": torch.zeros(1, 4, dtype=torch.int64)}, r"segments must be .*\[2, 4\]"),
        ({"content_kind": None}, "content and content_kind belong together"),
        ({"content": None}, "content and content_kind belong together"),
        ({"voices": torch.zeros(1, 5)}, r"voices must be .*\[2, D\]"),
        ({"voices": torch.zeros(2)}, r"voices must be .*\[2, D\]"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
    ],
)
def test_a_canvas_that_disagrees_with_itself_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        canvas(**changes)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_pad_stack_pads_at_the_end(lengths: list[int]) -> None:
    stacked = pad_stack([torch.arange(1, n + 1) for n in lengths], value=-1)
    assert stacked.shape == (len(lengths), max(lengths))
    for row, n in zip(stacked, lengths, strict=True):
        assert row[:n].tolist() == list(range(1, n + 1))
        assert (row[n:] == -1).all()
