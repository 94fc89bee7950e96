"""From sheets to filled canvases: the device half of every task.

Frame rates meet here and nowhere else. A frame belongs to what lies at its middle; a frame is known
only when all of it is. What is read off a recording is encoded from the very sample at which the
sheet's frame begins, so grids of any two rates agree to half a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar, cast

import torch

from speechloom.errors import PluginError
from speechloom.layout import Copy, Sheet, TimedPhone
from speechloom.parts import context_seconds
from speechloom.spec import (
    CodecFacts,
    ComponentSpec,
    Facts,
    FrontendFacts,
    GeneratorFacts,
    Task,
    TokenizerFacts,
)
from speechloom.units import nearest_frames, require_frames
from speechloom.values import Audio, Canvas, Codes, Features, Tokens, Voice, pad_stack

if TYPE_CHECKING:
    from speechloom.protocols import Codec, Generator, Tokenizer

__all__ = ["Filled", "Filler", "SheetJob"]

_F = TypeVar("_F", bound=Facts)

MAX_BATCH_FRAMES = 8000
"""Frames filled in one call; bounds memory, and on a CPU more at once is not faster."""


@dataclass(frozen=True)
class SheetJob:
    """A sheet and what its request says about it.

    Attributes:
        sheet: what is to be filled.
        source: the recording, mono; None where there is none.
        voice: whose voice; None for the generator's own.
        seed: of the request.
        temperature: of the request.
    """

    sheet: Sheet
    source: Audio | None
    voice: Voice | None
    seed: int
    temperature: float


@dataclass(frozen=True)
class Filled:
    """What came of one sheet.

    Attributes:
        tokens: int64 [F] content tokens at the rate of their generator, or None.
        token_kind: vocabulary, size and rate of `tokens`.
        result: codes int64 [K, F], features float32 [D, F], or audio.
        scales: float32 [F], what codes are played at; None where the codec decides.
    """

    result: torch.Tensor | Audio
    tokens: torch.Tensor | None = None
    token_kind: tuple[str, int, Fraction] | None = None
    scales: torch.Tensor | None = None

    def as_tokens(self) -> tuple[Tokens, ...]:
        """The tokens as a value of one item; empty when there are none."""
        if self.tokens is None or self.token_kind is None:
            return ()
        vocabulary, size, rate = self.token_kind
        return (Tokens(self.tokens[None], vocabulary, size, rate),)

    def as_codes(self, codec: str, codebook_size: int, frame_rate: Fraction) -> Codes:
        """The codes as a value of one item."""
        assert isinstance(self.result, torch.Tensor)
        scales = None if self.scales is None else self.scales[None]
        return Codes(self.result[None], codec, codebook_size, frame_rate, scales=scales)


@dataclass
class Filler:
    """Fills sheets with the generators of one chain.

    Attributes:
        task: which of the four.
        generator: fills the final canvas.
        content_generator: makes content tokens from phones, or None.
        tokenizer: reads content tokens off a recording, or None.
        codec: reads codes off a recording, or None.
        frontend: facts of the front end, for its phone ids, or None.
        progress: called with the number of sheets filled so far.
    """

    task: Task
    generator: Generator
    content_generator: Generator | None = None
    tokenizer: Tokenizer | None = None
    codec: Codec | None = None
    frontend: FrontendFacts | None = None
    progress: Callable[[int], None] | None = None
    done: int = field(default=0, init=False)

    def fill(self, jobs: Sequence[SheetJob]) -> list[Filled]:
        """Fill sheets in batches of similar length.

        Args:
            jobs: any number; of requests of one task.

        Returns:
            One per job, in their order. What a job gets does not depend on the others.
        """
        order = sorted(range(len(jobs)), key=lambda i: jobs[i].sheet.seconds)
        results: dict[int, Filled] = {}
        for batch in self._batches(jobs, order):
            for index, filled in zip(batch, self._fill([jobs[i] for i in batch]), strict=True):
                results[index] = filled
            self.done += len(batch)
            if self.progress:
                self.progress(self.done)
        return [results[i] for i in range(len(jobs))]

    def _batches(self, jobs: Sequence[SheetJob], order: Sequence[int]) -> list[list[int]]:
        rate = float(_facts(self.generator.spec, GeneratorFacts).frame_rate)
        batches: list[list[int]] = []
        for index in order:
            longest = float(jobs[index].sheet.seconds) * rate
            same = batches and _alike(jobs[batches[-1][0]], jobs[index])
            if same and (len(batches[-1]) + 1) * longest <= MAX_BATCH_FRAMES:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    def _fill(self, jobs: Sequence[SheetJob]) -> list[Filled]:
        facts = _facts(self.generator.spec, GeneratorFacts)
        tokens, kind = self._tokens(jobs)
        canvas = self._canvas(jobs, facts)
        if tokens is not None and kind is not None:
            canvas = _with_tokens(canvas, tokens, kind)
        elif self._hears_features:
            canvas = self._with_features(canvas, jobs)
        elif self.frontend is not None:
            canvas = _with_phones(canvas, jobs, self.frontend)
        canvas = self._with_known_codes(canvas, jobs, facts)
        canvas = _with_voices(canvas, jobs, facts)
        result = self.generator.fill(canvas)
        items = _items(result, canvas, self.generator.spec)
        scales = _scales(result, canvas)
        return [
            Filled(item, None if tokens is None else tokens[i], kind, scales[i])
            for i, item in enumerate(items)
        ]

    def _tokens(
        self, jobs: Sequence[SheetJob]
    ) -> tuple[list[torch.Tensor] | None, tuple[str, int, Fraction] | None]:
        """Content tokens of each sheet: made from phones, or read off the recording."""
        if self.content_generator is not None:
            facts = _facts(self.content_generator.spec, GeneratorFacts)
            canvas = self._canvas(jobs, facts)
            if self.frontend is not None:
                canvas = _with_phones(canvas, jobs, self.frontend)
            if self.tokenizer is not None:
                canvas = self._with_told_tokens(canvas, jobs)
            canvas = _with_voices(canvas, jobs, facts)
            giver = self.content_generator
            filled = _items(giver.fill(canvas), canvas, giver.spec)
            kind = (facts.gives.removeprefix("tokens:"), facts.codebook_size, facts.frame_rate)
            return [cast(torch.Tensor, item).reshape(-1) for item in filled], kind
        if self.tokenizer is not None and not self._hears_features:
            theirs = _facts(self.tokenizer.spec, TokenizerFacts)
            told = self._read_tokens(jobs, theirs)
            kind = (theirs.vocabulary, theirs.vocabulary_size, theirs.frame_rate)
            return [ids.clamp_min(0) for ids in told], kind
        return None, None

    def _canvas(self, jobs: Sequence[SheetJob], facts: GeneratorFacts) -> Canvas:
        """An empty canvas of the right size."""
        lengths = [frames_of(job.sheet.seconds, facts.frame_rate) for job in jobs]
        shape = (len(jobs), facts.codebooks, max(lengths))
        return Canvas(
            task=self.task,
            ids=torch.zeros(shape, dtype=torch.int64),
            known=torch.zeros(shape, dtype=torch.bool),
            lengths=torch.tensor(lengths, dtype=torch.int64),
            gives=facts.gives,
            codebook_size=facts.codebook_size,
            frame_rate=facts.frame_rate,
            seeds=torch.tensor([job.seed for job in jobs], dtype=torch.int64),
            items=torch.tensor([job.sheet.item for job in jobs], dtype=torch.int64),
            temperature=jobs[0].temperature,
        )

    # What is read off the recording -------------------------------------------------------

    @property
    def _hears_features(self) -> bool:
        """Whether the content is read off the recording as features."""
        if self.tokenizer is None:
            return False
        return _facts(self.tokenizer.spec, TokenizerFacts).form == "features"

    def _with_features(self, canvas: Canvas, jobs: Sequence[SheetJob]) -> Canvas:
        """Give each frame the features at its middle, 0 where the recording tells nothing."""
        assert self.tokenizer is not None
        facts = _facts(self.tokenizer.spec, TokenizerFacts)
        rows = []
        for values, frames in zip(
            self._read_features(jobs, facts), canvas.lengths.tolist(), strict=True
        ):
            at = nearest_frames(frames, canvas.frame_rate, facts.frame_rate, values.shape[1])
            rows.append(values[:, at])
        return replace(canvas, content=pad_stack(rows, 0.0), content_kind=facts.gives)

    def _read_features(self, jobs: Sequence[SheetJob], facts: TokenizerFacts) -> list[torch.Tensor]:
        """Features [D, F] of each sheet, 0 where the recording tells nothing."""
        sheets = [
            torch.zeros(facts.vocabulary_size, frames_of(job.sheet.seconds, facts.frame_rate))
            for job in jobs
        ]
        self._read(sheets, jobs, facts)
        return sheets

    def _read_tokens(self, jobs: Sequence[SheetJob], facts: TokenizerFacts) -> list[torch.Tensor]:
        """Ids [F] of each sheet, -1 where the recording tells nothing."""
        sheets = [
            torch.full((frames_of(job.sheet.seconds, facts.frame_rate),), -1, dtype=torch.int64)
            for job in jobs
        ]
        self._read(sheets, jobs, facts)
        return sheets

    def _read(
        self, sheets: Sequence[torch.Tensor], jobs: Sequence[SheetJob], facts: TokenizerFacts
    ) -> None:
        """Put what the tokenizer reads off the recordings on the sheets."""
        assert self.tokenizer is not None
        clips = _clips(jobs, [job.sheet.told for job in jobs], facts.frame_rate, facts)
        if not clips:
            return
        encoded = self.tokenizer.encode([clip.audio for clip in clips])
        if isinstance(encoded, Tokens):
            require_frames(encoded, "a canvas")
        for index, clip in enumerate(clips):
            _paste(sheets[clip.job], encoded.item(index), clip)

    def _with_told_tokens(self, canvas: Canvas, jobs: Sequence[SheetJob]) -> Canvas:
        assert self.tokenizer is not None
        told = self._read_tokens(jobs, _facts(self.tokenizer.spec, TokenizerFacts))
        ids = pad_stack(told, -1)[:, None]
        return replace(canvas, ids=ids.clamp_min(0), known=ids >= 0)

    def _with_known_codes(
        self, canvas: Canvas, jobs: Sequence[SheetJob], facts: GeneratorFacts
    ) -> Canvas:
        if self.codec is None or not any(job.sheet.known for job in jobs):
            return canvas
        theirs = _facts(self.codec.spec, CodecFacts)
        clips = _clips(jobs, [job.sheet.known for job in jobs], facts.frame_rate, theirs)
        if not clips:
            return canvas
        encoded = self.codec.encode([clip.audio for clip in clips])
        ids = torch.full(canvas.ids.shape, -1, dtype=torch.int64)
        batch, _, frames = ids.shape
        scales = None if encoded.scales is None else torch.zeros(batch, frames)
        for index, clip in enumerate(clips):
            _paste(ids[clip.job], encoded.item(index), clip)
            if scales is not None and encoded.scales is not None:
                _paste(scales[clip.job], encoded.scales[index], clip)
        return replace(canvas, ids=ids.clamp_min(0), known=ids >= 0, scales=scales)


def _alike(one: SheetJob, other: SheetJob) -> bool:
    """Whether one canvas can hold both: it has one temperature, and voices for all or for none."""
    return one.temperature == other.temperature and (one.voice is None) == (other.voice is None)


def frames_of(seconds: Fraction, frame_rate: Fraction) -> int:
    """Frames that cover a length completely; at least one."""
    return max(1, math.ceil(seconds * frame_rate))


def _facts(spec: ComponentSpec, kind: type[_F]) -> _F:
    assert isinstance(spec.facts, kind), f"{spec.id} is a {spec.kind}"
    return spec.facts


# Clips of the recording -------------------------------------------------------------------


@dataclass(frozen=True)
class _Clip:
    """A stretch of a recording to encode, and where its frames go."""

    job: int
    audio: Audio
    skip: int
    first: int
    frames: int


def _paste(sheet: torch.Tensor, encoded: torch.Tensor, clip: _Clip) -> None:
    """Put a clip's frames in place; the encoder may be a frame short at the end of a recording."""
    frames = encoded[..., clip.skip : clip.skip + clip.frames]
    sheet[..., clip.first : clip.first + frames.shape[-1]] = frames


