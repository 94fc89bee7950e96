"""Checks for what takes audio frame by frame: tokenizers and codecs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch

from speechloom.errors import AudioError, UsageError
from speechloom.spec import CodecFacts
from speechloom.testing.checks.outcomes import assert_same, skip_without
from speechloom.testing.checks.table import Subject, check, refuses
from speechloom.values import Audio, Codes, Features, Tokens, frames_in, samples_at

RATES = (8_000, 11_025, 44_100, 48_000)


@check("tokenizer", "codec")
def check_encodes_to_its_layout(subject: Subject) -> None:
    """Encoding gives [B, F], [B, K, F] or [B, D, F] of its own kind and rate, padded with 0."""
    audio = [subject.inputs.audio(seconds, number=i) for i, seconds in enumerate((0.9, 0.4))]
    result, facts = subject.component.encode(audio), subject.facts
    if isinstance(facts, CodecFacts):
        assert isinstance(result, Codes), f"encode must return Codes, not {type(result)}"
        assert result.kind == facts.takes, f"codes are {result.kind}, not {facts.takes}"
        assert result.codebooks == facts.codebooks, f"{result.codebooks} codebooks"
        assert result.codebook_size == facts.codebook_size, "codebook_size is not the claimed one"
    elif facts.form == "features":
        assert isinstance(result, Features), f"encode must return Features, not {type(result)}"
        assert result.kind == facts.gives, f"features are {result.kind}, not {facts.gives}"
        size = result.values.shape[1]
        assert size == facts.vocabulary_size, f"{size} values a frame, not {facts.vocabulary_size}"
    else:
        assert isinstance(result, Tokens), f"encode must return Tokens, not {type(result)}"
        assert result.kind == facts.gives, f"tokens are {result.kind}, not {facts.gives}"
        assert result.vocabulary_size == facts.vocabulary_size, "vocabulary_size differs"
    assert result.frame_rate == facts.frame_rate, f"frame rate is {result.frame_rate}"
    content = _values(result)
    assert content.shape[0] == 2, f"{content.shape[0]} items for 2 recordings"
    assert not bool(content[1, ..., int(result.lengths[1]) :].any()), "padding is not 0"


@check("tokenizer", "codec")
def check_frame_counts_are_exact(subject: Subject) -> None:
    """Recordings of 1, hop - 1, hop and hop + 1 samples give ceil(seconds x frame_rate) frames."""
    rate, hop = subject.facts.sample_rate, subject.facts.sample_rate / subject.facts.frame_rate
    for samples in (1, int(hop) - 1, int(hop), int(hop) + 1, int(hop * 3), int(hop * 20) + 7):
        _assert_frames(subject, subject.inputs.audio(max(samples, 1) / rate, rate))


@check("tokenizer", "codec")
def check_takes_any_sample_rate(subject: Subject) -> None:
    """8000, 11025, 44100 and 48000 Hz are taken, with exact frame counts."""
    for rate in RATES:
        _assert_frames(subject, subject.inputs.audio(0.3137, rate))


@check("tokenizer", "codec")
def check_takes_stereo(subject: Subject) -> None:
    """Any number of channels is taken; mono gets the mean of them."""
    rate = subject.facts.sample_rate
    stereo = subject.inputs.audio(0.5, rate, channels=2)
    _assert_frames(subject, stereo)
    _assert_frames(subject, subject.inputs.audio(0.5, rate, channels=3))
    if getattr(subject.facts, "channels", 1) == 1:
        mono = subject.component.encode([stereo.mono()])
        assert_same(mono, subject.component.encode([stereo]), "stereo and the mean of it")


@check("tokenizer", "codec")
def check_takes_silence(subject: Subject) -> None:
    """Exact zeros are encoded like any other sound."""
    rate = subject.facts.sample_rate
    silence = Audio(np.zeros((1, rate // 2), dtype=np.float32), rate)
    _assert_frames(subject, silence)


@check("tokenizer", "codec")
def check_never_sees_bad_audio(subject: Subject) -> None:
    """NaN and empty recordings are stopped by `Audio`; inside a batch too."""
    rate, good = subject.facts.sample_rate, subject.inputs.audio(0.2)
    nan, empty = np.full((1, 100), np.nan, np.float32), np.zeros((1, 0), np.float32)
    encode = subject.component.encode
    refuses(lambda: encode([good, Audio(nan, rate)]), AudioError, "audio with NaN")
    refuses(lambda: encode([good, Audio(empty, rate)]), AudioError, "audio with no samples")


@check("tokenizer", "codec")
def check_takes_very_long_audio(subject: Subject) -> None:
    """A minute is encoded; what is longer than the claimed limit is refused."""
    limit, rate = subject.facts.max_seconds, subject.facts.sample_rate
    seconds = subject.inputs.long_seconds
    if limit is None or limit >= seconds:
        _assert_frames(subject, subject.inputs.audio(seconds, rate))
        return
    _assert_frames(subject, subject.inputs.audio(limit, rate))
    longer = subject.inputs.audio(limit + 1, rate)
    refuses(lambda: subject.component.encode([longer]), UsageError, f"{limit + 1} s of audio")


@check("tokenizer", "codec")
def check_encodes_a_batch_like_a_loop(subject: Subject) -> None:
    """Recordings of different lengths and rates get the same ids together and alone."""
    lengths = ((0.61, 16_000), (0.2, 44_100), (0.93, 16_000), (0.013, 8_000))
    audio = [subject.inputs.audio(s, r, number=i) for i, (s, r) in enumerate(lengths)]
    together = subject.component.encode(audio)
    for index, one in enumerate(audio):
        alone = subject.component.encode([one])
        what = f"item {index} of a batch and alone"
        assert_same(alone.item(0), together.item(index), what, tolerance=1e-4)


@check("tokenizer")
def check_encodes_windows_like_the_whole(subject: Subject) -> None:
    """With ``context_frames`` on either side, a part of the audio gives the same units."""
    facts = subject.facts
    skip_without(facts.context_frames is not None, "context_frames is None: no windows claimed")
    step, start, stop, frames = _window(facts)
    left, right = max(0, start - _up(facts.context_frames, step)), stop + facts.context_frames
    audio = subject.inputs.audio(float(frames / facts.frame_rate), facts.sample_rate)
    whole = subject.component.encode([audio]).item(0)
    edges = [samples_at(f, facts.sample_rate, facts.frame_rate) for f in (left, right)]
    part = subject.component.encode([audio.slice(*edges)]).item(0)
    here, there = whole[..., start:stop], part[..., start - left : stop - left]
    assert_same(here, there, "a window and the whole", tolerance=1e-4)


def _assert_frames(subject: Subject, audio: Audio) -> None:
    result: Any = subject.component.encode([audio])
    expected = frames_in(audio.length, audio.sample_rate, subject.facts.frame_rate)
    got = int(result.lengths[0])
    assert got == expected, f"{audio!r} gives {got} frames instead of {expected}"
    content = _values(result)
    assert content.shape[-1] == expected, f"content has {content.shape[-1]} frames"
    if not isinstance(result, Features):
        assert content.dtype == torch.int64, f"ids are {content.dtype}"


def _values(result: Any) -> torch.Tensor:
    """What was encoded: ids, or the values of features."""
    values: torch.Tensor = result.values if isinstance(result, Features) else result.ids
    return values


def _window(facts: Any) -> tuple[int, int, int, int]:
    """Step of frames that begin at a whole sample, first and last frame of a window, and all."""
    step = (Fraction(facts.sample_rate) / facts.frame_rate).denominator
    context = facts.context_frames
    # Far from the beginning, so that what has been heard by then could show.
    start = _up(context + 20, step)
    stop = start + 8
    return step, start, stop, stop + context + 5


def _up(number: int, step: int) -> int:
    """The next multiple of a step."""
    return -(-number // step) * step
