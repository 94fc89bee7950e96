"""Long signals in overlapping windows whose results, joined, are the result of the whole.

A network whose every output depends on a bounded stretch of its input can be run on a piece at a
time: each window is given its own steps and, on either side, as many more as one output depends
on (its *context*); what those extra steps come out as is dropped.

::

    whole     |0 1 2 3 4 5 6 7 8 9 ...
    window 0  [0 1 2 3]4 5              context 2: steps 4 and 5 are given and dropped
    window 1   .   2 3[4 5 6 7]8 9

A step is what input and output have in common, such as a frame: one step may be 320 samples on
one side and one column of codes on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from speechloom.errors import UsageError
from speechloom.spec import CodecFacts
from speechloom.values import Audio, Codes, fit_length, samples_at

if TYPE_CHECKING:
    from torch import Tensor

    from speechloom.protocols import Codec

__all__ = [
    "Streams",
    "Window",
    "frames_at_once",
    "over_windows",
    "plan_windows",
    "stream_decode",
]


@dataclass(frozen=True)
class Window:
    """One window, in steps of the whole.

    Attributes:
        start: the first step that it is responsible for.
        stop: the one after its last.
        low: the first step that it is given.
        high: the one after the last that it is given.
    """

    start: int
    stop: int
    low: int
    high: int


def plan_windows(
    length: int, window: int, context: int | tuple[int, int], multiple: int = 1
) -> list[Window]:
    """Cut a length into windows with context.

    Args:
        length: steps of the whole.
        window: steps that one window is responsible for; the last may have fewer.
        context: steps on either side that one step depends on, or (before, after).
        multiple: windows are given steps from a multiple of this on, for steps that only begin
            at a whole sample every so often, and for networks with a phase.

    Returns:
        Windows in order; their [start, stop) tile [0, length).

    Raises:
        UsageError: a number is out of range.

    >>> plan_windows(5, 3, 1)
    [Window(start=0, stop=3, low=0, high=4), Window(start=3, stop=5, low=2, high=5)]
    """
    before, after = (context, context) if isinstance(context, int) else context
    if length < 0 or window < 1 or before < 0 or after < 0 or multiple < 1:
        raise UsageError(
            "windows need length and context of 0 or more and window and multiple of 1 or more, "
            f"but got length {length}, context {context}, window {window}, multiple {multiple}"
        )
    windows = []
    for start in range(0, length, window):
        stop = min(start + window, length)
        low = max(0, start - before) // multiple * multiple
        windows.append(Window(start, stop, low, min(length, stop + after)))
    return windows


def over_windows(
    run: Callable[[Tensor], Tensor],
    values: Tensor,
    windows: Sequence[Window],
    *,
    takes: int = 1,
    gives: int = 1,
) -> Iterator[Tensor]:
    """Run a network window by window.

    Args:
        run: values [..., given steps x takes] to results [..., at least given steps x gives]; the
            last result may be shorter where the network gives less than that.
        values: the whole input [..., steps x takes]; the last step may be cut short.
        windows: from `plan_windows`, with a context of at least what one step depends on.
        takes: input elements of a step, such as samples per frame.
        gives: output elements of a step.

    Yields:
        What each window is responsible for, [..., (stop - start) x gives]; joined along the last
        dimension it is what `run` gives for the whole.
    """
    for window in windows:
        result = run(values[..., window.low * takes : window.high * takes])
        first = (window.start - window.low) * gives
        yield result[..., first : first + (window.stop - window.start) * gives]


def frames_at_once(seconds: float, frame_rate: Fraction) -> int:
    """The frames of a window of about so many seconds, at least one.

    Raises:
        UsageError: it is no number above 0.

    >>> frames_at_once(0.5, Fraction(75))
    37
    """
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds must be a number above 0, but is {seconds}")
    return max(1, int(seconds * frame_rate))


@runtime_checkable
class Streams(Protocol):
    """What a codec adds that can decode piece by piece although its context is unbounded."""

    def stream(self, codes: Codes, *, seconds: float = 1.0) -> Iterator[Audio]:
        """Audio of one item, in pieces of so many seconds; joined it is what ``decode`` gives."""
        ...


def stream_decode(codec: Codec, codes: Codes, *, seconds: float = 1.0) -> Iterator[Audio]:
    """Decode one item window by window, so that playing can begin before all is decoded.

    Args:
        codec: decodes as it streams itself (`Streams`), or else in windows with
            ``context_frames`` on either side; where that is None, everything at once.
        codes: of a single item.
        seconds: length of a window, at least a frame.

    Yields:
        Audio whose concatenation is what ``codec.decode`` gives, to the sample.

    Raises:
        UsageError: there is not exactly one item, the codes are of another codec, or `seconds` is
            not above 0.
    """
    facts = cast(CodecFacts, codec.spec.facts)
    if len(codes.lengths) != 1:
        raise UsageError(f"one item can be streamed at a time, but there are {len(codes.lengths)}")
    frames = int(codes.lengths[0])
    if isinstance(codec, Streams):
        yield from codec.stream(codes, seconds=seconds)
        return
    if facts.context_frames is None:
        yield from codec.decode(codes)
        return
    window = frames_at_once(seconds, facts.frame_rate)
    # A window that begins between two samples would be rounded, and all its samples with it.
    whole = (facts.sample_rate / facts.frame_rate).denominator
    for one in plan_windows(frames, window, facts.context_frames, whole):
        (audio,) = codec.decode(codes.slice(one.low, one.high))
        low, start, stop = (
            samples_at(frame, facts.sample_rate, facts.frame_rate)
            for frame in (one.low, one.start, one.stop)
        )
        made = fit_length(audio.samples[:, start - low :], stop - start)
        yield Audio(made, audio.sample_rate)