def _clips(
    jobs: Sequence[SheetJob],
    copies: Sequence[Sequence[Copy]],
    rate: Fraction,
    facts: CodecFacts | TokenizerFacts,
) -> list[_Clip]:
    context = math.ceil(context_seconds(facts) * facts.frame_rate)
    clips = []
    for index, (job, theirs) in enumerate(zip(jobs, copies, strict=True)):
        for copy in theirs:
            clip = _clip(index, job, copy, rate, context)
            if clip is not None:
                clips.append(clip)
    return clips


def _clip(index: int, job: SheetJob, copy: Copy, rate: Fraction, context: int) -> _Clip | None:
    assert job.source is not None
    first = math.ceil(copy.at * rate)
    to_end = copy.end >= job.sheet.seconds
    stop = math.ceil(copy.end * rate) if to_end else math.floor(copy.end * rate)
    if stop <= first:
        return None
    start = copy.source + (Fraction(first) / rate - copy.at)
    before = min(context, math.floor(start * rate))
    begin = round((start - before / rate) * job.source.sample_rate)
    end = round((start + (stop - first + context) / rate) * job.source.sample_rate)
    if begin >= job.source.length:
        return None
    audio = job.source.slice(begin, min(max(end, begin + 1), job.source.length))
    return _Clip(index, audio, before, first, stop - first)


