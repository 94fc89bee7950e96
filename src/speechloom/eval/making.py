"""Asking a pipeline for what a case wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from speechloom.errors import UnsupportedCapability
from speechloom.eval.cases import EvalCase

__all__ = ["EvalPipeline", "make_case", "seconds_to_first_chunk"]


class EvalPipeline(Protocol):
    """What makes the results: `speechloom.pipeline.Pipeline`, or anything with its four tasks.

    Each takes the text or the recording and keyword options, and returns a `Speech`, or with
    ``stream=True`` an iterator of `Audio`.
    """

    @property
    def synthesize(self) -> Callable[..., Any]:
        """Text to speech."""

    @property
    def edit(self) -> Callable[..., Any]:
        """A recording with other words."""

    @property
    def continue_(self) -> Callable[..., Any]:
        """A recording that goes on."""

    @property
    def convert(self) -> Callable[..., Any]:
        """A recording in another voice."""


def make_case(pipeline: EvalPipeline, case: EvalCase, **options: Any) -> Any:
    """Ask a pipeline for what a case wants.

    Args:
        pipeline: makes it.
        case: with the task and its inputs; what it leaves out is left to the pipeline.
        options: given on to the task, such as ``stream=True``.

    Returns:
        What the task returns: a `Speech`, or an iterator when it streams.
    """
    given = {"voice": case.voice, "seed": case.seed, **options}
    if case.task == "synthesize":
        return _call(pipeline.synthesize, case.text, given)
    if case.task == "edit":
        words = {"text": case.text, "new_text": case.new_text}
        return _call(pipeline.edit, case.audio, {**words, **given})
    if case.task == "continue":
        more = {"text": case.text, "seconds": case.seconds}
        return _call(pipeline.continue_, case.audio, {**more, **given})
    return _call(pipeline.convert, case.audio, given)


def _call(task: Callable[..., Any], subject: Any, options: Mapping[str, Any]) -> Any:
    return task(subject, **{name: value for name, value in options.items() if value is not None})


def seconds_to_first_chunk(pipeline: EvalPipeline, case: EvalCase) -> float | None:
    """Time until a streamed call gives its first piece of audio; the rest is not made.

    Returns:
        Seconds, or None where the task cannot be streamed, or where the first piece is the
        caller's own recording.
    """
    if case.task in ("edit", "continue"):
        return None
    start = time.perf_counter()
    try:
        pieces = iter(make_case(pipeline, case, stream=True))
        first = next(pieces, None)
    except UnsupportedCapability:
        return None
    seconds = time.perf_counter() - start
    if hasattr(pieces, "close"):
        pieces.close()
    return None if first is None else seconds
