"""The codec: conformance, pieces that equal the whole, chunks and scales, levels, odd input."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from speechloom.errors import AudioError, UsageError
from speechloom.spec import ComponentSpec
from speechloom.testing import check_plugin
from speechloom.testing.canvases import codes_for
from speechloom.testing.inputs import Inputs, made_audio
from speechloom.values import Audio, Codes, frames_in, joined
from speechloom_encodec import codec as codec_module
from speechloom_encodec._spec import CONFIG_24KHZ, CONFIG_48KHZ, ENCODEC_24KHZ, ENCODEC_48KHZ
from speechloom_encodec.codec import EncodecCodec
from speechloom_encodec.networks import _overlapped, _parts, _reach

SPECS = (ENCODEC_24KHZ, ENCODEC_48KHZ)
ids = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)


@pytest.fixture(scope="module")
def mono() -> EncodecCodec:
    return EncodecCodec.from_random(ENCODEC_24KHZ)


@pytest.fixture(scope="module")
def stereo() -> EncodecCodec:
    return EncodecCodec.from_random(ENCODEC_48KHZ)


@pytest.mark.parametrize(
    "name", [ENCODEC_24KHZ.id, pytest.param(ENCODEC_48KHZ.id, marks=pytest.mark.slow)]
)
def test_it_passes_the_conformance_kit(name: str) -> None:
    results = check_plugin(f"codec/{name}", inputs=Inputs(long_seconds=10.0))
    skipped = [result.name for result in results if result.status == "skipped"]
    assert skipped == ["plays_windows_like_the_whole"]  # no bounded context is claimed
    assert all(result.status in ("passed", "skipped") for result in results)


def test_the_published_facts() -> None:
    assert ENCODEC_24KHZ.facts.frame_rate == 75
    assert ENCODEC_48KHZ.facts.frame_rate == Fraction(150 * 48_000, 47_520) == Fraction(5000, 33)
    assert (ENCODEC_24KHZ.facts.codebooks, ENCODEC_48KHZ.facts.codebooks) == (8, 4)
    assert ENCODEC_48KHZ.facts.channels == 2


def test_bandwidths_use_as_many_codebooks_as_in_the_paper() -> None:
    mono = [CONFIG_24KHZ.codebooks_at(one) for one in (1.5, 3.0, 6.0, 12.0, 24.0)]
    stereo = [CONFIG_48KHZ.codebooks_at(one) for one in (3.0, 6.0, 12.0, 24.0)]
    assert mono == [2, 4, 8, 16, 32]
    assert stereo == [2, 4, 8, 16]
    with pytest.raises(UsageError, match="one of 3, 6, 12, 24 kbit/s, but is 1.5"):
        CONFIG_48KHZ.codebooks_at(1.5)


# 24 kHz: a stream -------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 8, 9, 21, 46])
@pytest.mark.parametrize("length", [1, 319, 2560, 2561, 45 * 320 + 1, 47 * 320 - 1])
def test_pieces_equal_the_whole(
    mono: EncodecCodec, frames: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = made_audio(length, 24_000)
    with torch.inference_mode():
        latents = mono._model.encoder(audio.tensor()[None])
        whole = mono._model.quantizer.encode(latents, 6.0)[:, 0]
        played = mono._model.decoder(mono._model.quantizer.decode(whole[:, None]))[0].numpy()
    monkeypatch.setattr(codec_module, "WINDOW_SECONDS", frames / 75)
    monkeypatch.setattr(codec_module, "PIECE_SECONDS", frames / 75)
    codes = mono.encode([audio])
    assert torch.equal(codes.ids[0], whole)
    np.testing.assert_allclose(mono.decode(codes)[0].samples, played, rtol=0, atol=1e-5)


def test_the_stated_reach_is_the_true_one(mono: EncodecCodec) -> None:
    """A NaN spreads to all that depends on it; the LSTM is left out, which hears everything."""
    before, _, _ = _parts(mono._model.encoder.layers)
    _, _, after = _parts(mono._model.decoder.layers)
    samples = torch.zeros(1, 1, 320 * 10)
    at = 320 * 5
    samples[..., at] = torch.nan
    features = samples
    with torch.inference_mode():
        for layer in before:
            features = layer(features)
    touched = features[0].isnan().any(0).nonzero().flatten()
    # The last frame that hears the sample begins at most the reach after it.
    assert int(touched.min()) == 5
    assert int(touched.max()) * 320 <= at + _reach(before) < (int(touched.max()) + 1) * 320
    latents = torch.zeros(1, features.shape[1], 20)
    latents[..., 7] = torch.nan
    with torch.inference_mode():
        for layer in after:
            latents = layer(latents)
    played = latents[0].isnan().any(0).nonzero().flatten()
    assert int(played.min()) == 7 * 320
    assert int(played.max()) // 320 == 7 + _reach(after)


@ids
@pytest.mark.parametrize("seconds", [0.01, 0.3, 5.0])
def test_streamed_audio_is_the_decoded_audio(spec: ComponentSpec, seconds: float) -> None:
    codec = EncodecCodec.from_random(spec)
    codes = codes_for(spec.facts, [400])
    chunks = list(codec.stream(codes, seconds=seconds))
    assert len(chunks) >= (2 if seconds < 5 else 1)
    (whole,) = codec.decode(codes)
    np.testing.assert_allclose(joined(chunks).samples, whole.samples, rtol=0, atol=1e-5)


def test_streams_take_one_item(mono: EncodecCodec) -> None:
    with pytest.raises(UsageError, match="one item"):
        list(mono.stream(codes_for(ENCODEC_24KHZ.facts, [3, 4])))


def test_a_caller_keeps_gradients_while_streaming(mono: EncodecCodec) -> None:
    for _ in mono.stream(codes_for(ENCODEC_24KHZ.facts, [200]), seconds=0.5):
        assert not torch.is_inference_mode_enabled()


# 48 kHz: chunks ---------------------------------------------------------------------------

AROUND_CHUNKS = (
    1,
    319,
    320,
    47_200,
    47_519,
    47_520,
    47_521,
    47_999,
    48_000,
    48_001,
    95_040,
    95_100,
)


def chunks_by_hand(codec: EncodecCodec, audio: Audio) -> list[tuple[torch.Tensor, float]]:
    """Codes [K, n] and scale of each chunk, written out from the paper's description."""
    chunks = []
    with torch.inference_mode():
        for start in range(0, audio.length, 47_520):
            piece = torch.from_numpy(audio.samples[None, :, start : start + 48_000])
            scale = float(piece.mean(1).square().mean().sqrt() + 1e-8)
            latents = codec._model.encoder(piece / scale)
            chunks.append((codec._model.quantizer.encode(latents, 6.0)[:, 0], scale))
    return chunks


