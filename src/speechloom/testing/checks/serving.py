"""Checks for what serves the four: front ends, speaker encoders, aligners."""

from __future__ import annotations

from functools import partial

import numpy as np

from speechloom.errors import AudioError, TextError, UnsupportedCapability, UsageError
from speechloom.testing.checks.outcomes import assert_same, skip_without, utterances
from speechloom.testing.checks.table import Subject, check, refuses, require
from speechloom.values import Audio, Phones, Voice

LATIN = {"en", "de", "fr", "es", "it", "pt", "nl", "sv", "da", "nb", "fi", "pl", "cs", "tr"}


@check("frontend")
def check_speaks_its_phones(subject: Subject) -> None:
    """Phones are of the claimed alphabet, words lie in them, in order."""
    facts = subject.facts
    assert facts.pause in facts.phones, f"the pause {facts.pause!r} is not among the phones"
    assert len(set(facts.phones)) == len(facts.phones), "a phone is there twice"
    for phones in _spoken(subject):
        assert isinstance(phones, Phones), f"phonemize gives {type(phones)}, not Phones"
        assert phones.alphabet == facts.alphabet, f"alphabet is {phones.alphabet!r}"
        foreign = sorted(set(phones.symbols) - set(facts.phones))
        assert not foreign, f"phones that are not in the alphabet: {foreign}"
        assert phones.words, "a sentence has no words"


@check("frontend")
def check_leaves_nothing_out(subject: Subject) -> None:
    """Every letter and digit of the text lies in the place of some word, in order."""
    text = _text(subject)
    covered, at = [False] * len(text), 0
    for phones in subject.component.phonemize(text):
        assert len(phones.source_spans) == len(phones.words), "words without their place in text"
        for start, stop in phones.source_spans:
            assert at <= start < stop <= len(text), f"place [{start}, {stop}) after {at}"
            covered[start:stop] = [True] * (stop - start)
            at = stop
    left_out = [c for c, there in zip(text, covered, strict=True) if c.isalnum() and not there]
    assert not left_out, f"left out of {text!r}: {''.join(left_out)}"


@check("frontend")
def check_takes_phones_directly(subject: Subject) -> None:
    """``[[...]]`` is spoken as it stands, and unknown phones in it are refused."""
    given = tuple(p for p in subject.facts.phones if p != subject.facts.pause)[:3]
    phones = subject.component.phonemize(f"[[{' '.join(given)}]]")
    assert len(phones) == 1, f"{len(phones)} sentences for one word"
    spoken = tuple(p for p in phones[0].symbols if p != subject.facts.pause)
    assert spoken == given, f"{given} is spoken as {spoken}"
    refuses(lambda: subject.component.phonemize("[[no-such-phone]]"), TextError, "unknown phones")


@check("frontend")
def check_lexicon_goes_first(subject: Subject) -> None:
    """A pronunciation in the lexicon of the call is used, for any case of the word."""
    text = _text(subject)
    words = subject.component.phonemize(text)[0]
    start, stop = words.source_spans[0]
    word = text[start:stop]
    given = [p for p in subject.facts.phones if p != subject.facts.pause][-2:] * 2
    lexicon = {word.lower(): given}
    phones = subject.component.phonemize(word.upper(), lexicon=lexicon)[0]
    spoken = [p for p in phones.symbols if p != subject.facts.pause]
    assert spoken == given, f"{word!r} is spoken as {spoken}, but the lexicon says {given}"


@check("frontend")
def check_refuses_what_cannot_be_said(subject: Subject) -> None:
    """Nothing to say is a `TextError`, and so is a script of no claimed language."""
    for text in ("", " \n\t", "...", "[[]]"):
        refuses(partial(subject.component.phonemize, text), TextError, f"the text {text!r}")
    if {language.split("-")[0] for language in subject.facts.languages} <= LATIN:
        refuses(lambda: subject.component.phonemize("漢字"), TextError, "an unknown script")


@check("speaker_encoder")
def check_gives_voices(subject: Subject) -> None:
    """Voices are finite vectors of the claimed kind and size, at any rate and channel count."""
    _skip_tables(subject)
    makers = ((16_000, 1), (8_000, 1), (11_025, 2), (44_100, 1), (48_000, 2))
    audio = [
        subject.inputs.audio(_enough(subject), rate, channels=channels) for rate, channels in makers
    ]
    voices = subject.component.embed(audio)
    assert len(voices) == len(audio), f"{len(voices)} voices for {len(audio)} recordings"
    for voice in voices:
        _assert_voice(subject, voice)


@check("speaker_encoder")
def check_embeds_a_batch_like_a_loop(subject: Subject) -> None:
    """Recordings of different lengths give the same voices together and alone."""
    _skip_tables(subject)
    enough = _enough(subject)
    audio = [subject.inputs.audio(enough * f, number=i) for i, f in enumerate((1.0, 2.3, 1.4))]
    together = subject.component.embed(audio)
    for index, one in enumerate(audio):
        alone = subject.component.embed([one])[0]
        what = f"item {index} of a batch and alone"
        assert_same(alone, together[index], what, tolerance=1e-4)


