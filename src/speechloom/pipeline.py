"""The one path from a request to speech: prepare, fill, play.

`Pipeline` keeps the choice of components and their loaded weights; the functions `synthesize`,
`edit`, `continue_` and `convert` of the package are the same on a pipeline of all defaults.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, overload

from speechloom.chain import ROLES, Chain, Role
from speechloom.container import AudioLike
from speechloom.errors import RoutingError, UsageError
from speechloom.hooks import Hooks, default_hooks
from speechloom.registry import Registry, default_registry
from speechloom.requesting import (
    STYLES,
    Style,
    check_request,
    lexicon_of,
    requests_of,
    spans_of,
    style_of,
)
from speechloom.router import find_chain
from speechloom.spec import Task
from speechloom.speech import Alignment, Request, Span, Speech
from speechloom.values import Audio, Codes, joined

if TYPE_CHECKING:
    from speechloom.filling import Filled, Filler
    from speechloom.parts import Parts
    from speechloom.preparing import Prepared

__all__ = ["STYLES", "Pipeline", "Progress", "Style"]


@dataclass(frozen=True)
class Progress:
    """One step of the work, for hooks and progress bars.

    Attributes:
        task: which of the four.
        stage: ``prepare``, ``fill`` or ``play``.
        done: steps done.
        total: steps in all.
    """

    task: Task
    stage: str
    done: int
    total: int


@dataclass
class Pipeline:
    """A choice of components, ready for requests.

    Args:
        device: where the models run: ``cpu`` (the default, also where there is a GPU), ``cuda``.
        registry: where components come from; the installed ones by default.
        hooks: who is told what happens; the installed ones by default.
        parts: component ids by role, such as ``{"codec": "dac-24k"}``; what is not named is
            found by the router.

    Raises:
        UsageError: a role that does not exist.
    """

    device: str = "cpu"
    registry: Registry = field(default_factory=default_registry)
    hooks: Hooks = field(default_factory=default_hooks)
    parts: Mapping[Role, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(ROLES))
        if unknown:
            raise UsageError(
                f"no role is called {', '.join(unknown)}; the roles are {', '.join(ROLES)}"
            )

    def plan(
        self, task: Task, *, text: bool = True, spans: bool = False, voice: bool = False
    ) -> Chain:
        """The chain that would do a task, found without loading anything.

        Args:
            task: which of the four.
            text: whether the request has text; only ``continue`` can do without.
            spans: whether an edit is given in seconds.
            voice: whether a voice is asked for.

        Raises:
            RoutingError: no chain fits.
        """
        try:
            return find_chain(
                task,
                self.registry.specs,
                wanted=self.parts,
                has_text=text,
                has_spans=spans,
                has_voice=voice or task == "convert",
                policy=self.hooks.router_policy,
            )
        except RoutingError:
            self._check_usable()
            raise

    def _check_usable(self) -> None:
        """A part that was asked for and is installed, but broken, has a cause worth more.

        Raises:
            PluginError: naming it.
        """
        for role, id_ in self.parts.items():
            kind = ROLES[role]
            found = [r for r in self.registry.records(kind) if id_ in (r.id, r.full_id)]
            if found and not any(record.status.usable for record in found):
                self.registry.load(kind, id_, device=self.device)

    # The four tasks -----------------------------------------------------------------------

    @overload
    def synthesize(  # type: ignore[overload-overlap]  # a str is a Sequence[str], and goes first
        self, text: str, *, voice: Any = ..., style: Style = ..., seed: int | None = ...,
        temperature: float = ..., lexicon: Mapping[str, Sequence[str]] | None = ...,
        stream: Literal[False] = ...,
    ) -> Speech: ...  # fmt: skip
    @overload
    def synthesize(
        self, text: Sequence[str], *, voice: Any = ..., style: Style = ...,
        seed: int | Sequence[int] | None = ..., temperature: float = ...,
        lexicon: Mapping[str, Sequence[str]] | None = ..., stream: Literal[False] = ...,
    ) -> list[Speech]: ...  # fmt: skip
    @overload
    def synthesize(
        self, text: str, *, voice: Any = ..., style: Style = ..., seed: int | None = ...,
        temperature: float = ..., lexicon: Mapping[str, Sequence[str]] | None = ...,
        stream: Literal[True],
    ) -> Iterator[Audio]: ...  # fmt: skip

    def synthesize(
        self,
        text: Any,
        *,
        voice: Any = None,
        style: Style = None,
        seed: Any = None,
        temperature: float = 1.0,
        lexicon: Mapping[str, Sequence[str]] | None = None,
        stream: bool = False,
    ) -> Any:
        """Speech from text.

        Args:
            text: one text or a list; any length, split by sentence. ``[[hh ax l ow]]`` gives
                phones.
            voice: a named voice, a recording (file, `Audio`, (samples, rate)) or a vector [D];
                one for all, or a list as long as `text`. The default is the first named voice.
            style: ``slow``, ``fast``, a speed factor, or controls by name such as
                ``{"rate": 1.1}``.
            seed: one for all, or one each; drawn anew when None, and returned in the result.
            temperature: scales the randomness; 0 takes the most likely at each step.
            lexicon: pronunciations by lower-case word.
            stream: yield `Audio` chunks as they are made; joined they equal the whole.

        Returns:
            A `Speech`, a list of them for a list, or an iterator of chunks.

        Raises:
            TextError: nothing to say, or a script that the front end does not know.
            RoutingError: no installed chain can do it.
        """
        return self._run(
            "synthesize", stream, {"text": text, "voice": voice, "seed": seed},
            style=style_of(style), temperature=temperature, lexicon=lexicon_of(lexicon),
        )  # fmt: skip

    def edit(
        self,
        audio: AudioLike | Sequence[AudioLike],
        *,
        text: Any = None,
        new_text: Any = None,
        spans: Sequence[tuple[float, float, str]] = (),
        voice: Any = None,
        style: Style = None,
        seed: Any = None,
        temperature: float = 1.0,
        lexicon: Mapping[str, Sequence[str]] | None = None,
        stream: bool = False,
    ) -> Any:
        """Change what is said in a recording; the rest of its samples stay bit for bit.

        Args:
            audio: the recording, or a list; any rate and channels, which the result keeps.
            text: its transcript.
            new_text: the transcript as it should be; words may be added, removed, replaced, in
                several places.
            spans: instead of the transcripts, (start, end, new words) in seconds; no words
                remove the span, start equal to end inserts.
            voice: another voice for the new words; by default the recording's own.
            style: as for `synthesize`; ``rate`` is relative to the tempo of the recording.
            seed: as for `synthesize`.
            temperature: as for `synthesize`.
            lexicon: as for `synthesize`.
            stream: yield chunks.

        Returns:
            A `Speech` whose `regions` are what was generated.

        Raises:
            UsageError: nothing differs, or a span is out of order or outside the recording.
        """
        return self._run(
            "edit", stream,
            {"audio": audio, "text": text, "new_text": new_text, "voice": voice, "seed": seed},
            style=style_of(style), temperature=temperature, lexicon=lexicon_of(lexicon),
            spans=spans_of(spans),
        )  # fmt: skip

    def continue_(
        self,
        audio: AudioLike | Sequence[AudioLike],
        *,
        text: Any = None,
        seconds: float | None = None,
        voice: Any = None,
        style: Style = None,
        seed: Any = None,
        temperature: float = 1.0,
        lexicon: Mapping[str, Sequence[str]] | None = None,
        stream: bool = False,
    ) -> Any:
        """Go on where a recording ends; its samples stay bit for bit.

        Args:
            audio: the recording, or a list.
            text: the words that follow; without it speech-like sound in the same voice follows.
            seconds: how much to add (3 by default); with `text`, the time its words take.
            voice: another voice; by default the recording's own.
            style: as for `synthesize`.
            seed: as for `synthesize`.
            temperature: as for `synthesize`.
            lexicon: as for `synthesize`.
            stream: yield chunks, the recording first.

        Returns:
            A `Speech` that begins with the recording.

        Raises:
            UsageError: not a positive number of seconds, or more than one canvas holds.
        """
        return self._run(
            "continue", stream, {"audio": audio, "text": text, "voice": voice, "seed": seed},
            style=style_of(style), temperature=temperature, lexicon=lexicon_of(lexicon),
            seconds=seconds,
        )  # fmt: skip

    def convert(
        self,
        audio: AudioLike | Sequence[AudioLike],
        *,
        voice: Any,
        text: Any = None,
        seed: Any = None,
        temperature: float = 1.0,
        lexicon: Mapping[str, Sequence[str]] | None = None,
        stream: bool = False,
    ) -> Any:
        """The same words and timing in another voice.

        Args:
            audio: the recording, or a list; any length.
            voice: whose voice: a recording, a named voice or a vector [D].
            text: its transcript, for generators that take phones: those are found in the
                recording and said again in its timing. The others need none.
            seed: as for `synthesize`.
            temperature: as for `synthesize`.
            lexicon: as for `synthesize`.
            stream: yield chunks.

        Returns:
            A `Speech` of the same duration, at the rate of what plays it, mono.

        Raises:
            UsageError: a transcript for a generator that reads the recording itself.
        """
        return self._run(
            "convert", stream, {"audio": audio, "text": text, "voice": voice, "seed": seed},
            temperature=temperature, lexicon=lexicon_of(lexicon),
        )  # fmt: skip

    def run(self, request: Request) -> Speech:
        """Do one request whose every field is filled in.

        Args:
            request: see `Request`; replaying one with the same weights makes the same samples.
        """
        return self._finish([request])[0]

    # How they run -------------------------------------------------------------------------

    def _run(self, task: Task, stream: bool, each: dict[str, Any], **shared: Any) -> Any:
        requests, many = requests_of(task, each, shared)
        if stream:
            if many:
                raise UsageError("stream=True takes one request; loop over the list to stream each")
            return self._stream(requests[0])
        speeches = self._finish(requests)
        return speeches if many else speeches[0]

    def _start(self, requests: Sequence[Request]) -> Parts:
        from speechloom.parts import Parts

        for request in requests:
            check_request(request)
        first = requests[0]
        has_text = (first.text is not None) or bool(first.spans)
        if any((one.text is None) != (first.text is None) for one in requests):
            raise UsageError("some of the requests have text and some have none; run them apart")
        for request in requests:
            self.hooks.before_task(request)
        has_voice = any(request.voice is not None for request in requests)
        chain = self.plan(first.task, text=has_text, spans=bool(first.spans), voice=has_voice)
        return Parts(chain, self.registry, self.device)

    def _stream(self, request: Request) -> Iterator[Audio]:
        parts = self._start([request])  # refuses before torch is imported
        from speechloom.preparing import prepare
        from speechloom.rendering import render

        prepared = prepare(request, parts)
        filler = self._filler(parts, len(prepared.jobs))
        one_by_one = (filler.fill([job])[0] for job in prepared.jobs)
        return render(prepared.layout, one_by_one, _player(parts), prepared.canvas_audio)

    def _finish(self, requests: Sequence[Request]) -> list[Speech]:
        clock = _Clock()
        with clock("load"):
            parts = self._start(requests)  # refuses before torch is imported
            from speechloom.preparing import prepare

            for role in parts.chain.parts:
                parts.load(role)
        with clock("prepare"):
            prepared = []
            for request in requests:
                prepared.append(prepare(request, parts))
                self._report(request, "prepare", len(prepared), len(requests))
        with clock("fill"):
            jobs = [job for one in prepared for job in one.jobs]
            filled = self._filler(parts, len(jobs)).fill(jobs)
        speeches = []
        at = 0
        for one in prepared:
            theirs = filled[at : at + len(one.jobs)]
            at += len(one.jobs)
            with clock("play"):
                audio = self._played(one, theirs, parts)
            speech = _speech(one, theirs, audio, parts, dict(clock.seconds))
            speeches.append(speech)
            self._report(one.request, "play", len(speeches), len(requests))
            self.hooks.after_task(one.request, speech)
        return speeches

    def _played(self, one: Prepared, filled: Sequence[Filled], parts: Parts) -> Audio:
        from speechloom.rendering import render

        audio = joined(render(one.layout, iter(filled), _player(parts), one.canvas_audio))
        subtype = one.source.subtype if one.source is not None else None
        return Audio(audio.samples, audio.sample_rate, subtype)

    def _report(self, request: Request, stage: str, done: int, total: int) -> None:
        self.hooks.progress(Progress(request.task, stage, done, total))

    def _filler(self, parts: Parts, sheets: int) -> Filler:
        from speechloom.filling import Filler

        task = parts.chain.task

        def report(done: int) -> None:
            self.hooks.progress(Progress(task, "fill", done, sheets))

        return Filler(
            task,
            parts.generator,
            parts.content_generator,
            parts.tokenizer,
            parts.codec,
            parts.frontend_facts,
            report,
        )


class _Clock:
    """Adds up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = ""
        self._since = 0.0

    def __call__(self, stage: str) -> _Clock:
        self._stage = stage
        return self

    def __enter__(self) -> None:
        self._since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        spent = time.perf_counter() - self._since
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + spent