@pytest.mark.parametrize("length", AROUND_CHUNKS)
def test_chunks_lie_in_step_and_are_filled_up(stereo: EncodecCodec, length: int) -> None:
    audio = made_audio(length, 48_000, channels=2)
    codes = stereo.encode([audio])
    assert codes.ids.shape[-1] == frames_in(length, 48_000, Fraction(5000, 33))
    assert codes.scales is not None
    chunks = chunks_by_hand(stereo, audio)
    left = codes.ids.shape[-1]
    for number, (found, scale) in enumerate(chunks):
        first, count = 150 * number, found.shape[-1]
        assert torch.equal(codes.ids[0, :, first : first + count], found)
        filled = codes.scales[0, first + count : first + 150]
        assert len(filled) <= 2 or number == len(chunks) - 1
        assert not filled.any()
        torch.testing.assert_close(
            codes.scales[0, first : first + count], torch.full((count,), scale), rtol=1e-5, atol=0
        )
        left -= min(left, 150)
    assert left == 0
    (back,) = stereo.decode(codes)
    assert 0 <= back.length - length <= 317


def test_loudness_comes_back_by_the_scales(stereo: EncodecCodec) -> None:
    audio = made_audio(60_000, 48_000, channels=2)
    loud = Audio(audio.samples * 4, 48_000)
    quiet_codes, loud_codes = stereo.encode([audio]), stereo.encode([loud])
    assert torch.equal(quiet_codes.ids, loud_codes.ids)
    quiet, back = (stereo.decode(codes)[0].samples for codes in (quiet_codes, loud_codes))
    np.testing.assert_allclose(back, quiet * 4, rtol=1e-4, atol=1e-5)


