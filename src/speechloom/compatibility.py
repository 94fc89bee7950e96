"""Which tokenizer, codec and generator go together, from declared facts alone; loads no torch.

`compatibility_table` asks the router for every tokenizer x codec x generator x task and writes what
it says as Markdown: the chain that it takes, or the facts that disagree. `generator_between` gives
the facts of a generator that would join a tokenizer and a codec, trained by whoever has the data;
with it any pair becomes a composition that the router plans like every other.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from speechloom.chain import Chain, Role, in_hertz
from speechloom.errors import RoutingError, UsageError
from speechloom.records import GROUPS
from speechloom.router import find_chain
from speechloom.spec import (
    KINDS,
    TASKS,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    Kind,
    SpeakerEncoderFacts,
    Task,
    TokenizerFacts,
)

__all__ = [
    "SPEECHSEC_PAIRS",
    "Composition",
    "compatibility_table",
    "generator_between",
    "specs_in_folder",
]

Specs = Mapping[Kind, Sequence[ComponentSpec]]


@dataclass(frozen=True)
class Composition:
    """A tokenizer for what is said, and a codec for how it sounds.

    Attributes:
        name: for people.
        tokenizer: id of the tokenizer.
        codec: id of the codec.
    """

    name: str
    tokenizer: str
    codec: str


SPEECHSEC_PAIRS = (
    Composition(
        "SpeechTokenizer + SpeechTokenizer",
        "speechtokenizer-hubert-avg-units",
        "speechtokenizer-hubert-avg",
    ),
    Composition("SpeechTokenizer + DAC", "speechtokenizer-hubert-avg-units", "dac-16khz"),
    Composition("HuBERT + DAC", "hubert-base-ls960-l9-km500", "dac-16khz"),
)
"""The three pairs that the figure of SpeechSEC draws."""


def generator_between(
    source: ComponentSpec,
    target: ComponentSpec,
    *,
    id: str,
    implementation: str,
    voice: ComponentSpec | None = None,
    tasks: Sequence[Task] = TASKS,
    max_seconds: float = 30.0,
    license: str = "Apache-2.0",
    options: Mapping[str, Any] | None = None,
) -> ComponentSpec:
    """The spec of a generator from what one component gives to what another one takes.

    From a tokenizer to a codec it makes units sound; from a front end to a tokenizer it makes units
    of text. With both, a pair of tokenizer and codec does all four tasks.

    Args:
        source: a front end or a tokenizer.
        target: a codec, whose frame rate and codebooks the generator has; or a tokenizer, whose
            units it gives.
        id: of the generator.
        implementation: ``package.module:Class``.
        voice: the speaker encoder whose vectors it takes; None when it takes none.
        tasks: those that it was trained for. One that gives units converts nothing; one that gives
            codes continues without content.
        max_seconds: the longest canvas that it fills well.
        license: SPDX id of the code.
        options: of the implementation.

    Raises:
        UsageError: a spec is of another kind than its place.
    """
    given, wanted = source.facts, target.facts
    voices = voice.facts if voice else None
    if not (
        isinstance(given, (FrontendFacts, TokenizerFacts))
        and isinstance(wanted, (TokenizerFacts, CodecFacts))
        and (voices is None or isinstance(voices, SpeakerEncoderFacts))
    ):
        raise UsageError(
            "a generator leads from a front end or tokenizer to a tokenizer or codec, with the "
            f"voice of a speaker encoder, not from {source.kind} {source.id} to {target.kind} "
            f"{target.id}{f' with {voice.kind} {voice.id}' if voice else ''}"
        )
    to_codes = isinstance(wanted, CodecFacts)
    done: tuple[Task, ...] = tuple(task for task in tasks if to_codes or task != "convert")
    return ComponentSpec(
        id=id,
        implementation=implementation,
        summary=f"{source.id} to {target.id}"[:120],
        license=license,
        options=dict(options or {}),
        facts=GeneratorFacts(
            tasks=done,
            content=(given.gives,),
            gives=wanted.takes if isinstance(wanted, CodecFacts) else wanted.gives,
            frame_rate=wanted.frame_rate,
            codebooks=wanted.codebooks if isinstance(wanted, CodecFacts) else 1,
            codebook_size=(
                wanted.codebook_size if isinstance(wanted, CodecFacts) else wanted.vocabulary_size
            ),
            free_tasks=("continue",) if to_codes and "continue" in done else (),
            voice=voices.voice if voices else None,
            voice_size=voices.size if voices else None,
            max_seconds=max_seconds,
        ),
    )


# The table --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    """One use of a generator, as the router is asked for it."""

    title: str
    task: Task
    has_text: bool = True


CASES = (
    _Case("synthesize", "synthesize"),
    _Case("edit", "edit"),
    _Case("continue, with text", "continue"),
    _Case("continue, without text", "continue", has_text=False),
    _Case("convert", "convert"),
)


def compatibility_table(specs: Specs) -> str:
    """Every tokenizer x codec x generator x task, as a page of Markdown.

    Args:
        specs: components by kind, installed or not.
    """
    # In the order in which the registry gives them, by which the router settles ties.
    specs = {kind: _of(specs, kind) for kind in KINDS}
    lines = [
        "# What goes together",
        "",
        "<!-- Written by `speechloom plugins table`; do not edit. -->",
        "",
        "From the facts that the components declare, before any weight is loaded. A number stands "
        "for the chain or the refusal below its table.",
        "",
        *_components(specs),
    ]
    for generator in _of(specs, "generator"):
        if not cast(GeneratorFacts, generator.facts).gives.startswith("tokens:"):
            lines += [f"## Generator {generator.id}", "", *_grids(specs, generator)]
    return "\n".join([*lines, *_compositions(specs)]).rstrip() + "\n"


def _of(specs: Specs, kind: Kind) -> Sequence[ComponentSpec]:
    return sorted(specs.get(kind, ()), key=lambda spec: spec.id)


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _head(*cells: object) -> list[str]:
    return [_row(*cells), f"|{'---|' * len(cells)}"]


def _components(specs: Specs) -> list[str]:
    """What each tokenizer, codec and generator takes and gives."""
    lines = ["## Components", "", *_head("tokenizer", "gives", "ids", "frame rate")]
    for spec in _of(specs, "tokenizer"):
        units = cast(TokenizerFacts, spec.facts)
        size = units.vocabulary_size
        lines.append(_row(f"`{spec.id}`", f"`{units.gives}`", size, in_hertz(units.frame_rate)))
    lines += ["", *_head("codec", "takes", "codebooks", "frame rate", "sample rate")]
    for spec in _of(specs, "codec"):
        codes = cast(CodecFacts, spec.facts)
        books = f"{codes.codebooks} x {codes.codebook_size}"
        rates = in_hertz(codes.frame_rate), f"{codes.sample_rate} Hz"
        lines.append(_row(f"`{spec.id}`", f"`{codes.takes}`", books, *rates))
    lines += ["", *_head("generator", "takes", "gives", "tasks")]
    for spec in _of(specs, "generator"):
        facts = cast(GeneratorFacts, spec.facts)
        takes = ", ".join(f"`{kind}`" for kind in facts.content)
        lines.append(_row(f"`{spec.id}`", takes, f"`{facts.gives}`", ", ".join(facts.tasks)))
    return [*lines, ""]


def _grids(specs: Specs, generator: ComponentSpec) -> list[str]:
    """For each case a table of tokenizers by codecs, and what its numbers stand for."""
    lines = []
    codecs = _of(specs, "codec")
    for case in CASES:
        notes: dict[str, int] = {}
        lines += [f"### {case.title}", "", *_head("", *(f"`{codec.id}`" for codec in codecs))]
        for tokenizer in _of(specs, "tokenizer"):
            cells = []
            for codec in codecs:
                wanted: dict[Role, str] = {"generator": generator.id, "codec": codec.id}
                wanted["tokenizer"] = tokenizer.id
                works, note = _answer(specs, case, wanted)
                # A tokenizer that has no place is no obstacle: the chain is made without it.
                number = notes.setdefault(note, len(notes) + 1)
                cells.append(f"**yes** {number}" if works else f"no {number}")
            lines.append(_row(f"`{tokenizer.id}`", *cells))
        lines += ["", *(f"{number}. {note}" for note, number in notes.items()), ""]
    return lines


def _answer(specs: Specs, case: _Case, wanted: Mapping[Role, str]) -> tuple[bool, str]:
    """Whether there is a chain, and the chain or why there is none."""
    try:
        chain = _planned(specs, case, wanted)
    except RoutingError as error:
        return False, error.reasons[0]
    return True, _shown(chain)


def _planned(specs: Specs, case: _Case, wanted: Mapping[Role, str]) -> Chain:
    """The chain with the parts that are wanted, or without the tokenizer if it has no place."""

    def search(parts: Mapping[Role, str]) -> Chain:
        return find_chain(
            case.task,
            lambda kind: specs.get(kind, ()),
            wanted=parts,
            has_text=case.has_text,
        )

    try:
        return search(wanted)
    except RoutingError as error:
        if not any("has no place" in r or "nothing is left to do" in r for r in error.reasons):
            raise
        return search({role: id_ for role, id_ in wanted.items() if role != "tokenizer"})


def _shown(chain: Chain) -> str:
    links = ", ".join(f"{link.role.replace('_', ' ')} `{link.spec.id}`" for link in chain.links)
    return "; ".join([links, *chain.bridges])


def _compositions(specs: Specs) -> list[str]:
    """The pairs of SpeechSEC, with generators of the facts that join them."""
    known = {spec.id: spec for kind in ("tokenizer", "codec") for spec in specs.get(kind, ())}
    pairs = [p for p in SPEECHSEC_PAIRS if p.tokenizer in known and p.codec in known]
    if not pairs:
        return []
    lines = [
        "## The pairs of SpeechSEC",
        "",
        "What the router says once generators are trained for a pair: "
        "`speechloom.compatibility.generator_between` makes their specs.",
        "",
    ]
    for pair in pairs:
        tokenizer, codec = known[pair.tokenizer], known[pair.codec]
        together = {**specs, "generator": _trained(specs, tokenizer, codec)}
        wanted: dict[Role, str] = {"tokenizer": tokenizer.id, "codec": codec.id}
        lines += [f"### {pair.name}", "", *_head("task", "", "chain, or what is missing")]
        for case in CASES:
            works, note = _answer(together, case, wanted)
            lines.append(_row(case.title, "**yes**" if works else "no", note))
        lines.append("")
    return lines


def _trained(
    specs: Specs, tokenizer: ComponentSpec, codec: ComponentSpec
) -> Sequence[ComponentSpec]:
    """Generators for a pair: units to codes, and text to units for each front end."""
    implementation = "not.trained.yet:Generator"  # never imported: only facts are compared
    sounds = generator_between(
        tokenizer, codec, id="pair-units-to-codes", implementation=implementation
    )
    speaks = [
        generator_between(
            frontend, tokenizer, id="pair-text-to-units", implementation=implementation
        )
        for frontend in _of(specs, "frontend")[:1]
    ]
    return [sounds, *speaks]


# Specs that are not installed -------------------------------------------------------------


def specs_in_folder(folder: Path) -> dict[Kind, list[ComponentSpec]]:
    """The specs that the plugins in a source folder announce, without installing them.

    Args:
        folder: holds one project a folder, each with ``pyproject.toml`` and ``src``.

    Raises:
        UsageError: there is no plugin, or this Python cannot read ``pyproject.toml``.
    """
    try:
        tomllib: Any = importlib.import_module("tomllib")
    except ModuleNotFoundError as error:
        raise UsageError(
            "reading plugins from their source folders needs Python 3.11 or later"
        ) from error

    specs: dict[Kind, list[ComponentSpec]] = {}
    for path in sorted(folder.glob("*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        points = project.get("entry-points", {})
        with _importable(path.parent / "src"):
            for kind, group in GROUPS.items():
                for value in points.get(group, {}).values():
                    module, _, name = value.partition(":")
                    spec = getattr(importlib.import_module(module), name)
                    specs.setdefault(kind, []).append(spec)
    if not specs:
        raise UsageError(f"{folder} holds no plugins: no */pyproject.toml announces a component")
    return specs


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
