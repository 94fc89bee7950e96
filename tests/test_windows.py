"""Windows: they tile the whole, and give what the whole gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechloom.errors import UsageError
from speechloom.testing.canvases import codes_for
from speechloom.testing.fakes import FakeCodec
from speechloom.values import Audio, Codes, joined, samples_at
from speechloom.windows import (
    Window,
    frames_at_once,
    over_windows,
    plan_windows,
    stream_decode,
)


def test_a_known_plan() -> None:
    assert plan_windows(10, 4, 2) == [
        Window(0, 4, 0, 6),
        Window(4, 8, 2, 10),
        Window(8, 10, 6, 10),
    ]


def test_low_lies_on_a_multiple_and_contexts_may_differ() -> None:
    assert plan_windows(20, 10, (3, 0), multiple=5) == [
        Window(0, 10, 0, 10),
        Window(10, 20, 5, 20),
    ]


def test_nothing_has_no_windows() -> None:
    assert plan_windows(0, 4, 2) == []


@pytest.mark.parametrize("wrong", [(-1, 1, 0, 1), (1, 0, 0, 1), (1, 1, -1, 1), (1, 1, 0, 0)])
def test_wrong_numbers_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="windows need"):
        plan_windows(*wrong)


@given(
    st.integers(0, 60), st.integers(1, 20), st.integers(0, 8), st.integers(0, 8), st.integers(1, 5)
)
def test_windows_tile_the_whole_and_have_their_context(
    length: int, window: int, before: int, after: int, multiple: int
) -> None:
    windows = plan_windows(length, window, (before, after), multiple)
    edges = [0, *(one.stop for one in windows)]
    assert [one.start for one in windows] == edges[:-1]
    assert edges[-1] == length
    for one in windows:
        assert 0 <= one.low <= max(0, one.start - before)
        assert one.high == min(length, one.stop + after)
        assert one.low % multiple == 0
        assert one.start - before - one.low < multiple or one.low == 0


@given(st.integers(1, 50), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3))
def test_a_bounded_network_gives_the_same_in_windows(
    steps: int, window: int, takes: int, gives: int
) -> None:
    """Each result is the sum over the step and two on either side: context 2, and no less."""

    def run(values: torch.Tensor) -> torch.Tensor:
        sums = values.reshape(-1, takes).sum(1)
        padded = torch.nn.functional.pad(sums, (2, 2))
        return padded.unfold(0, 5, 1).sum(1).repeat_interleave(gives)

    values = torch.arange(steps * takes, dtype=torch.float64) ** 2
    for context, equal in ((2, True), (1, steps <= 1 or window >= steps)):
        windows = plan_windows(steps, window, context)
        pieces = list(over_windows(run, values, windows, takes=takes, gives=gives))
        if equal:
            assert torch.equal(torch.cat(pieces), run(values))
        elif steps > window + 1:
            assert not torch.equal(torch.cat(pieces), run(values))


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_pieces_of_senseless_length_are_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="seconds must be a number above 0"):
        frames_at_once(seconds, Fraction(50))
    codec = FakeCodec()
    with pytest.raises(UsageError, match="seconds must be a number above 0"):
        next(stream_decode(codec, codes_for(codec.spec.facts, [57]), seconds=seconds))


@pytest.mark.parametrize("seconds", [0.001, 0.1, 0.33, 10.0])
def test_streamed_audio_is_the_decoded_audio(seconds: float) -> None:
    codec = FakeCodec.from_random(FakeCodec.default_spec)
    codes = codes_for(codec.spec.facts, [57])
    chunks = list(stream_decode(codec, codes, seconds=seconds))
    (whole,) = codec.decode(codes)
    assert len(chunks) == len(plan_windows(57, max(1, int(seconds * codes.frame_rate)), 0))
    np.testing.assert_allclose(joined(chunks).samples, whole.samples, atol=1e-6)


class Stairs:
    """Plays each frame as its number: at 1000 Hz and 60 Hz, three frames are 50 samples."""

    spec = FakeCodec.default_spec.model_copy(
        update={
            "facts": FakeCodec.default_spec.facts.model_copy(
                update={"sample_rate": 1000, "frame_rate": Fraction(60), "context_frames": 1}
            )
        }
    )

    def decode(self, codes: Codes) -> list[Audio]:
        frames = codes.ids.shape[-1]
        edges = [samples_at(frame, 1000, Fraction(60)) for frame in range(frames + 1)]
        stairs = np.repeat(codes.ids[0, 0].numpy().astype(np.float32), np.diff(edges))
        return [Audio(stairs, 1000)]


def test_frames_that_begin_between_samples_stream_too() -> None:
    ids = torch.arange(31).repeat(1, 4, 1)
    codes = Codes(ids, "fake", 64, Fraction(60))
    streamed = joined(stream_decode(Stairs(), codes, seconds=0.1))
    assert np.array_equal(streamed.samples, Stairs().decode(codes)[0].samples)


def test_unbounded_context_is_decoded_at_once() -> None:
    facts = FakeCodec.default_spec.facts.model_copy(update={"context_frames": None})
    codec = FakeCodec.from_random(FakeCodec.default_spec.model_copy(update={"facts": facts}))
    codes = codes_for(facts, [57])
    assert len(list(stream_decode(codec, codes, seconds=0.1))) == 1


class StreamingStairs(Stairs):
    """Plays frame by frame, whatever is asked."""

    def stream(self, codes: Codes, *, seconds: float = 1.0) -> Iterator[Audio]:
        (whole,) = self.decode(codes)
        yield from (whole.slice(at, at + 1) for at in range(whole.length))


def test_a_codec_that_streams_itself_does_so() -> None:
    codes = Codes(torch.arange(3).repeat(1, 4, 1), "fake", 64, Fraction(60))
    assert len(list(stream_decode(StreamingStairs(), codes, seconds=9.0))) == 50


def test_padding_is_not_streamed() -> None:
    codec = FakeCodec.from_random(FakeCodec.default_spec)
    codes = codes_for(codec.spec.facts, [30])
    padded = Codes(
        torch.nn.functional.pad(codes.ids, (0, 9)), codes.codec, codes.codebook_size,
        codes.frame_rate, codes.lengths,
    )  # fmt: skip
    (whole,) = codec.decode(codes)
    assert joined(stream_decode(codec, padded, seconds=0.2)).length == whole.length


def test_two_items_are_refused() -> None:
    codec = FakeCodec.from_random(FakeCodec.default_spec)
    with pytest.raises(UsageError, match="one item"):
        list(stream_decode(codec, codes_for(codec.spec.facts, [3, 4])))


class Faders(FakeCodec):
    """Plays nothing but the scales of its frames, 320 samples each."""

    def decode(self, codes: Codes) -> list[Audio]:
        assert codes.scales is not None
        return [Audio(np.repeat(codes.scales[0].numpy(), 320), 16_000)]


def test_scales_go_with_their_frames() -> None:
    codec = Faders.from_random(FakeCodec.default_spec)
    plain = codes_for(codec.spec.facts, [57])
    codes = replace(plain, scales=torch.linspace(0, 1, 57)[None])
    (whole,) = codec.decode(codes)
    streamed = joined(stream_decode(codec, codes, seconds=0.1))
    assert np.array_equal(streamed.samples, whole.samples)


def test_a_slice_of_codes_by_hand() -> None:
    codes = Codes(
        torch.arange(10).reshape(2, 1, 5), "fake", 64, Fraction(50), torch.tensor([5, 3]),
        torch.arange(10.0).reshape(2, 5),
    )  # fmt: skip
    middle = codes.slice(2, 4)
    assert middle.ids.tolist() == [[[2, 3]], [[7, 8]]]
    assert middle.lengths.tolist() == [2, 1]
    assert middle.scales is not None
    assert middle.scales.tolist() == [[2.0, 3.0], [7.0, 8.0]]