def test_codes_without_scales_are_played_at_the_level_of_speech(stereo: EncodecCodec) -> None:
    codes = stereo.encode([made_audio(48_000, 48_000, channels=2)])
    assert codes.scales is not None
    tenth = replace(codes, scales=torch.where(codes.scales > 0, 0.1, 0.0))
    plain = replace(codes, scales=None, ids=codes.ids[..., :140], lengths=torch.tensor([140]))
    cut = replace(tenth, ids=tenth.ids[..., :140], scales=tenth.scales[:, :140],
                  lengths=torch.tensor([140]))  # fmt: skip
    np.testing.assert_allclose(
        stereo.decode(plain)[0].samples, stereo.decode(cut)[0].samples, rtol=0, atol=1e-6
    )


def test_batches_of_scaled_codes_are_the_singles(stereo: EncodecCodec) -> None:
    audio = [made_audio(n, 48_000, channels=2, number=n) for n in (50_000, 400)]
    batch = stereo.encode(audio)
    assert batch.scales is not None
    assert batch.scales.shape == (2, batch.ids.shape[-1])
    for one, played in zip(audio, stereo.decode(batch), strict=True):
        (alone,) = stereo.decode(stereo.encode([one]))
        np.testing.assert_allclose(played.samples, alone.samples, rtol=0, atol=1e-6)


def test_chunks_fade_into_each_other_by_hand() -> None:
    """Two chunks of 4, three apart: weights 1/6, 2/6, 2/6, 1/6 (a triangle over the chunk)."""
    ones, fives = torch.ones(1, 4), torch.full((1, 4), 5.0)
    out = torch.cat(list(_overlapped(iter([ones, fives]), 3)), -1)
    weights = 0.5 - (torch.linspace(0, 1, 6)[1:-1] - 0.5).abs()
    shared = (weights[3] * 1 + weights[0] * 5) / (weights[3] + weights[0])
    torch.testing.assert_close(out, torch.tensor([[1, 1, 1, float(shared), 5, 5, 5]]))


def test_one_chunk_is_left_as_it_is() -> None:
    chunk = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.cat(list(_overlapped(iter([chunk]), 5)), -1), chunk)


def test_a_chunk_shorter_than_the_stride_is_followed_by_silence() -> None:
    ones = torch.ones(1, 2)
    out = torch.cat(list(_overlapped(iter([ones, ones]), 4)), -1)
    assert out.tolist() == [[1, 1, 0, 0, 1, 1]]


def test_silence_has_scales_and_comes_back_silent(stereo: EncodecCodec) -> None:
    codes = stereo.encode([Audio(np.zeros((2, 48_000), np.float32), 48_000)])
    assert codes.scales is not None
    assert float(codes.scales[0, 0]) == pytest.approx(1e-8)
    assert np.abs(stereo.decode(codes)[0].samples).max() < 1e-6


def test_mono_is_given_to_both_channels(stereo: EncodecCodec) -> None:
    audio = made_audio(5_000, 48_000)
    both = Audio(np.repeat(audio.samples, 2, 0), 48_000)
    assert torch.equal(stereo.encode([audio]).ids, stereo.encode([both]).ids)


# Levels and embeddings --------------------------------------------------------------------


