"""The starter's components against the conformance kit, and against their own specs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from speechloom import Audio, Canvas, UnsupportedCapability, UsageError
from speechloom.protocols import Component
from speechloom.spec import CodecFacts, SpeakerEncoderFacts, TokenizerFacts
from speechloom.testing import parametrize_with_checks
from speechloom_starter import _spec
from speechloom_starter.codec_model import CodecConfig, CodecModel
from speechloom_starter.components.aligner import StarterAligner
from speechloom_starter.components.base import WINDOW_FRAMES, coded
from speechloom_starter.components.codec import StarterCodec
from speechloom_starter.components.frontend import StarterEnglish
from speechloom_starter.components.generators import StarterTextToUnits
from speechloom_starter.components.units import StarterUnits
from speechloom_starter.components.voice import StarterVoice
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.phones import PHONE_IDS
from speechloom_starter.thirds import thirds_of_segments
from speechloom_starter.weights import named_voices

SPECS = [
    _spec.CODEC,
    _spec.UNITS,
    _spec.TEXT_TO_UNITS,
    _spec.UNITS_TO_CODES,
    _spec.VOICE,
    _spec.ENGLISH,
    _spec.ALIGNER,
]


CHECKS = [
    pytest.param(*one.values, id=f"{spec.id}-{one.id}", marks=one.marks)
    for spec in SPECS
    for one in parametrize_with_checks(spec).args[1]
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def _speechlike(seconds: float, seed: int = 0, rate: int = 16_000) -> Audio:
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal(round(seconds * rate)) * 0.1
    return Audio(samples.astype(np.float32), rate)


def test_the_specs_tell_the_reach_of_the_shipped_sizes() -> None:
    with torch.device("meta"):
        codec, content = CodecModel(CodecConfig()), ContentModel(ContentConfig())
    assert isinstance(_spec.CODEC.facts, CodecFacts)
    assert isinstance(_spec.UNITS.facts, TokenizerFacts)
    reach = max(codec.encoder_reach_frames, codec.decoder_reach_frames)
    assert _spec.CODEC.facts.context_frames == reach
    assert _spec.UNITS.facts.context_frames == content.reach_frames


def test_the_spec_names_the_voices_that_are_shipped() -> None:
    assert isinstance(_spec.VOICE.facts, SpeakerEncoderFacts)
    assert set(_spec.VOICE.facts.named_voices) == set(named_voices())


def test_every_component_is_a_component() -> None:
    for kind, spec in ((StarterCodec, _spec.CODEC), (StarterUnits, _spec.UNITS)):
        component = kind.from_random(spec)
        assert isinstance(component, Component)
        assert component.weights == {}


def test_windows_equal_the_whole() -> None:
    model = StarterCodec.from_random(_spec.CODEC)._model
    samples = torch.from_numpy(_speechlike(WINDOW_FRAMES / 50 * 2.3).samples)

    def latents(samples: Tensor) -> Tensor:
        return model.latents(samples).transpose(1, 2)

    whole, windowed = latents(samples), coded(latents, samples, model.encoder_reach_frames)
    assert whole.shape == windowed.shape
    assert torch.allclose(whole, windowed, atol=1e-4)


def test_fewer_codebooks_decode_and_more_are_refused() -> None:
    codec = StarterCodec.from_random(_spec.CODEC)
    codes = codec.encode([_speechlike(0.5)])
    few = type(codes)(codes.ids[:, :2], codes.codec, codes.codebook_size, codes.frame_rate)
    (audio,) = codec.decode(few)
    assert audio.length == codes.ids.shape[-1] * 320
    many = type(codes)(
        codes.ids.repeat(1, 2, 1), codes.codec, codes.codebook_size, codes.frame_rate
    )
    with pytest.raises(UsageError, match="up to 8 codebooks"):
        codec.decode(many)


def test_thirds_by_hand() -> None:
    phones = np.array([5, 5, 5, 5, 5, 7, -1, -1])
    segments = np.array([0, 0, 0, 1, 1, 2, -1, -1])
    assert thirds_of_segments(phones, segments, -1).tolist() == [15, 16, 17, 15, 16, 21, -1, -1]


def test_text_to_units_knows_where_a_phone_begins() -> None:
    generator = StarterTextToUnits.from_random(_spec.TEXT_TO_UNITS)
    content = torch.tensor([[3, 3, 3, 3]])

    def ids(segments: list[int]) -> list[int]:
        canvas = Canvas(
            "synthesize",
            torch.zeros(1, 1, 4, dtype=torch.int64),
            torch.zeros(1, 1, 4, dtype=torch.bool),
            torch.tensor([4]),
            "tokens:starter-units",
            512,
            _spec.FRAME_RATE,
            torch.tensor([0]),
            torch.tensor([0]),
            content=content,
            content_kind="phones:radio",
            segments=torch.tensor([segments]),
        )
        return list(generator.content_ids(canvas)[0].tolist())

    assert ids([0, 0, 0, 0]) == [9, 9, 10, 11]
    assert ids([0, 0, 1, 1]) == [9, 10, 9, 10]


def test_durations_follow_the_rate_and_refuse_other_phones() -> None:
    generator = StarterTextToUnits.from_random(_spec.TEXT_TO_UNITS)
    (phones,) = StarterEnglish.from_random(_spec.ENGLISH).phonemize("hello world")
    slow, fast = (generator.durations([phones], rate=r)[0] for r in (0.5, 2.0))
    assert len(slow) == len(phones)
    assert sum(slow) > 2 * sum(fast)
    other = type(phones)(phones.symbols, "letters", phones.words, phones.word_spans)
    with pytest.raises(UnsupportedCapability, match="letters"):
        generator.durations([other])


def test_alignment_is_monotonic_and_covers_the_recording() -> None:
    aligner = StarterAligner.from_random(_spec.ALIGNER)
    sentences = StarterEnglish.from_random(_spec.ENGLISH).phonemize("Hello there, world. Yes.")
    audio = _speechlike(3.0)
    times = aligner.align(audio, sentences)
    flat = [span for sentence in times for span in sentence]
    assert [len(sentence) for sentence in times] == [len(one) for one in sentences]
    assert flat[0][0] == 0.0
    assert flat[-1][1] == pytest.approx(audio.seconds, abs=0.02)
    for (_, end), (start, _) in zip(flat, flat[1:], strict=False):
        assert end <= start + 1e-9
    spoken = [
        span
        for one, spans in zip(sentences, times, strict=True)
        for symbol, span in zip(one.symbols, spans, strict=True)
        if symbol != "pau"
    ]
    assert all(end > start for start, end in spoken)


def test_a_recording_too_short_for_its_text_is_refused() -> None:
    aligner = StarterAligner.from_random(_spec.ALIGNER)
    sentences = StarterEnglish.from_random(_spec.ENGLISH).phonemize("Far too many words for it.")
    with pytest.raises(UsageError, match="frames"):
        aligner.align(_speechlike(0.1), sentences)


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_short_and_silent_voices_are_refused(seconds: float) -> None:
    encoder = StarterVoice.from_random(_spec.VOICE)
    silence = Audio(np.zeros(round(seconds * 16_000), np.float32), 16_000)
    with pytest.raises(UsageError, match="silent|at least"):
        encoder.embed([silence])


def test_the_front_end_speaks_the_alphabet_of_the_spec() -> None:
    assert {symbol: i for i, symbol in enumerate(_spec.PHONES)} == PHONE_IDS


def test_a_generator_can_start_from_the_vectors_of_the_tokens() -> None:
    codec = StarterCodec.from_random(_spec.CODEC)
    codes = torch.arange(3)[None, None].repeat(1, 8, 1)
    summed = sum(codec.codebook(level)[:3] for level in range(8))
    torch.testing.assert_close(summed, codec._model.quantizer.decode(codes[0].T))
    with pytest.raises(UsageError, match="levels 0 to 7, not 8"):
        codec.codebook(8)
    assert StarterUnits.from_random(_spec.UNITS).centroids.shape[0] == 512
