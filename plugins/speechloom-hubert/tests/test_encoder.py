"""Frames, layers, windows and bad input of `SpeechEncoder`; parity is in tests/parity."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechloom.errors import AudioError, UsageError
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio, frames_in
from speechloom_hubert.architecture import Architecture
from speechloom_hubert.encoder import SpeechEncoder
from speechloom_hubert.loading import random_encoder

LENGTHS = (1, 319, 320, 321, 399, 400, 401, 640, 719, 720, 721, 4000, 16_000, 16_001)


@pytest.fixture(scope="module", params=["hubert", "wavlm"])
def encoder(request: pytest.FixtureRequest) -> SpeechEncoder:
    return random_encoder(request.param)


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_gets_its_frames(encoder: SpeechEncoder, length: int) -> None:
    features = encoder.features([made_audio(length)], 1)
    assert features.values.shape == (1, 16, frames_in(length, 16_000, Fraction(50)))


@pytest.mark.parametrize("length", [320, 400, 719, 16_000, 16_079])
def test_frames_that_the_convolutions_do_not_give_repeat_the_last(
    encoder: SpeechEncoder, length: int
) -> None:
    values = encoder.features([made_audio(length)], 2).values[0]
    given = max(1, (length - 400) // 320 + 1)
    assert 1 <= values.shape[1] - given + (length <= 320) <= 2
    for frame in range(given, values.shape[1]):
        assert torch.equal(values[:, frame], values[:, given - 1])


def test_a_batch_is_the_same_bits_as_each_alone(encoder: SpeechEncoder) -> None:
    audio = [made_audio(n, number=i) for i, n in enumerate((9_000, 321, 16_000, 1))]
    together = encoder.features(audio, 2)
    assert together.lengths.tolist() == [29, 2, 50, 1]
    for index, one in enumerate(audio):
        alone = encoder.features([one], 2).values[0]
        frames = alone.shape[-1]
        assert torch.equal(together.values[index, :, :frames], alone)
        assert not together.values[index, :, frames:].any()


def test_layers_differ_and_name_their_features(encoder: SpeechEncoder) -> None:
    audio = [made_audio(8_000)]
    layers = [encoder.features(audio, layer) for layer in range(encoder.layers + 1)]
    name = f"random-{encoder.architecture.family}"
    assert [one.kind for one in layers] == [f"features:{name}-l{i}" for i in range(3)]
    assert not torch.allclose(layers[0].values, layers[1].values)
    assert not torch.allclose(layers[1].values, layers[2].values)
    with pytest.raises(UsageError, match=f"{name} has hidden layers 0 to 2, but layer 3"):
        encoder.features(audio, 3)


def test_other_rates_and_channels_are_taken(encoder: SpeechEncoder) -> None:
    stereo = made_audio(44_100, 44_100, channels=2)
    features = encoder.features([stereo], 1)
    assert features.lengths.tolist() == [50]
    by_hand = encoder.features([stereo.mono().resampled(16_000)], 1)
    assert torch.equal(features.values, by_hand.values)


def test_bad_audio_never_gets_there(encoder: SpeechEncoder) -> None:
    with pytest.raises(AudioError, match="NaN"):
        encoder.features([Audio(np.full((1, 500), np.nan, np.float32), 16_000)], 1)
    with pytest.raises(AudioError, match="empty"):
        encoder.features([Audio(np.zeros((1, 0), np.float32), 16_000)], 1)
    with pytest.raises(UsageError, match="no audio to encode"):
        encoder.features([], 1)


# Windows ----------------------------------------------------------------------------------


def test_what_fits_a_window_is_not_cut() -> None:
    audio = [made_audio(32_000)]
    whole = random_encoder(window_seconds=None).features(audio, 2)
    assert torch.equal(random_encoder(window_seconds=2).features(audio, 2).values, whole.values)


@pytest.mark.parametrize("length", [48_000, 48_081, 49_999, 96_001])
def test_windows_keep_every_frame_once(length: int) -> None:
    cut = random_encoder(window_seconds=1, context_seconds=0.5)
    assert cut.features([made_audio(length)], 1).lengths.tolist() == [-(-length // 320)]
    parts = [len(part) for part in cut.parts(made_audio(length), 1)]
    assert len(parts) > 1
    assert max(parts) <= 52


def test_windows_of_what_sees_little_are_the_whole() -> None:
    # Layer 0 of a layer-normed network has convolutions only: 400 samples, then 8 frames.
    whole = random_encoder(late_norm=True, window_seconds=None)
    cut = random_encoder(late_norm=True, window_seconds=1, context_seconds=0.2)
    audio = [made_audio(70_000)]
    expected, got = whole.features(audio, 0).values, cut.features(audio, 0).values
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.allclose(cut.features(audio, 1).values, whole.features(audio, 1).values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_seconds": 0}, "window_seconds must be at least 1, or None"),
        ({"window_seconds": float("nan")}, "window_seconds must be at least 1"),
        ({"context_seconds": -1}, "context_seconds must be 0 or more, but is -1"),
        ({"family": "wav2vec2"}, "the family must be one of hubert, wavlm, but is 'wav2vec2'"),
    ],
)
def test_senseless_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        random_encoder(**options)


# Architecture -----------------------------------------------------------------------------


@pytest.mark.parametrize("hop", [320, 640, 160])
def test_tiny_networks_have_the_hop_that_was_asked_for(hop: int) -> None:
    encoder = random_encoder(hop=hop)
    assert encoder.frame_rate == Fraction(16_000, hop)
    assert encoder.features([made_audio(16_000)], 1).lengths.tolist() == [16_000 // hop]


def test_reach_and_hop_are_those_of_the_paper() -> None:
    facts = random_encoder().architecture
    assert (facts.hop, facts.reach) == (320, 400)
    assert [facts.original_frames(n) for n in (399, 400, 719, 720)] == [0, 1, 1, 2]


@pytest.mark.parametrize("length", [1, 10, 99, 100, 399, 400, 401, 719, 720, 12_345])
def test_frame_counts_are_those_of_the_convolutions(
    length: int, original: Callable[..., Any]
) -> None:
    model = original()
    facts = Architecture.of({**model.config.to_dict(), "model_type": "hubert"}, "it")
    if length >= facts.reach:
        with torch.inference_mode():
            given = model.feature_extractor(torch.zeros(1, length)).shape[-1]
        assert facts.original_frames(length) == given
    else:
        assert facts.original_frames(length) == 0


def test_loaded_and_given_layers_are_the_same(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("wavlm", feat_extract_norm="layer", do_stable_layer_norm=True)
    audio = [made_audio(9_000)]
    whole, cut = (SpeechEncoder.from_checkpoint(folder, layers=n) for n in (None, 2))
    assert (whole.layers, cut.layers) == (3, 2)
    assert torch.equal(whole.features(audio, 2).values, cut.features(audio, 2).values)