@ids
def test_fewer_levels_are_the_first_levels(spec: ComponentSpec) -> None:
    facts = spec.facts.model_copy(update={"codebooks": 2})
    full, few = (
        EncodecCodec.from_random(spec),
        EncodecCodec.from_random(spec.model_copy(update={"facts": facts})),
    )
    audio = made_audio(9_000, spec.facts.sample_rate, spec.facts.channels)
    codes, part = full.encode([audio]), few.encode([audio])
    assert torch.equal(part.ids, codes.ids[:, :2])
    first = replace(codes, ids=codes.ids[:, :2].contiguous())
    assert np.array_equal(full.decode(first)[0].samples, few.decode(part)[0].samples)


@ids
@pytest.mark.parametrize("levels", [1, 4])
def test_embeddings_are_the_sum_of_the_codebooks(spec: ComponentSpec, levels: int) -> None:
    codec = EncodecCodec.from_random(spec)
    codes = codes_for(spec.facts, [7, 4])
    codes = replace(codes, ids=codes.ids[:, :levels].contiguous())
    tables = [codec.codebook(level) for level in range(levels)]
    assert tables[0].shape == (1024, 8)
    expected = sum(table[codes.ids[:, k]] for k, table in enumerate(tables))
    torch.testing.assert_close(codec.embed(codes), expected.transpose(1, 2), rtol=0, atol=1e-6)


def test_codebooks_are_copies(mono: EncodecCodec) -> None:
    before = mono.codebook(0)
    before.zero_()
    assert mono.codebook(0).any()


def test_a_generator_can_train_from_codes_and_codebooks() -> None:
    codec = EncodecCodec.from_random(ENCODEC_24KHZ)
    ids = codec.encode([made_audio(2_000)]).ids
    table = torch.nn.Embedding.from_pretrained(codec.codebook(0), freeze=False)
    table(ids[:, 0]).square().sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.any()


def test_what_it_does_not_have_is_refused(mono: EncodecCodec) -> None:
    for level in (-1, 8):
        with pytest.raises(UsageError, match="levels 0 to 7, not"):
            mono.codebook(level)
    wide = Codes(torch.zeros(1, 8, 3, dtype=torch.int64), "encodec-24khz", 2048, Fraction(75))
    with pytest.raises(UsageError, match="1024 ids per codebook, but the codes have 2048"):
        mono.decode(wide)
    empty = Codes(torch.zeros(1, 8, 0, dtype=torch.int64), "encodec-24khz", 1024, Fraction(75))
    for play in (mono.decode, lambda codes: next(mono.stream(codes))):
        with pytest.raises(UsageError, match="cannot play codes of no frames"):
            play(empty)
    with pytest.raises(UsageError, match="seconds must be a number above 0"):
        next(mono.stream(mono.encode([made_audio(999)]), seconds=0))
    with pytest.raises(UsageError, match="there is no audio to encode"):
        mono.encode([])


# Input ------------------------------------------------------------------------------------


@ids
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_any_rate_and_channel_count_has_exact_lengths(spec: ComponentSpec, rate: int) -> None:
    codec = EncodecCodec.from_random(spec)
    facts = spec.facts
    for length, channels in ((1, 1), (2, 2), (1001, 3)):
        codes = codec.encode([made_audio(length, rate, channels)])
        frames = frames_in(length, rate, facts.frame_rate)
        assert codes.ids.shape == (1, facts.codebooks, frames)
        (back,) = codec.decode(codes)
        assert back.channels == facts.channels
        assert abs(back.length * facts.frame_rate - frames * facts.sample_rate) <= facts.frame_rate


def test_bad_audio_is_stopped(mono: EncodecCodec) -> None:
    with pytest.raises(AudioError, match="1 samples that are NaN"):
        mono.encode([Audio(np.array([0.0, np.nan], np.float32), 24_000)])
    with pytest.raises(AudioError, match="empty"):
        mono.encode([Audio(np.zeros((1, 0), np.float32), 24_000)])
