"""Checks for what makes audio from frames: codecs that decode, and vocoders."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch

from speechloom.errors import UsageError
from speechloom.spec import CodecFacts
from speechloom.testing.canvases import codes_for, features_for
from speechloom.testing.checks.outcomes import assert_same, skip_without
from speechloom.testing.checks.table import Subject, check, refuses
from speechloom.values import Audio, Codes, Features, samples_at

TOLERANCE = 1e-4
"""Largest difference of samples between two ways to get the same audio."""


@check("codec", "vocoder")
def check_plays_exact_lengths(subject: Subject) -> None:
    """Audio is as long as its frames, to the sample, at the claimed rate and channels."""
    frames, facts = [1, 2, 3, 17], subject.facts
    played = _play(subject, _frames_for(subject, frames))
    assert len(played) == len(frames), f"{len(played)} recordings for {len(frames)} items"
    for count, audio in zip(frames, played, strict=True):
        expected = samples_at(count, facts.sample_rate, facts.frame_rate)
        assert isinstance(audio, Audio), f"it gives {type(audio)}, not Audio"
        assert audio.sample_rate == facts.sample_rate, f"rate is {audio.sample_rate} Hz"
        assert audio.length == expected, f"{count} frames give {audio.length}, not {expected}"
        channels = getattr(facts, "channels", 1)
        assert audio.channels == channels, f"{audio.channels} channels, not {channels}"


@check("codec", "vocoder")
def check_plays_a_batch_like_a_loop(subject: Subject) -> None:
    """Items of different lengths sound the same together and alone."""
    frames = [11, 4, 23, 1]
    batch = _frames_for(subject, frames)
    together = _play(subject, batch)
    for index, count in enumerate(frames):
        alone = _play(subject, _cut(batch, index, 0, count))[0]
        what = f"item {index} of a batch and alone"
        assert_same(alone.samples, together[index].samples, what, tolerance=TOLERANCE)


@check("codec", "vocoder")
def check_plays_windows_like_the_whole(subject: Subject) -> None:
    """With ``context_frames`` on either side, a part of the frames sounds as in the whole."""
    facts = subject.facts
    context = facts.context_frames
    skip_without(context is not None, "context_frames is None: no windows claimed")
    step = (Fraction(facts.sample_rate) / facts.frame_rate).denominator
    # Far from the beginning, so that what has been played by then could show.
    start = -(-(context + 20) // step) * step
    left = max(0, (start - context) // step * step)
    stop = start + 6
    everything = _frames_for(subject, [stop + context + 5])
    whole = _play(subject, everything)[0].samples
    part = _play(subject, _cut(everything, 0, left, stop + context))[0].samples
    at = [samples_at(f, facts.sample_rate, facts.frame_rate) for f in (left, start, stop)]
    assert_same(
        whole[:, at[1] : at[2]],
        part[:, at[1] - at[0] : at[2] - at[0]],
        "a window and the whole",
        tolerance=TOLERANCE,
    )


@check("codec", "vocoder")
def check_plays_very_long_input(subject: Subject) -> None:
    """A minute is played, or as much as ``max_seconds`` claims."""
    facts, seconds = subject.facts, subject.inputs.long_seconds
    limit = getattr(facts, "max_seconds", None)
    frames = int(min(seconds, limit or seconds) * facts.frame_rate)
    audio = _play(subject, _frames_for(subject, [frames]))[0]
    expected = samples_at(frames, facts.sample_rate, facts.frame_rate)
    assert audio.length == expected, f"{frames} frames give {audio.length}, not {expected}"


@check("codec", "vocoder")
def check_refuses_foreign_frames(subject: Subject) -> None:
    """Codes of another codec, features of another kind, or another K or D are a `UsageError`."""
    for foreign, what in _foreign(subject):
        refuses(partial(_play, subject, foreign), UsageError, what)


@check("codec")
def check_comes_back_as_long_as_it_was(subject: Subject) -> None:
    """Encoded and decoded audio covers what went in, and less than a frame more."""
    facts = subject.facts
    for samples in (1, 1000, facts.sample_rate // 3):
        audio = subject.inputs.audio(samples / facts.sample_rate, facts.sample_rate)
        back = subject.component.decode(subject.component.encode([audio]))[0]
        extra = back.length - audio.length
        frame = facts.sample_rate / facts.frame_rate
        assert -1 < extra < frame + 1, f"{audio.length} samples come back as {back.length}"


@check("codec")
def check_silence_stays_finite(subject: Subject) -> None:
    """Silence comes back as audio; `Audio` refuses NaN, so this finds divisions by loudness."""
    rate = subject.facts.sample_rate
    silence = Audio(np.zeros((1, rate // 4), dtype=np.float32), rate)
    back = subject.component.decode(subject.component.encode([silence]))[0]
    assert float(np.abs(back.samples).max()) < 1e3, "silence comes back without bounds"


def _play(subject: Subject, frames: Codes | Features) -> list[Audio]:
    component: Any = subject.component
    played: list[Audio]
    played = component.decode(frames) if isinstance(frames, Codes) else component.render(frames)
    return played


def _frames_for(subject: Subject, frames: Sequence[int]) -> Codes | Features:
    facts = subject.facts
    if isinstance(facts, CodecFacts):
        return codes_for(facts, frames)
    return features_for(facts, frames)


def _cut(frames: Codes | Features, index: int, start: int, stop: int) -> Codes | Features:
    """One item, from one frame to another."""
    rows = slice(index, index + 1)
    if isinstance(frames, Codes):
        ids = frames.ids[rows, :, start:stop].contiguous()
        return Codes(ids, frames.codec, frames.codebook_size, frames.frame_rate)
    values = frames.values[rows, :, start:stop].contiguous()
    return Features(values, frames.name, frames.frame_rate)


def _foreign(subject: Subject) -> list[tuple[Codes | Features, str]]:
    frames = _frames_for(subject, [5])
    if isinstance(frames, Codes):
        size, rate = frames.codebook_size, frames.frame_rate
        wider = torch.cat([frames.ids, frames.ids[:, :1]], dim=1)
        return [
            (Codes(frames.ids, f"not-{frames.codec}", size, rate), "codes of another codec"),
            (Codes(wider, frames.codec, size, rate), "one codebook too many"),
        ]
    wide = torch.cat([frames.values, frames.values[:, :1]], dim=1)
    return [
        (Features(frames.values, f"not-{frames.name}", frames.frame_rate), "another kind"),
        (Features(wide, frames.name, frames.frame_rate), "one value per frame too many"),
    ]
