"""One typical call of each kind of component, and comparing what calls return."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from speechloom.spec import GeneratorFacts, Kind
from speechloom.testing.canvases import CanvasItem, codes_for, features_for, make_canvas
from speechloom.testing.checks.table import NotApplicable, Subject, require
from speechloom.values import Phones

__all__ = ["assert_same", "content_kinds", "leaves", "typical_call", "utterances"]


def typical_call(subject: Subject) -> Callable[[], object]:
    """A call with inputs of about a second; each use of it makes the same call."""
    return _TYPICAL[subject.spec.kind](subject)


def content_kinds(facts: GeneratorFacts) -> list[tuple[Any, str | None]]:
    """Every (task, content kind) that a generator claims."""
    with_content = [(task, kind) for task in facts.tasks for kind in facts.content]
    return with_content + [(task, None) for task in facts.free_tasks]


def utterances(subject: Subject, alphabet: str, *counts: int) -> list[Phones]:
    """Utterances of so many phones each."""
    made = [subject.inputs.phones(alphabet, n, number=i) for i, n in enumerate(counts)]
    why = (
        f"no installed front end has the alphabet {alphabet!r}; "
        "give its phones as `Inputs(symbols=...)`"
    )
    return [require(one, why) for one in made]


def _tokenizer(subject: Subject) -> Callable[[], object]:
    audio = [subject.inputs.audio(0.7, number=i) for i in range(2)]
    return lambda: subject.component.encode(audio)


def _codec(subject: Subject) -> Callable[[], object]:
    audio = [subject.inputs.audio(0.7, number=i) for i in range(2)]
    codes = codes_for(subject.facts, [9, 5])
    return lambda: (subject.component.encode(audio), subject.component.decode(codes))


def _generator(subject: Subject) -> Callable[[], object]:
    task, kind = content_kinds(subject.facts)[0]
    canvas = make_canvas(subject.facts, task, kind, [CanvasItem(24, 1), CanvasItem(17, 2)])
    return lambda: subject.component.fill(canvas)


def _vocoder(subject: Subject) -> Callable[[], object]:
    features = features_for(subject.facts, [24, 17])
    return lambda: subject.component.render(features)


def _frontend(subject: Subject) -> Callable[[], object]:
    text = subject.inputs.text(subject.facts.languages)
    phones = [phone for phone in subject.facts.phones if phone != subject.facts.pause]
    text = text or f"[[{phones[0]} {phones[-1]}]]"
    return lambda: subject.component.phonemize(text)


def _speaker_encoder(subject: Subject) -> Callable[[], object]:
    if not subject.facts.recordings:
        names = subject.facts.named_voices
        return lambda: [subject.component.named(name) for name in names]
    seconds = max(1.0, 1.2 * subject.facts.min_seconds)
    audio = [subject.inputs.audio(seconds, number=i) for i in range(2)]
    return lambda: subject.component.embed(audio)


def _aligner(subject: Subject) -> Callable[[], object]:
    audio = subject.inputs.audio(2.0)
    phones = utterances(subject, subject.facts.alphabet, 6, 4)
    return lambda: subject.component.align(audio, phones)


_TYPICAL: Mapping[Kind, Callable[[Subject], Callable[[], object]]] = {
    "tokenizer": _tokenizer,
    "codec": _codec,
    "generator": _generator,
    "vocoder": _vocoder,
    "frontend": _frontend,
    "speaker_encoder": _speaker_encoder,
    "aligner": _aligner,
}


def leaves(value: object) -> Iterator[object]:
    """Everything in a result: tensors, arrays, numbers, text, in order."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from leaves(value[key])
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        yield len(value)
        for part in value:
            yield from leaves(part)
    else:
        yield value


def assert_same(one: object, other: object, what: str, *, tolerance: float = 1e-5) -> None:
    """Two results agree: ids, lengths and text exactly, samples within a tolerance."""
    firsts, seconds = list(leaves(one)), list(leaves(other))
    assert len(firsts) == len(seconds), f"{what}: results of different sizes"
    for a, b in zip(firsts, seconds, strict=True):
        if isinstance(a, (torch.Tensor, np.ndarray)):
            _assert_arrays(_array(a), _array(b), what, tolerance)
        elif isinstance(a, float) and isinstance(b, float):
            assert abs(a - b) <= tolerance, f"{what}: {a} against {b}"
        else:
            assert a == b, f"{what}: {a!r} against {b!r}"


def _array(value: object) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        return np.asarray(value.detach().cpu().numpy())
    return np.asarray(value)


def _assert_arrays(a: NDArray[Any], b: NDArray[Any], what: str, tolerance: float) -> None:
    assert a.shape == b.shape, f"{what}: shape {list(a.shape)} against {list(b.shape)}"
    assert a.dtype == b.dtype, f"{what}: {a.dtype} against {b.dtype}"
    if np.issubdtype(a.dtype, np.floating):
        worst = float(np.abs(a - b).max(initial=0.0))
        assert worst <= tolerance, f"{what}: values differ by {worst:.3g}, more than {tolerance}"
    else:
        differing = int(np.count_nonzero(a != b))
        assert differing == 0, f"{what}: {differing} of {a.size} values differ"


def skip_without(condition: object, why: str) -> None:
    """The check does not apply unless the condition holds."""
    if not condition:
        raise NotApplicable(why)
