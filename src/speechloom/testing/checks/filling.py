"""Checks for generators: every canvas that they claim, and a refusal of every other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import nan
from typing import Any

import torch

from speechloom.errors import UnsupportedCapability, UsageError
from speechloom.spec import TASKS, GeneratorFacts
from speechloom.testing.canvases import CanvasItem, make_canvas
from speechloom.testing.checks.outcomes import assert_same, content_kinds, skip_without, utterances
from speechloom.testing.checks.table import NotApplicable, Subject, check, refuses
from speechloom.values import Audio, Canvas, Codes, Features, Phones, Tokens, samples_at

ITEMS = (CanvasItem(24, seed=1), CanvasItem(9, seed=2), CanvasItem(17, seed=3, item=2))


@check("generator")
def check_fills_every_claimed_canvas(subject: Subject) -> None:
    """Each claimed task with each claimed content gives its kind, lengths, range and padding."""
    for canvas in _claimed(subject, ITEMS):
        result = subject.component.fill(canvas)
        _assert_layout(subject, canvas, result)


@check("generator")
def check_keeps_what_is_known(subject: Subject) -> None:
    """Known positions come back unchanged, in every task that has some."""
    _skip_without_ids(subject.facts)
    checked = False
    for canvas in _claimed(subject, ITEMS):
        if not bool(canvas.known.any()):
            continue
        checked = True
        ids = _ids(subject.component.fill(canvas))
        changed = int((ids[canvas.known] != canvas.ids[canvas.known]).sum())
        assert changed == 0, f"{changed} known positions were changed in {_name(canvas)}"
    skip_without(checked, "no task that it claims has known positions")


@check("generator")
def check_leaves_a_full_canvas_as_it_is(subject: Subject) -> None:
    """A canvas with nothing to fill comes back as it is."""
    _skip_without_ids(subject.facts)
    for canvas in _claimed(subject, ITEMS[:1]):
        full = replace(canvas, known=torch.ones_like(canvas.known))
        ids = _ids(subject.component.fill(full))
        assert torch.equal(ids, full.ids), f"a full canvas is changed in {_name(canvas)}"


@check("generator")
def check_fills_a_batch_like_singles(subject: Subject) -> None:
    """Items of different lengths are filled the same together and alone."""
    for task, kind in content_kinds(subject.facts):
        together = subject.component.fill(make_canvas(subject.facts, task, kind, ITEMS))
        for index, item in enumerate(ITEMS):
            alone = subject.component.fill(make_canvas(subject.facts, task, kind, [item]))
            what = f"item {index} of a batch and alone ({task}, {kind})"
            assert_same(_item(alone, 0), _item(together, index), what, tolerance=1e-4)


@check("generator")
def check_fills_one_frame(subject: Subject) -> None:
    """A canvas of a single frame is filled."""
    for canvas in _claimed(subject, [CanvasItem(1)]):
        _assert_layout(subject, canvas, subject.component.fill(canvas))


@check("generator")
def check_fills_a_long_canvas(subject: Subject) -> None:
    """A canvas of ``max_seconds`` (at most 20 s here) is filled."""
    seconds = min(subject.facts.max_seconds, subject.inputs.long_seconds, 20.0)
    frames = max(1, int(seconds * subject.facts.frame_rate))
    canvas = next(iter(_claimed(subject, [CanvasItem(frames)])))
    _assert_layout(subject, canvas, subject.component.fill(canvas))


@check("generator")
def check_same_seed_same_result(subject: Subject) -> None:
    """The seed and the item number decide the result, all of it."""
    task, kind = content_kinds(subject.facts)[0]
    fills = [
        subject.component.fill(make_canvas(subject.facts, task, kind, [CanvasItem(20, seed=7)]))
        for _ in range(2)
    ]
    assert_same(fills[0], fills[1], "the same seed twice")


@check("generator")
def check_other_seed_other_result(subject: Subject) -> None:
    """Another seed, or another item number, gives another draw."""
    _skip_without_ids(subject.facts)
    task, kind = content_kinds(subject.facts)[0]
    variants = {
        "seeds": [CanvasItem(40, seed=seed) for seed in (1, 2, 3)],
        "item numbers": [CanvasItem(40, seed=1, item=item) for item in (0, 1, 2)],
    }
    for name, items in variants.items():
        canvases = [make_canvas(subject.facts, task, kind, [item]) for item in items]
        results = [_ids(subject.component.fill(c))[~c.known] for c in canvases]
        same = all(torch.equal(results[0], other) for other in results[1:])
        assert not same, f"three different {name} give the same result"


@check("generator")
def check_refuses_unclaimed_tasks(subject: Subject) -> None:
    """A canvas of a task that it does not claim is an `UnsupportedCapability`."""
    unclaimed = [task for task in TASKS if task not in subject.facts.tasks]
    skip_without(unclaimed, "it claims all tasks")
    canvas = next(iter(_claimed(subject, ITEMS[:1])))
    for task in unclaimed:
        _refuses_canvas(subject, replace(canvas, task=task), f"the task {task}")


@check("generator")
def check_refuses_unclaimed_content(subject: Subject) -> None:
    """Content of another kind, or none where some is needed, is an `UnsupportedCapability`."""
    facts = subject.facts
    for task in facts.tasks:
        for kind in ("phones:not-an-alphabet", "tokens:not-a-vocabulary"):
            canvas = make_canvas(facts, task, kind, ITEMS[:1])
            _refuses_canvas(subject, canvas, f"content {kind} to {task}")
        if task not in facts.free_tasks:
            canvas = make_canvas(facts, task, None, ITEMS[:1])
            _refuses_canvas(subject, canvas, f"no content to {task}")


@check("generator")
def check_refuses_unclaimed_voices(subject: Subject) -> None:
    """A voice that it cannot take, or none where it needs one, is an `UnsupportedCapability`."""
    facts = subject.facts
    task, kind = content_kinds(facts)[0]
    canvas = make_canvas(facts, task, kind, ITEMS[:1])
    if facts.voice is None:
        _refuses_canvas(subject, replace(canvas, voices=torch.ones(1, 4)), "a voice")
    elif facts.voice_required:
        _refuses_canvas(subject, replace(canvas, voices=None), "no voice")
    else:
        without = make_canvas(facts, task, kind, ITEMS[:1], voice=False)
        _assert_layout(subject, without, subject.component.fill(without))


@check("generator")
def check_refuses_foreign_canvases(subject: Subject) -> None:
    """A canvas of codes or tokens that it does not make is a `UsageError`."""
    canvas = next(iter(_claimed(subject, ITEMS[:1])))
    foreign = replace(canvas, gives="codes:not-a-codec")
    refuses(lambda: subject.component.fill(foreign), UsageError, "a canvas of another codec")


@check("generator")
def check_gives_durations(subject: Subject) -> None:
    """Each phone lasts at least one frame; without phones in its facts it refuses to say."""
    facts, component = subject.facts, subject.component
    alphabets = _alphabets(facts)
    foreign = [Phones(("a", "b"), "not-an-alphabet")]
    refuses(lambda: component.durations(foreign), UnsupportedCapability, "a foreign alphabet")
    for alphabet in alphabets:
        phones = utterances(subject, alphabet, 7, 3)
        durations = component.durations(phones)
        assert [len(d) for d in durations] == [7, 3], f"durations of {durations} phones"
        whole = all(isinstance(n, int) and n >= 1 for one in durations for n in one)
        assert whole, f"durations must be integers of at least 1: {durations}"
        alone = [component.durations([one])[0] for one in phones]
        assert alone == durations, "durations of a batch differ from those alone"
        first, again = (component.durations(phones, seed=3) for _ in range(2))
        assert first == again, "the same seed gave other durations"


@check("generator")
def check_durations_follow_the_rate(subject: Subject) -> None:
    """Where ``rate`` is a claimed style, faster is shorter; otherwise another rate is refused."""
    alphabets = _alphabets(subject.facts)
    skip_without(alphabets, "it takes no phones")
    phones, component = utterances(subject, alphabets[0], 24), subject.component
    if "rate" not in subject.facts.styles:
        slow = "a rate of 0.5 without the style `rate`"
        refuses(lambda: component.durations(phones, rate=0.5), UnsupportedCapability, slow)
        return
    slow, normal, fast = (sum(component.durations(phones, rate=r)[0]) for r in (0.5, 1.0, 2.0))
    assert slow > normal >= fast, f"rates 0.5, 1 and 2 last {slow}, {normal} and {fast} frames"
    # Rounding moves each phone by at most half a frame, and none lasts less than one.
    assert abs(slow - 2 * normal) <= 1.5 * 24, f"rate 0.5 lasts {slow} frames, not 2 x {normal}"
    for rate in (0.0, -1.0, nan):
        refuses(partial(component.durations, phones, rate=rate), UsageError, f"rate {rate}")


def _claimed(subject: Subject, items: Sequence[CanvasItem]) -> list[Canvas]:
    facts = subject.facts
    return [make_canvas(facts, task, kind, items) for task, kind in content_kinds(facts)]


def _name(canvas: Canvas) -> str:
    return f"{canvas.task} with {canvas.content_kind or 'no content'}"


def _alphabets(facts: GeneratorFacts) -> list[str]:
    return [kind.removeprefix("phones:") for kind in facts.content if kind.startswith("phones:")]


def _skip_without_ids(facts: GeneratorFacts) -> None:
    if not facts.gives.startswith(("codes:", "tokens:")):
        raise NotApplicable(f"it gives {facts.gives}, which has no ids")


def _refuses_canvas(subject: Subject, canvas: Canvas, what: str) -> None:
    refuses(lambda: subject.component.fill(canvas), UnsupportedCapability, what)


def _ids(result: object) -> torch.Tensor:
    """Ids [B, K, F] of what was filled in."""
    if isinstance(result, Codes):
        return result.ids
    assert isinstance(result, Tokens), f"fill gives {type(result)}, not Codes or Tokens"
    return result.ids[:, None]


def _item(result: Any, index: int) -> object:
    if isinstance(result, Features):
        return result.values[index, :, : int(result.lengths[index])]
    return result[index] if isinstance(result, list) else result.item(index)


def _assert_layout(subject: Subject, canvas: Canvas, result: object) -> None:
    facts: GeneratorFacts = subject.facts
    if facts.gives == "audio":
        _assert_audio(facts, canvas, result)
        return
    assert isinstance(result, (Codes, Tokens, Features)), f"fill gives {type(result)}"
    what = _name(canvas)
    assert result.kind == facts.gives, f"{what} gives {result.kind}, not {facts.gives}"
    assert result.frame_rate == facts.frame_rate, f"{what} has rate {result.frame_rate}"
    assert torch.equal(result.lengths.cpu(), canvas.lengths), f"{what} has other lengths"
    values = result.values if isinstance(result, Features) else _ids(result)
    rows, frames = canvas.batch, canvas.ids.shape[-1]
    assert (values.shape[0], values.shape[-1]) == (rows, frames), f"{what}: {list(values.shape)}"
    if not isinstance(result, Features):
        assert values.shape == canvas.ids.shape, f"{what}: {list(values.shape)}"
        size = result.codebook_size if isinstance(result, Codes) else result.vocabulary_size
        assert size == facts.codebook_size, f"{what} has ids up to {size}"
    for row, length in enumerate(canvas.lengths.tolist()):
        assert not bool(values[row, :, length:].any()), f"padding is not 0 in {what}"


def _assert_audio(facts: GeneratorFacts, canvas: Canvas, result: object) -> None:
    assert isinstance(result, list), f"fill gives {type(result)}, not a list of Audio"
    assert facts.sample_rate is not None
    assert len(result) == canvas.batch, f"{len(result)} recordings for {canvas.batch} items"
    for audio, frames in zip(result, canvas.lengths.tolist(), strict=True):
        assert isinstance(audio, Audio), f"fill gives {type(audio)}, not Audio"
        expected = samples_at(frames, facts.sample_rate, facts.frame_rate)
        assert audio.sample_rate == facts.sample_rate, f"rate is {audio.sample_rate} Hz"
        assert audio.length == expected, f"{frames} frames give {audio.length}, not {expected}"
