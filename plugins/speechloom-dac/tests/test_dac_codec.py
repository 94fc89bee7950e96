"""The codec: conformance, windows that equal the whole, levels, embeddings, odd input."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from speechloom.errors import AudioError, UsageError
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom.testing import check_plugin
from speechloom.testing.canvases import codes_for
from speechloom.testing.inputs import Inputs, made_audio
from speechloom.values import Audio, Codes, joined
from speechloom.windows import stream_decode
from speechloom_dac import codec as codec_module
from speechloom_dac import spec_for
from speechloom_dac._spec import DAC_16KHZ, DAC_24KHZ, DAC_44KHZ
from speechloom_dac.codec import DacCodec

SPECS = (DAC_16KHZ, DAC_24KHZ, DAC_44KHZ)
ids = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)


def with_codebooks(spec: ComponentSpec, count: int) -> ComponentSpec:
    facts = spec.facts.model_copy(update={"codebooks": count})
    return spec.model_copy(update={"facts": facts})


@pytest.mark.parametrize(
    "name",
    [DAC_16KHZ.id, *(pytest.param(s.id, marks=pytest.mark.slow) for s in SPECS[1:])],
)
def test_it_passes_the_conformance_kit(name: str) -> None:
    for result in check_plugin(f"codec/{name}", inputs=Inputs(long_seconds=10.0)):
        assert result.status == "passed", result


def test_the_published_facts() -> None:
    facts = [spec.facts for spec in SPECS]
    assert [f.frame_rate for f in facts] == [50, 75, Fraction(44_100, 512)]
    assert [f.codebooks for f in facts] == [12, 32, 9]
    assert {spec.weights_license for spec in SPECS} == {"MIT"}


# Reach and windows ------------------------------------------------------------------------


@ids
def test_the_stated_reach_is_the_true_one(spec: ComponentSpec) -> None:
    """A NaN spreads to all that depends on it, and to nothing else."""
    codec = DacCodec.from_random(spec)
    config, network = codec._config, codec._model
    hop, middle = config.hop, 30
    with torch.inference_mode():
        latents = torch.zeros(1, config.latent_size, 60)
        latents[..., middle] = torch.nan
        touched = network.decoder(latents)[0, 0].isnan().nonzero().flatten() // hop - middle
        assert -int(touched.min()) == config.decoder_reach
        assert int(touched.max()) == config.decoder_reach
        frames = []
        for sample in (middle * hop, (middle + 1) * hop - 1):
            samples = torch.zeros(1, 1, 60 * hop)
            samples[..., sample] = torch.nan
            frames.append(network.encoder(samples)[0].isnan().any(0).nonzero().flatten() - middle)
        assert -int(torch.cat(frames).min()) == config.encoder_reach
        assert int(torch.cat(frames).max()) == config.encoder_reach
    assert spec.facts.context_frames == max(config.encoder_reach, config.decoder_reach)


@ids
@pytest.mark.parametrize("frames", [1, 9, 10, 11, 47])
def test_windows_equal_the_whole(
    spec: ComponentSpec, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = DacCodec.from_random(spec)
    rate = spec.facts.sample_rate
    audio = made_audio(int(47.6 * rate / spec.facts.frame_rate), rate)
    whole = codec.encode([audio])
    played = codec.decode(whole)[0].samples
    monkeypatch.setattr(codec_module, "WINDOW_SECONDS", frames / float(spec.facts.frame_rate))
    assert torch.equal(codec.encode([audio]).ids, whole.ids)
    np.testing.assert_allclose(codec.decode(whole)[0].samples, played, rtol=0, atol=1e-5)


@ids
def test_streamed_audio_is_the_decoded_audio(spec: ComponentSpec) -> None:
    codec = DacCodec.from_random(spec)
    codes = codes_for(spec.facts, [90])
    chunks = list(stream_decode(codec, codes, seconds=0.25))
    assert len(chunks) >= 4
    (whole,) = codec.decode(codes)
    np.testing.assert_allclose(joined(chunks).samples, whole.samples, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("spec", "silent"), [(DAC_16KHZ, 8), (DAC_44KHZ, 0)])
def test_odd_strides_leave_the_last_samples_silent(spec: ComponentSpec, silent: int) -> None:
    (audio,) = DacCodec.from_random(spec).decode(codes_for(spec.facts, [5]))
    assert audio.length == 5 * spec.facts.sample_rate / spec.facts.frame_rate
    tail = audio.samples[0, audio.length - silent :]
    assert not tail.any()
    assert audio.samples[0, audio.length - silent - 1] != 0


# Levels and embeddings --------------------------------------------------------------------


def test_fewer_levels_are_the_first_levels() -> None:
    full, few = DacCodec.from_random(DAC_16KHZ), DacCodec.from_random(with_codebooks(DAC_16KHZ, 3))
    load = few._model.load_state_dict(full._model.state_dict(), strict=False)
    assert not load.missing_keys
    audio = made_audio(8_000)
    few = DacCodec(few.spec, few._config, few._model, weights={})
    codes, part = full.encode([audio]), few.encode([audio])
    assert part.codebooks == 3
    assert torch.equal(part.ids, codes.ids[:, :3])
    first = replace(codes, ids=codes.ids[:, :3].contiguous())
    np.testing.assert_allclose(
        full.decode(first)[0].samples, few.decode(part)[0].samples, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("levels", [1, 12])
def test_embeddings_are_the_sum_of_the_codebooks(levels: int) -> None:
    codec = DacCodec.from_random(DAC_16KHZ)
    codes = codes_for(DAC_16KHZ.facts, [7, 4])
    codes = replace(codes, ids=codes.ids[:, :levels].contiguous())
    tables = [codec.codebook(level) for level in range(levels)]
    assert tables[0].shape == (1024, codec._config.latent_size)
    expected = sum(table[codes.ids[:, k]] for k, table in enumerate(tables))
    embedded = codec.embed(codes)
    assert embedded.dtype == torch.float32
    torch.testing.assert_close(embedded, expected.transpose(1, 2), rtol=0, atol=1e-5)
    with torch.inference_mode():
        played = codec._model.decoder(embedded[:1])[0].numpy()
    (audio,) = codec.decode(replace(codes, ids=codes.ids[:1], lengths=codes.lengths[:1]))
    np.testing.assert_allclose(audio.samples[:, : played.shape[1]], played, rtol=0, atol=1e-5)


def test_a_generator_can_train_from_codes_and_codebooks() -> None:
    codec = DacCodec.from_random(DAC_16KHZ)
    ids = codec.encode([made_audio(2_000)]).ids
    table = torch.nn.Embedding.from_pretrained(codec.codebook(0), freeze=False)
    table(ids[:, 0]).square().sum().backward()
    assert table.weight.grad is not None
    assert table.weight.grad.any()


def test_levels_that_do_not_exist_are_refused() -> None:
    codec = DacCodec.from_random(with_codebooks(DAC_16KHZ, 2))
    for level in (-1, 2):
        with pytest.raises(UsageError, match=r"levels 0 to 1, not"):
            codec.codebook(level)
    codes = codes_for(DAC_16KHZ.facts, [4])
    with pytest.raises(UsageError, match="1 to 2 codebooks of codes:dac-16khz, but got 12"):
        codec.decode(codes)
    with pytest.raises(UsageError, match="but got 12 of codes:dac-16khz"):
        codec.embed(codes)


# Input ------------------------------------------------------------------------------------


@ids
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate_and_stereo_have_exact_lengths(spec: ComponentSpec, rate: int) -> None:
    codec = DacCodec.from_random(with_codebooks(spec, 2))
    facts = spec.facts
    assert isinstance(facts, CodecFacts)
    for length in (1, 2, 1001):
        audio = made_audio(length, rate, channels=2)
        codes = codec.encode([audio])
        frames = -(-length * facts.frame_rate // rate)
        assert codes.ids.shape == (1, 2, frames)
        assert torch.equal(codes.ids, codec.encode([audio.mono()]).ids)
        (back,) = codec.decode(codes)
        assert back.length * facts.frame_rate == frames * facts.sample_rate


def test_an_empty_batch_item_plays_nothing_and_bad_audio_is_stopped() -> None:
    codec = DacCodec.from_random(DAC_16KHZ)
    facts = DAC_16KHZ.facts
    nothing = torch.zeros(2, 12, 3, dtype=torch.int64)
    codes = Codes(nothing, facts.codes, 1024, facts.frame_rate, torch.tensor([3, 1]))
    assert [audio.length for audio in codec.decode(codes)] == [960, 320]
    with pytest.raises(AudioError, match="1 samples that are NaN"):
        codec.encode([Audio(np.array([0.0, np.nan], np.float32), 16_000)])
    with pytest.raises(AudioError, match="empty"):
        codec.encode([Audio(np.zeros((1, 0), np.float32), 16_000)])


def test_codes_of_another_size_are_refused() -> None:
    codec = DacCodec.from_random(DAC_16KHZ)
    wide = Codes(torch.zeros(1, 12, 3, dtype=torch.int64), "dac-16khz", 2048, Fraction(50))
    with pytest.raises(UsageError, match="1024 ids per codebook, but the codes have 2048"):
        codec.decode(wide)


def test_spec_for_is_public() -> None:
    assert spec_for.__doc__