# Results ----------------------------------------------------------------------------------


def _player(parts: Parts) -> Any:
    from speechloom.rendering import Player

    return Player(parts.generator, parts.codec, parts.vocoder)


def _speech(
    one: Prepared,
    filled: Sequence[Filled],
    audio: Audio,
    parts: Parts,
    timings: Mapping[str, float],
) -> Speech:
    from speechloom.provenance import provenance_of
    from speechloom.rendering import regions_of

    facts = parts.generator_facts
    codes: tuple[Codes, ...] = ()
    if facts.gives.startswith("codes:"):
        name = facts.gives.removeprefix("codes:")
        codes = tuple(
            f.as_codes(name, facts.codebook_size, facts.frame_rate)
            for f in filled
            if not isinstance(f.result, Audio)
        )
    return Speech(
        audio=audio,
        seed=one.request.seed,
        regions=regions_of(one.layout, one.source, audio.sample_rate),
        alignment=_alignment(one),
        tokens=tuple(tokens for f in filled for tokens in f.as_tokens()),
        codes=codes,
        provenance=provenance_of(one.request, parts),
        timings=timings,
    )


def _alignment(one: Prepared) -> Alignment:
    """Words and phones of what was made, and the words that stayed, in order of time."""
    from speechloom.layout import Make

    layout, kept = one.layout, one.kept_words
    length = 0 if one.source is None else Fraction(one.source.length, one.source.sample_rate)
    words, phones = list(kept), []
    at = 0.0
    for piece in layout.pieces:
        if isinstance(piece, Make):
            sheet = layout.sheets[piece.sheet]
            shift = at - float(piece.start)
            words += [Span(t, float(a) + shift, float(b) + shift) for t, a, b in sheet.words]
            phones += [
                Span(p.symbol, float(p.start) + shift, float(p.end) + shift)
                for p in sheet.phones
                if p.start >= piece.start and p.end <= piece.end
            ]
            at += float(piece.seconds)
        else:
            at += float((length if piece.end is None else piece.end) - piece.start)
    ordered = sorted(words, key=lambda span: span.start_seconds)
    return Alignment(tuple(ordered), tuple(phones))
