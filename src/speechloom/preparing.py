"""From a request to its layout: the host half of every task.

Everything that needs the front end, the aligner or the speaker encoder happens here, once and in
order; what comes out is a `Prepared` request that only has to be filled and played.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from speechloom.container import load_audio
from speechloom.errors import TextError, UsageError
from speechloom.filling import SheetJob
from speechloom.layout import Layout, TimedPhone
from speechloom.parts import Parts
from speechloom.requesting import FASTEST, SLOWEST
from speechloom.spec import AlignerFacts, FrontendFacts, SpeakerEncoderFacts
from speechloom.speech import Request, Span
from speechloom.tasks import continuation, convert, edit, synthesize
from speechloom.values import Audio, Phones, Voice

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONTEXT_SECONDS", "Prepared", "prepare"]

CONTEXT_SECONDS = 3.0
"""How much of a recording a generator sees beside what it makes; 3 to 5 s carry a voice."""

VOICE_SECONDS = 30.0
"""The longest stretch of a recording that a voice is taken from."""

Times = list[tuple[Fraction, Fraction]]


@dataclass(frozen=True)
class Prepared:
    """A request that only has to be filled and played.

    Attributes:
        request: as it was made.
        layout: what is kept and what is made.
        source: the recording in the caller's own format, or None.
        jobs: one per sheet of the layout.
        kept_words: words of the recording that stay, at their place in the result.
    """

    request: Request
    layout: Layout
    source: Audio | None
    jobs: tuple[SheetJob, ...]
    kept_words: tuple[Span, ...] = ()

    @property
    def canvas_audio(self) -> Audio | None:
        """The recording whose format the result has; None where the codec's own is used."""
        return None if self.request.task == "convert" else self.source


def prepare(request: Request, parts: Parts) -> Prepared:
    """Lay out one request.

    Raises:
        UsageError: something about the request is wrong; see the tasks.
    """
    parts.check_styles(dict(request.style))
    source = None if request.audio is None else load_audio(request.audio)
    mono = None if source is None else source.mono()
    voice = _voice(request, parts, mono)
    layout, kept = _LAYOUTS[request.task](request, parts, mono, voice)
    jobs = tuple(
        SheetJob(sheet, mono, voice, request.seed, request.temperature) for sheet in layout.sheets
    )
    return Prepared(request, layout, source, jobs, kept)


# Voice ------------------------------------------------------------------------------------


def _voice(request: Request, parts: Parts, source: Audio | None) -> Voice | None:
    encoder = parts.speaker_encoder
    if encoder is None:
        return None
    facts = cast(SpeakerEncoderFacts, encoder.spec.facts)
    wanted = request.voice
    if wanted is None:
        return _default_voice(request, parts, facts, source)
    if isinstance(wanted, Voice):
        return _checked(wanted, facts)
    if isinstance(wanted, (str, os.PathLike)):
        return _voice_by_name(os.fspath(wanted), parts, facts)
    vector = wanted.detach().cpu().numpy() if hasattr(wanted, "detach") else wanted
    if isinstance(vector, (np.ndarray, list)):
        return _checked(Voice(_numbers(vector), facts.voice), facts)
    return _voice_of(load_audio(wanted), parts)


def _numbers(vector: Any) -> NDArray[np.float32]:
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        raise UsageError(f"a voice must be a vector of numbers [D], not {vector!r:.80}") from None


def _default_voice(
    request: Request, parts: Parts, facts: SpeakerEncoderFacts, source: Audio | None
) -> Voice | None:
    if request.task == "convert":
        named = (
            f" or one of the voices {', '.join(facts.named_voices)}" if facts.named_voices else ""
        )
        raise UsageError(f"convert needs a voice: a recording of it{named}")
    if source is not None:
        return _voice_of(source, parts)
    if facts.named_voices and parts.speaker_encoder:
        return parts.speaker_encoder.named(facts.named_voices[0])
    if parts.generator_facts.voice_required:
        raise UsageError("this generator needs a voice: give a recording of it")
    return None


def _voice_by_name(name: str, parts: Parts, facts: SpeakerEncoderFacts) -> Voice:
    assert parts.speaker_encoder is not None
    if name in facts.named_voices:
        return parts.speaker_encoder.named(name)
    if not Path(name).exists() and not any(mark in name for mark in "/\\."):
        known = ", ".join(facts.named_voices) or "none"
        raise UsageError(f"voice {name!r} is neither a file nor a named voice; those are {known}")
    return _voice_of(load_audio(name), parts)