# Content and voice ------------------------------------------------------------------------


def _with_tokens(
    canvas: Canvas, tokens: Sequence[torch.Tensor], kind: tuple[str, int, Fraction]
) -> Canvas:
    """Give each frame the token at its middle."""
    vocabulary, _, rate = kind
    rows = []
    for ids, frames in zip(tokens, canvas.lengths.tolist(), strict=True):
        rows.append(ids[nearest_frames(frames, canvas.frame_rate, rate, len(ids))])
    return replace(canvas, content=pad_stack(rows, -1), content_kind=f"tokens:{vocabulary}")


def _with_phones(canvas: Canvas, jobs: Sequence[SheetJob], frontend: FrontendFacts) -> Canvas:
    ids = {symbol: i for i, symbol in enumerate(frontend.phones)}
    rows = [
        _phone_frames(job.sheet.phones, frames, canvas.frame_rate, ids)
        for job, frames in zip(jobs, canvas.lengths.tolist(), strict=True)
    ]
    return replace(
        canvas,
        content=pad_stack([row[0] for row in rows], -1),
        segments=pad_stack([row[1] for row in rows], -1),
        content_kind=frontend.gives,
    )


def _phone_frames(
    phones: Sequence[TimedPhone], frames: int, rate: Fraction, ids: Mapping[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The phone at the middle of each frame, and its number; -1 where nothing is said."""
    content = torch.full((frames,), -1, dtype=torch.int64)
    segments = torch.full((frames,), -1, dtype=torch.int64)
    half = Fraction(1, 2)
    for number, phone in enumerate(phones):
        first = max(0, math.ceil(phone.start * rate - half))
        stop = min(frames, math.ceil(phone.end * rate - half))
        content[first:stop] = ids[phone.symbol]
        segments[first:stop] = number
    return content, segments


def _with_voices(canvas: Canvas, jobs: Sequence[SheetJob], facts: GeneratorFacts) -> Canvas:
    """Give the voices to a generator that takes that kind; jobs of one canvas all have one."""
    voices = [job.voice for job in jobs if job.voice is not None and job.voice.kind == facts.voice]
    if len(voices) < len(jobs):
        return canvas
    return replace(canvas, voices=torch.stack([torch.from_numpy(v.vector.copy()) for v in voices]))


# Results ----------------------------------------------------------------------------------


def _items(
    result: Codes | Tokens | Features | list[Audio], canvas: Canvas, spec: ComponentSpec
) -> Sequence[torch.Tensor | Audio]:
    """The items without padding; a generator that changed what is known is at fault."""
    if isinstance(result, list):
        return result
    if isinstance(result, Features):
        return [result.values[i, :, :n] for i, n in enumerate(result.lengths.tolist())]
    ids = result.ids if isinstance(result, Codes) else result.ids[:, None]
    if ids.shape != canvas.ids.shape or not torch.equal(
        ids[canvas.known], canvas.ids[canvas.known]
    ):
        raise PluginError(
            f"generator {spec.id} returned {list(ids.shape)} for a canvas {list(canvas.ids.shape)} "
            "or changed known positions; it breaks the protocol, report it to its author",
            plugin=f"generator/{spec.id}",
        )
    return [ids[i, :, :n] for i, n in enumerate(canvas.lengths.tolist())]


def _scales(
    result: Codes | Tokens | Features | list[Audio], canvas: Canvas
) -> Sequence[torch.Tensor | None]:
    """What the codes of each item are played at, float32 [F]; None where the codec decides.

    A generator that gives no scales leaves the loudness to the recording: what is made is played
    at the mean of what is known.
    """
    if isinstance(result, Codes) and result.scales is not None:
        scales = result.scales
    elif canvas.scales is not None:
        heard = canvas.scales > 0
        mean = canvas.scales.sum(1, keepdim=True) / heard.sum(1, keepdim=True).clamp_min(1)
        scales = torch.where(heard, canvas.scales, mean)
    else:
        return [None] * canvas.batch
    rows = [scales[i, :n] for i, n in enumerate(canvas.lengths.tolist())]
    return [row if bool((row > 0).any()) else None for row in rows]