@check("speaker_encoder")
def check_embeds_very_long_audio(subject: Subject) -> None:
    """A minute of speech gives a voice."""
    _skip_tables(subject)
    audio = subject.inputs.audio(subject.inputs.long_seconds)
    _assert_voice(subject, subject.component.embed([audio])[0])


@check("speaker_encoder")
def check_refuses_too_little_speech(subject: Subject) -> None:
    """A recording that is too short or silent is an `AudioError`, and so is one sample."""
    _skip_tables(subject)
    rate = subject.facts.sample_rate
    silence = Audio(np.zeros((1, int(_enough(subject) * rate)), dtype=np.float32), rate)
    short = subject.inputs.audio(0.5 * subject.facts.min_seconds, rate)
    for audio, what in ((silence, "silence"), (short, "half of min_seconds")):
        refuses(partial(subject.component.embed, [audio]), AudioError, what)
    one = Audio(np.full((1, 1), 0.1, dtype=np.float32), rate)
    refuses(lambda: subject.component.embed([one]), AudioError, "one sample")


@check("speaker_encoder")
def check_refuses_recordings_where_it_takes_none(subject: Subject) -> None:
    """A table of voices refuses a recording and lists its voices."""
    skip_without(not subject.facts.recordings, "it takes voices from recordings")
    audio, names = subject.inputs.audio(2.0), subject.facts.named_voices
    embed = subject.component.embed
    refuses(lambda: embed([audio]), UnsupportedCapability, "a recording", *names)


@check("speaker_encoder")
def check_knows_its_named_voices(subject: Subject) -> None:
    """Each named voice is there; another name is refused with the list of them."""
    names = subject.facts.named_voices
    for name in names:
        voice = subject.component.named(name)
        _assert_voice(subject, voice)
        assert voice.name == name, f"the voice {name!r} calls itself {voice.name!r}"
    unknown = "no-such-voice"
    refuses(lambda: subject.component.named(unknown), UsageError, "an unknown name", *names)


@check("aligner")
def check_spans_are_in_order(subject: Subject) -> None:
    """Each phone gets (start, end) in seconds, in order, inside the recording."""
    counts = (6, 1, 9)
    phones = utterances(subject, subject.facts.alphabet, *counts)
    for rate, channels in ((subject.facts.sample_rate, 1), (8_000, 1), (44_100, 2)):
        audio = subject.inputs.audio(3.0, rate, channels=channels)
        spans = subject.component.align(audio, phones)
        assert [len(one) for one in spans] == list(counts), "not one span for each phone"
        at = 0.0
        for start, stop in (span for one in spans for span in one):
            assert at <= start + 1e-9 <= stop + 2e-9, f"span ({start}, {stop}) after {at}"
            at = stop
        assert at <= audio.seconds + 1e-9, f"it ends at {at} s of {audio.seconds} s"


@check("aligner")
def check_refuses_what_cannot_be_aligned(subject: Subject) -> None:
    """Too short or too long recordings and foreign phones are a `UsageError`."""
    facts, align = subject.facts, subject.component.align
    phones = utterances(subject, facts.alphabet, 30)
    one = Audio(np.full((1, 1), 0.1, dtype=np.float32), facts.sample_rate)
    refuses(lambda: align(one, phones), UsageError, "one sample for 30 phones")
    audio = subject.inputs.audio(2.0)
    foreign = [Phones(("x",), "not-an-alphabet")]
    refuses(lambda: align(audio, foreign), UsageError, "phones of another alphabet")
    if facts.max_seconds is not None:
        longer = subject.inputs.audio(facts.max_seconds + 1, facts.sample_rate)
        refuses(lambda: align(longer, phones), UsageError, "more than max_seconds of audio")


@check("aligner")
def check_aligns_very_long_audio(subject: Subject) -> None:
    """A minute is aligned, or as much as ``max_seconds`` claims."""
    facts = subject.facts
    seconds = min(subject.inputs.long_seconds, facts.max_seconds or subject.inputs.long_seconds)
    phones = utterances(subject, facts.alphabet, *[40] * 5)
    spans = subject.component.align(subject.inputs.audio(seconds, facts.sample_rate), phones)
    assert [len(one) for one in spans] == [40] * 5, "not one span for each phone"


def _text(subject: Subject) -> str:
    languages = subject.facts.languages
    why = f"no text in {', '.join(languages)}; give one as `Inputs(texts=...)`"
    return str(require(subject.inputs.text(languages), why))


def _spoken(subject: Subject) -> list[Phones]:
    spoken: list[Phones] = subject.component.phonemize(_text(subject))
    skip_without(spoken, "the text has no sentence")
    return spoken


def _enough(subject: Subject) -> float:
    return max(1.0, 1.2 * float(subject.facts.min_seconds))


def _skip_tables(subject: Subject) -> None:
    skip_without(subject.facts.recordings, "it is a table of voices and takes no recordings")


def _assert_voice(subject: Subject, voice: object) -> None:
    assert isinstance(voice, Voice), f"embed gives {type(voice)}, not Voice"
    assert voice.kind == subject.facts.voice, f"kind is {voice.kind!r}"
    assert voice.vector.shape == (subject.facts.size,), f"vector is {list(voice.vector.shape)}"