def _voice_of(audio: Audio, parts: Parts) -> Voice:
    assert parts.speaker_encoder is not None
    longest = int(VOICE_SECONDS * audio.sample_rate)
    return parts.speaker_encoder.embed([audio.mono().slice(0, min(longest, audio.length))])[0]


def _checked(voice: Voice, facts: SpeakerEncoderFacts) -> Voice:
    if voice.kind != facts.voice or voice.vector.size != facts.size:
        raise UsageError(
            f"the voice is a {voice.kind} vector of {voice.vector.size} values, but this chain "
            f"takes {facts.voice} of {facts.size}"
        )
    return voice


# Layouts ----------------------------------------------------------------------------------

_Laid = tuple[Layout, tuple[Span, ...]]


def _lay_synthesize(
    request: Request, parts: Parts, source: Audio | None, voice: Voice | None
) -> _Laid:
    sentences = _spoken(request, parts, request.text or "")
    frames = _durations(request, parts, sentences, _rate(request), voice)
    rate = parts.speaker_facts.frame_rate
    layout = synthesize.plan(sentences, frames, frame_rate=rate, max_seconds=parts.max_seconds)
    return layout, ()


def _lay_convert(
    request: Request, parts: Parts, source: Audio | None, voice: Voice | None
) -> _Laid:
    assert source is not None
    length = Fraction(source.length, source.sample_rate)
    longest, quiet = parts.max_seconds, _quiet(source)
    if request.text is None:
        return convert.plan(length, max_seconds=longest, quiet=quiet), ()
    if parts.frontend_facts is None:
        raise UsageError(
            f"generator {parts.chain.spec('generator').id} reads what is said off the recording; "
            "leave the transcript out, or name a generator that takes phones"
        )
    said = _Transcript.of(_spoken(request, parts, request.text))
    _check_alignable(source, parts)
    times = parts.aligner.align(source, said.sentences)
    phones = _with_pauses(said.timed_phones(times, length), parts.frontend_facts.pause, length)
    words = [(w, *span) for w, span in zip(said.words, said.word_times(times, length), strict=True)]
    layout = convert.plan(length, max_seconds=longest, quiet=quiet, phones=phones, words=words)
    return layout, ()


def _with_pauses(
    phones: Sequence[tuple[str, Fraction, Fraction]], pause: str, length: Fraction
) -> list[TimedPhone]:
    """Phones that last, with a pause wherever the recording says nothing between them."""
    timed: list[TimedPhone] = []
    at = Fraction(0)
    for symbol, start, end in (*phones, (pause, length, length)):
        if start > at:
            timed.append(TimedPhone(pause, at, start))
        if end > start:
            timed.append(TimedPhone(symbol, start, end))
        at = max(at, end)
    return timed


def _lay_continue(
    request: Request, parts: Parts, source: Audio | None, voice: Voice | None
) -> _Laid:
    assert source is not None
    length = Fraction(source.length, source.sample_rate)
    if request.text is None:
        seconds = Fraction(3 if request.seconds is None else float(request.seconds))
        layout = continuation.plan_seconds(
            length,
            seconds.limit_denominator(source.sample_rate),
            context_seconds=CONTEXT_SECONDS,
            max_seconds=parts.max_seconds,
        )
        return layout, ()
    sentences = _spoken(request, parts, request.text)
    rate = parts.speaker_facts.frame_rate
    frames = _durations(request, parts, sentences, _rate(request), voice)
    if request.seconds is not None:
        said = sum(map(sum, frames)) / float(rate)
        factor = _rate(request) * said / request.seconds
        if not SLOWEST <= factor <= FASTEST:
            raise UsageError(
                f"the words last {said:.1f} s at this style and cannot be said in "
                f"{request.seconds:g} s, which is {factor:.3g} times the usual speed; "
                f"{SLOWEST:g} to {FASTEST:g} times can be done"
            )
        frames = _durations(request, parts, sentences, factor, voice)
    layout = continuation.plan_text(
        length,
        sentences,
        frames,
        frame_rate=rate,
        context_seconds=CONTEXT_SECONDS,
        max_seconds=parts.max_seconds,
    )
    return layout, ()


