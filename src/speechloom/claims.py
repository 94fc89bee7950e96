"""The refusals that every generator owes its callers, written once."""

from __future__ import annotations

from collections.abc import Sequence

from speechloom.errors import UnsupportedCapability, UsageError
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Canvas, Phones, Voice

__all__ = ["check_canvas", "check_phones"]


def check_canvas(spec: ComponentSpec, canvas: Canvas) -> GeneratorFacts:
    """Refuse a canvas that a generator's facts do not claim.

    Args:
        spec: of the generator.
        canvas: what it is asked to fill.

    Returns:
        The generator's facts.

    Raises:
        UnsupportedCapability: the task, the kind, the content or the voice is not claimed.
    """
    facts = spec.facts
    assert isinstance(facts, GeneratorFacts), f"{spec.id} is a {spec.kind}"
    free = canvas.content_kind is None and canvas.task in facts.free_tasks
    if canvas.task not in facts.tasks:
        problem = f"does {', '.join(facts.tasks)}, not {canvas.task}"
    elif canvas.gives != facts.gives or canvas.ids.shape[1] != facts.codebooks:
        problem = (
            f"gives {facts.gives} of {facts.codebooks} codebooks, not {canvas.gives} of "
            f"{canvas.ids.shape[1]}"
        )
    elif canvas.content_kind not in facts.content and not free:
        problem = f"takes {', '.join(facts.content)} to {canvas.task}, not {canvas.content_kind}"
    elif canvas.voices is not None and facts.voice is None:
        problem = "takes no voice; leave it out"
    elif canvas.voices is None and facts.voice_required:
        problem = f"needs a voice of kind {facts.voice}; give one"
    else:
        return facts
    raise UnsupportedCapability(f"{spec.id} {problem}")


def check_phones(
    spec: ComponentSpec,
    phones: Sequence[Phones],
    rate: float,
    voices: Sequence[Voice] | None = None,
) -> None:
    """Refuse phones or voices that a generator's facts do not claim, or a senseless tempo.

    Args:
        spec: of the generator.
        phones: whose durations are asked.
        rate: speed of speech.
        voices: whose voices, if any.

    Raises:
        UnsupportedCapability: it takes no phones, or those of another alphabet, or no voice.
        UsageError: the rate is not a positive number.
    """
    facts = spec.facts
    assert isinstance(facts, GeneratorFacts), f"{spec.id} is a {spec.kind}"
    for one in phones:
        if f"phones:{one.alphabet}" not in facts.content:
            raise UnsupportedCapability(
                f"{spec.id} takes {', '.join(facts.content)}, not phones:{one.alphabet}"
            )
    if voices is not None and facts.voice is None:
        raise UnsupportedCapability(f"{spec.id} takes no voice; leave it out")
    if not 0 < rate < float("inf"):
        raise UsageError(f"rate must be above 0, but is {rate}")
