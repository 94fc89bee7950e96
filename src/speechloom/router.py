"""Finds the chain from a request to audio, from declared facts alone.

Nothing is loaded here. The search goes backwards from audio: every generator that claims the task,
what can play what it gives, what can give the content that it takes, what can give its voice. A
generator that fits nowhere leaves a sentence with the two facts that disagree; when no chain is
left, those sentences are the answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from speechloom.chain import ROLES, Chain, Role, in_hertz
from speechloom.errors import RoutingError, UsageError
from speechloom.spec import (
    TASKS,
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    Kind,
    SpeakerEncoderFacts,
    Task,
    TokenizerFacts,
    VocoderFacts,
)

__all__ = ["find_chain"]

SpecsOf = Callable[[Kind], Sequence[ComponentSpec]]
Part = TypeVar("Part")


def find_chain(
    task: Task,
    specs_of: SpecsOf,
    *,
    wanted: Mapping[Role, str] | None = None,
    has_text: bool = True,
    has_spans: bool = False,
    has_voice: bool = False,
    policy: Callable[[list[Chain]], Sequence[Chain] | None] | None = None,
) -> Chain:
    """The best chain for a task.

    Args:
        task: which of the four.
        specs_of: usable components by kind.
        wanted: component ids by role that the chain must use.
        has_text: whether the request says in words what is to be made, or to convert, what is said.
        has_spans: whether an edit says where in seconds, so that nothing need be aligned.
        has_voice: whether a voice is asked for.
        policy: may reorder the chains that were found; the first one wins.

    Returns:
        A chain whose weights are at hand before one that must fetch some; of these, the one with
        the fewest components; then one whose vocoder is made for its features; ties go to the
        first ids in the alphabet.

    Raises:
        UsageError: no such task.
        RoutingError: no chain fits; the message says which facts disagree and what would fit.
    """
    if task not in TASKS:
        raise UsageError(f"no task is called {task!r}; the tasks are {', '.join(TASKS)}")
    search = _Search(task, specs_of, dict(wanted or {}), has_text, has_spans, has_voice)
    chains = sorted(search.chains(), key=_preference)
    if not chains:
        raise _refusal(search)
    chosen = (policy(chains) if policy else None) or chains
    return chosen[0]


def _preference(chain: Chain) -> tuple[int, int, int, int, tuple[str, ...]]:
    specs = chain.parts.values()
    to_fetch = sum(not spec.has_weights_at_hand for spec in specs)
    fallbacks = sum(isinstance(s.facts, VocoderFacts) and s.facts.any_mel for s in specs)
    ids = tuple(spec.id for spec in specs)
    return to_fetch, len(chain.parts), len(chain.bridges), fallbacks, ids


def _refusal(search: _Search) -> RoutingError:
    reasons = tuple(dict.fromkeys(search.reasons))
    if not reasons:
        reasons = ("no generator is installed; install one, such as speechloom-starter",)
    lines = "; ".join(reasons[:4])
    more = f"; and {len(reasons) - 4} more reasons" if len(reasons) > 4 else ""
    return RoutingError(f"no chain can {search.task}: {lines}{more}", reasons=reasons)


@dataclass
class _Search:
    """One search; `reasons` fills with what did not fit."""

    task: Task
    specs_of: SpecsOf
    wanted: dict[Role, str]
    has_text: bool
    has_spans: bool
    has_voice: bool

    def __post_init__(self) -> None:
        self.reasons: list[str] = []

    def chains(self) -> Iterator[Chain]:
        for generator in self._candidates("generator"):
            facts = cast(GeneratorFacts, generator.facts)
            if facts.gives.startswith("tokens:"):
                if self.wanted.get("generator") == generator.id:
                    self._no(
                        f"generator {generator.id} gives {facts.gives}, which nothing plays; "
                        "it belongs in the place content_generator"
                    )
                continue
            if self._claims_task(generator, facts):
                found = self._with_generator(generator, facts)
                yield from (chain for chain in found if self._uses_all(chain))

    def _uses_all(self, chain: Chain) -> bool:
        """Whether every part that was asked for has its place; a wish is never dropped."""
        idle = [role for role in self.wanted if role not in chain]
        for role in idle:
            self._no(
                f"with generator {chain.spec('generator').id} nothing is left to do for {role} "
                f"{self.wanted[role]}"
            )
        return not idle

    def _claims_task(self, spec: ComponentSpec, facts: GeneratorFacts) -> bool:
        if self.task in facts.tasks:
            return True
        self._no(f"generator {spec.id} does {', '.join(facts.tasks)}, not {self.task}")
        return False

    def _with_generator(self, spec: ComponentSpec, facts: GeneratorFacts) -> Iterator[Chain]:
        base = Chain(self.task, {"generator": spec})
        for played in self._played(base, spec, facts):
            for voiced in self._voiced(played, spec, facts):
                yield from self._with_content(voiced, spec, facts)

    # What plays the result ----------------------------------------------------------------

    def _played(self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts) -> Iterator[Chain]:
        if facts.gives == "audio":
            if self.task in ("edit", "continue"):
                self._no(f"generator {spec.id} gives audio and cannot keep what is known of it")
            elif not self._unused(("codec", "vocoder"), spec, "gives audio itself"):
                yield chain
        elif facts.gives.startswith("codes:"):
            yield from self._with_codec(chain, spec, facts)
        elif self.task in ("edit", "continue"):
            self._no(
                f"generator {spec.id} gives {facts.gives}, and recordings cannot be brought into "
                f"that form to {self.task} them"
            )
        else:
            yield from self._with_vocoder(chain, spec, facts)

    def _with_codec(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        if self._unused(("vocoder",), spec, f"gives {facts.gives}, which a codec plays"):
            return
        codecs = [(c, cast(CodecFacts, c.facts)) for c in self._candidates("codec")]
        fitting = [c for c, f in codecs if f.takes == facts.gives]
        for codec, theirs in codecs:
            if theirs.takes != facts.gives:
                self._no(
                    f"generator {spec.id} gives {facts.gives}, but codec {codec.id} plays "
                    f"{theirs.takes}{self._would_fit('codec', facts.gives)}"
                )
        for codec in fitting:
            if self._same_layout(spec, facts, codec, cast(CodecFacts, codec.facts)):
                yield _with(chain, "codec", codec)
        if not codecs and "codec" not in self.wanted:
            self._no(f"generator {spec.id} gives {facts.gives}, and no codec is installed")

    def _would_fit(self, kind: Kind, takes: str) -> str:
        fits = [
            s.id
            for s in self.specs_of(kind)
            if isinstance(s.facts, (CodecFacts, VocoderFacts)) and s.facts.takes == takes
        ]
        return f"; {kind} {' or '.join(fits)} would fit" if fits else ""

    def _same_layout(
        self, spec: ComponentSpec, ours: GeneratorFacts, codec: ComponentSpec, theirs: CodecFacts
    ) -> bool:
        facts: tuple[tuple[str, Any, Any], ...] = (
            ("frame rate", ours.frame_rate, theirs.frame_rate),
            ("codebooks", ours.codebooks, theirs.codebooks),
            ("ids per codebook", ours.codebook_size, theirs.codebook_size),
        )
        for name, mine, other in facts:
            if mine != other:
                self._no(
                    f"{name}: generator {spec.id} has {mine}, but codec {codec.id} has {other}"
                )
                return False
        return True

    def _with_vocoder(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        if self._unused(("codec",), spec, f"gives {facts.gives}, which a vocoder plays"):
            return
        vocoders = self._candidates("vocoder")
        if not vocoders and "vocoder" not in self.wanted:
            self._no(f"generator {spec.id} gives {facts.gives}, and no vocoder is installed")
        for vocoder in vocoders:
            theirs = cast(VocoderFacts, vocoder.facts).playing(facts.gives)
            if theirs.takes == facts.gives and theirs.frame_rate == facts.frame_rate:
                yield _with(chain, "vocoder", vocoder.model_copy(update={"facts": theirs}))
            else:
                self._no(
                    f"generator {spec.id} gives {facts.gives} at {in_hertz(facts.frame_rate)}, but "
                    f"vocoder {vocoder.id} takes {theirs.takes} at {in_hertz(theirs.frame_rate)}"
                    f"{self._would_fit('vocoder', facts.gives)}"
                )

    # Whose voice it has -------------------------------------------------------------------

    def _voiced(self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts) -> Iterator[Chain]:
        if facts.voice is None:
            if self.has_voice:
                self._no(f"generator {spec.id} takes no voice, but one was asked for")
            elif not self._unused(("speaker_encoder",), spec, "takes no voice"):
                yield chain
            return
        found = False
        for encoder in self._candidates("speaker_encoder"):
            theirs = cast(SpeakerEncoderFacts, encoder.facts)
            if theirs.voice == facts.voice:
                found = True
                yield _with(chain, "speaker_encoder", encoder)
            else:
                self._no(
                    f"generator {spec.id} takes voice {facts.voice}, but speaker encoder "
                    f"{encoder.id} gives {theirs.voice}"
                )
        if not found and not (
            facts.voice_required or self.has_voice or "speaker_encoder" in self.wanted
        ):
            yield chain
        elif not found:
            self._no(
                f"generator {spec.id} takes voice {facts.voice}, and no speaker encoder gives it"
            )

    # What it says -------------------------------------------------------------------------

    def _with_content(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        if self.task == "convert":
            yield from self._content_of_recording(chain, spec, facts)
        elif self.has_text:
            yield from self._content_of_text(chain, spec, facts)
        elif self.task in facts.free_tasks:
            roles: tuple[Role, ...] = ("frontend", "aligner", "tokenizer", "content_generator")
            if not self._unused(roles, spec, f"needs no content to {self.task}"):
                yield chain
        else:
            self._no(f"generator {spec.id} cannot {self.task} without text")

    def _content_of_recording(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        if any(kind.startswith("phones:") for kind in facts.content):
            said = list(self._content_of_transcript(chain, spec, facts))
            yield from said
            # A transcript was not given to be ignored.
            if said or all(kind.startswith("phones:") for kind in facts.content):
                return
        roles: tuple[Role, ...] = ("frontend", "aligner", "content_generator")
        if self._unused(roles, spec, "takes its content from the recording"):
            return
        for tokenizer in self._candidates("tokenizer"):
            theirs = cast(TokenizerFacts, tokenizer.facts)
            if theirs.gives in facts.content:
                yield _bridged(_with(chain, "tokenizer", tokenizer), theirs, facts)
            else:
                self._no(
                    f"generator {spec.id} takes {_any(facts.content)}, but tokenizer "
                    f"{tokenizer.id} gives {theirs.gives}"
                )
        if not self.specs_of("tokenizer"):
            self._no(f"generator {spec.id} takes {_any(facts.content)}, and no tokenizer gives it")

    def _content_of_transcript(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        """Phones in the timing of the recording, in which an aligner finds them."""
        if not self.has_text:
            self._no(
                f"generator {spec.id} takes {_any(facts.content)}, so to convert a recording its "
                "transcript (text) is needed"
            )
            return
        roles: tuple[Role, ...] = ("tokenizer", "content_generator")
        if not self._unused(roles, spec, "takes phones itself"):
            yield from self._spoken(chain, facts.content, spec)

    def _content_of_text(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        if any(kind.startswith("phones:") for kind in facts.content):
            if not self._unused(("content_generator",), spec, "takes phones itself"):
                yield from self._spoken(chain, facts.content, spec)
        for vocabulary in (kind for kind in facts.content if kind.startswith("tokens:")):
            yield from self._content_by_generator(chain, spec, facts, vocabulary)

    def _content_by_generator(
        self, chain: Chain, spec: ComponentSpec, facts: GeneratorFacts, vocabulary: str
    ) -> Iterator[Chain]:
        found = False
        for giver in self._candidates("content_generator"):
            theirs = cast(GeneratorFacts, giver.facts)
            if theirs.gives != vocabulary:
                if self.wanted.get("content_generator") == giver.id:
                    self._no(
                        f"generator {spec.id} takes {vocabulary}, but {giver.id} gives "
                        f"{theirs.gives}"
                    )
                continue
            found = True
            if not self._claims_task(giver, theirs) or not self._voice_fits(giver, theirs, facts):
                continue
            with_giver = _bridged(_with(chain, "content_generator", giver), theirs, facts)
            for known in self._known_tokens(with_giver, giver, theirs):
                yield from self._spoken(known, theirs.content, giver)
        if not found:
            self._no(
                f"generator {spec.id} takes {vocabulary}, and no installed generator makes that "
                "from text"
            )

    def _voice_fits(
        self, giver: ComponentSpec, theirs: GeneratorFacts, facts: GeneratorFacts
    ) -> bool:
        """One voice serves both generators; one that can do without is given none of a stranger."""
        if not theirs.voice_required or theirs.voice == facts.voice:
            return True
        self._no(
            f"generator {giver.id} needs voice {theirs.voice}, but the generator after it takes "
            f"{f'voice {facts.voice}' if facts.voice else 'none'}"
        )
        return False

    def _known_tokens(
        self, chain: Chain, giver: ComponentSpec, facts: GeneratorFacts
    ) -> Iterator[Chain]:
        """Where part of the recording stays, its tokens must be read off it."""
        if self.task == "synthesize":
            if not self._unused(("tokenizer",), giver, "synthesizes from text alone"):
                yield chain
            return
        if not self.specs_of("tokenizer"):
            self._no(
                f"generator {giver.id} gives {facts.gives}, and no tokenizer reads that off the "
                "recording"
            )
        for tokenizer in self._candidates("tokenizer"):
            theirs = cast(TokenizerFacts, tokenizer.facts)
            if theirs.gives == facts.gives and theirs.frame_rate == facts.frame_rate:
                yield _with(chain, "tokenizer", tokenizer)
            else:
                self._no(
                    f"generator {giver.id} gives {facts.gives} at {in_hertz(facts.frame_rate)}, "
                    f"but tokenizer {tokenizer.id} gives {theirs.gives} at "
                    f"{in_hertz(theirs.frame_rate)}"
                )

    def _spoken(
        self, chain: Chain, content: tuple[str, ...], taker: ComponentSpec
    ) -> Iterator[Chain]:
        for frontend in self._candidates("frontend"):
            theirs = cast(FrontendFacts, frontend.facts)
            if theirs.gives in content:
                yield from self._aligned(_with(chain, "frontend", frontend), theirs)
            else:
                self._no(
                    f"generator {taker.id} takes {_any(content)}, but front end {frontend.id} "
                    f"gives {theirs.gives}"
                )
        if not self.specs_of("frontend"):
            self._no(f"generator {taker.id} takes {_any(content)}, and no front end is installed")

    def _aligned(self, chain: Chain, frontend: FrontendFacts) -> Iterator[Chain]:
        if self.task not in ("edit", "convert") or self.has_spans:
            yield chain
            return
        found = False
        for aligner in self._candidates("aligner"):
            theirs = cast(AlignerFacts, aligner.facts)
            if theirs.alphabet == frontend.alphabet:
                found = True
                yield _with(chain, "aligner", aligner)
            else:
                self._no(
                    f"the front end gives phones:{frontend.alphabet}, but aligner {aligner.id} "
                    f"takes phones:{theirs.alphabet}"
                )
        if not found:
            self._no(
                f"no aligner for phones:{frontend.alphabet} is installed, so the words cannot be "
                "found in the recording; give the spans in seconds instead"
            )

    # The pool -----------------------------------------------------------------------------

    def _candidates(self, role: Role) -> Sequence[ComponentSpec]:
        kind = ROLES[role]
        specs = self.specs_of(kind)
        wanted = self.wanted.get(role)
        if wanted is None:
            return specs
        chosen = [spec for spec in specs if spec.id == wanted]
        if not chosen:
            self._no(_unknown(wanted, kind, specs))
        return chosen

    def _unused(self, roles: Sequence[Role], spec: ComponentSpec, why: str) -> bool:
        """Whether the user asked for a part that this chain has no place for."""
        idle = [role for role in roles if role in self.wanted]
        for role in idle:
            self._no(f"generator {spec.id} {why}, so {role} {self.wanted[role]} has no place")
        return bool(idle)

    def _no(self, reason: str) -> None:
        self.reasons.append(reason)


def _unknown(wanted: str, kind: Kind, specs: Sequence[ComponentSpec]) -> str:
    ids = [spec.id for spec in specs]
    close = difflib.get_close_matches(wanted, ids, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"no {kind} {wanted} is installed (installed: {', '.join(ids) or 'none'}){hint}"


def _with(chain: Chain, role: Role, spec: ComponentSpec) -> Chain:
    return replace(chain, parts={**chain.parts, role: spec})


def _bridged(chain: Chain, source: TokenizerFacts | GeneratorFacts, to: GeneratorFacts) -> Chain:
    if source.frame_rate == to.frame_rate:
        return chain
    kind = source.gives
    bridge = (
        f"{kind} {in_hertz(source.frame_rate)} -> {in_hertz(to.frame_rate)}, by the frame in time"
    )
    return replace(chain, bridges=(*chain.bridges, bridge))


def _any(kinds: Sequence[str]) -> str:
    return " or ".join(kinds) or "no content"