def _lay_edit(request: Request, parts: Parts, source: Audio | None, voice: Voice | None) -> _Laid:
    assert source is not None
    length = Fraction(source.length, source.sample_rate)
    if request.spans:
        spans = [edit.Span(_exact(a, source), _exact(b, source)) for a, b, _ in request.spans]
        new = [_new_words(request, parts, text, voice) for _, _, text in request.spans]
        return _edited(parts, length, spans, new, (), ())
    old = _Transcript.of(_spoken(request, parts, request.text or ""))
    want = _Transcript.of(_spoken(request, parts, request.new_text or ""))
    _check_alignable(source, parts)
    times = parts.aligner.align(source, old.sentences)
    phones = old.timed_phones(times, length)
    words = old.word_times(times, length)
    changes = edit.changed_words(old.words, want.words)
    spans = [edit.where(change, words, length) for change in changes]
    tempos = _tempos(request, parts, old, words, spans, voice)
    new = [
        _said(request, parts, want, change, _rate(request) * tempo, voice)
        for change, tempo in zip(changes, tempos, strict=True)
    ]
    changed = {i for c in changes for i in range(c.old_start, c.old_stop)}
    kept = [(old.words[i], *words[i]) for i in range(len(words)) if i not in changed]
    return _edited(parts, length, spans, new, phones, kept)


def _edited(
    parts: Parts,
    length: Fraction,
    spans: Sequence[edit.Span],
    new: Sequence[edit.NewWords],
    phones: Sequence[tuple[str, Fraction, Fraction]],
    kept: Sequence[tuple[str, Fraction, Fraction]],
) -> _Laid:
    rate = parts.speaker_facts.frame_rate
    layout = edit.plan(
        length,
        spans,
        new,
        frame_rate=rate,
        context_seconds=CONTEXT_SECONDS,
        max_seconds=parts.max_seconds,
        source_phones=phones,
    )
    shifts = [
        (span.end, Fraction(sum(words.frames)) / rate - (span.end - span.start))
        for span, words in zip(spans, new, strict=True)
    ]
    placed = []
    for text, start, end in kept:
        shift = sum((by for after, by in shifts if after <= start), Fraction(0))
        placed.append(Span(text, float(start + shift), float(end + shift)))
    return layout, tuple(placed)


_LAYOUTS = {
    "synthesize": _lay_synthesize,
    "continue": _lay_continue,
    "convert": _lay_convert,
    "edit": _lay_edit,
}


def _spoken(request: Request, parts: Parts, text: str) -> list[Phones]:
    sentences = parts.frontend.phonemize(text, lexicon=request.lexicon)
    known = cast(FrontendFacts, parts.frontend.spec.facts).phones
    unknown = sorted({p for phones in sentences for p in phones.symbols} - set(known))
    if unknown:
        raise TextError(
            f"no phone is called {', '.join(unknown)}; the phones are {', '.join(known)}"
        )
    return sentences


def _rate(request: Request) -> float:
    return float(request.style.get("rate", 1.0))


def _durations(
    request: Request, parts: Parts, sentences: Sequence[Phones], rate: float, voice: Voice | None
) -> list[list[int]]:
    fits = voice is not None and voice.kind == parts.speaker_facts.voice
    voices = [voice] * len(sentences) if voice is not None and fits else None
    return parts.speaker.durations(sentences, rate=rate, voices=voices, seed=request.seed)


def _exact(seconds: float, source: Audio) -> Fraction:
    """A time given in seconds, at the nearest sample."""
    return Fraction(round(seconds * source.sample_rate), source.sample_rate)


def _quiet(source: Audio) -> tuple[Fraction, ...]:
    """The middles of 40 ms blocks that are much quieter than speech."""
    block = max(1, int(0.04 * source.sample_rate))
    count = source.length // block
    if count == 0:
        return ()
    blocks = source.samples[0, : count * block].reshape(count, block)
    power = np.sqrt(np.mean(np.square(blocks, dtype=np.float64), axis=1))
    limit = 0.1 * float(np.percentile(power, 90))
    centres = np.flatnonzero(power <= limit) * block + block // 2
    return tuple(Fraction(int(at), source.sample_rate) for at in centres)


# Edits ------------------------------------------------------------------------------------


def _new_words(request: Request, parts: Parts, text: str, voice: Voice | None) -> edit.NewWords:
    """The words of an explicit span, without the pauses around them; nothing for a removal."""
    if not text.strip():
        return edit.NewWords(None)
    said = _Transcript.of(_spoken(request, parts, text))
    whole = edit.Change(0, 0, 0, len(said.words))
    return _said(request, parts, said, whole, _rate(request), voice)


def _said(
    request: Request,
    parts: Parts,
    want: _Transcript,
    change: edit.Change,
    rate: float,
    voice: Voice | None,
) -> edit.NewWords:
    """The new words of a change with their frames; the rest of their sentences shapes these."""
    if change.new_start == change.new_stop:
        return edit.NewWords(None)
    first, last = (want.index[word][0] for word in (change.new_start, change.new_stop - 1))
    frames = _durations(request, parts, want.sentences[first : last + 1], rate, voice)
    return want.cut(change.new_start, change.new_stop, dict(enumerate(frames, first)))


def _check_alignable(source: Audio, parts: Parts) -> None:
    limit = cast(AlignerFacts, parts.aligner.spec.facts).max_seconds
    if limit is not None and source.seconds > limit:
        raise UsageError(
            f"the recording lasts {source.seconds:.0f} s and its words can be found in at most "
            f"{limit:g} s; cut it, or give the spans in seconds"
        )


def _tempos(
    request: Request,
    parts: Parts,
    old: _Transcript,
    words: Times,
    spans: Sequence[edit.Span],
    voice: Voice | None,
) -> list[float]:
    """How much faster than the generator this speaker speaks around each span."""
    if "rate" not in parts.speaker_facts.styles:
        return [1.0] * len(spans)
    predicted = _durations(request, parts, old.sentences, 1.0, voice)
    usual = []
    for s, w in old.index:
        first, last = old.sentences[s].word_spans[w]
        usual.append(Fraction(sum(predicted[s][first:last])) / parts.speaker_facts.frame_rate)
    return [edit.tempo_around(span, words, usual) for span in spans]


@dataclass(frozen=True)
class _Transcript:
    """Sentences with their words counted through.

    Attributes:
        sentences: phones of each.
        words: spelling of every word.
        index: (sentence, word of the sentence) of every word.
    """

    sentences: list[Phones]
    words: list[str]
    index: list[tuple[int, int]]

    @classmethod
    def of(cls, sentences: list[Phones]) -> _Transcript:
        index = [(s, w) for s, phones in enumerate(sentences) for w in range(len(phones.words))]
        return cls(sentences, [sentences[s].words[w] for s, w in index], index)

    def word_times(self, times: list[list[tuple[float, float]]], length: Fraction) -> Times:
        spans = []
        for s, w in self.index:
            first, last = self.sentences[s].word_spans[w]
            spans.append(
                (_within(times[s][first][0], length), _within(times[s][last - 1][1], length))
            )
        return spans

    def timed_phones(
        self, times: list[list[tuple[float, float]]], length: Fraction
    ) -> list[tuple[str, Fraction, Fraction]]:
        return [
            (symbol, _within(a, length), _within(b, length))
            for phones, spans in zip(self.sentences, times, strict=True)
            for symbol, (a, b) in zip(phones.symbols, spans, strict=True)
        ]

    def cut(self, start: int, stop: int, frames: Mapping[int, Sequence[int]]) -> edit.NewWords:
        """Words `start` to `stop`, at least one, with what lies between them.

        `frames` has those of every phone of each sentence that they stand in, by its number.
        """
        chosen = self.index[start:stop]
        symbols: list[str] = []
        lengths: list[int] = []
        spans: list[tuple[int, int]] = []
        for s in range(chosen[0][0], chosen[-1][0] + 1):
            phones = self.sentences[s]
            words = [w for t, w in chosen if t == s]
            first = phones.word_spans[words[0]][0] if s == chosen[0][0] else 0
            last = phones.word_spans[words[-1]][1] if s == chosen[-1][0] else len(phones)
            shift = len(symbols) - first
            spans += [(a + shift, b + shift) for a, b in (phones.word_spans[w] for w in words)]
            symbols += phones.symbols[first:last]
            lengths += frames[s][first:last]
        alphabet = self.sentences[0].alphabet
        cut = Phones(tuple(symbols), alphabet, tuple(self.words[start:stop]), tuple(spans))
        return edit.NewWords(cut, tuple(lengths))


def _within(seconds: float, length: Fraction) -> Fraction:
    return min(max(Fraction(seconds).limit_denominator(1_000_000), Fraction(0)), length)
