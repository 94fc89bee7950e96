"""Text to phones: known answers, places, pauses, lexicons and errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.errors import TextError
from speechloom_starter.english import (
    Utterance,
    normalize,
    parse_lexicon,
    phonemize,
    read_lexicon,
    split_sentences,
)
from speechloom_starter.english.alphabet import parse_phones
from speechloom_starter.english.g2p import derive_phones, guess_phones
from speechloom_starter.english.lexicon import load_lexicon
from speechloom_starter.phones import PHONES


def phones(text: str, **lexicon: str) -> str:
    return " ".join(" ".join(one.phones) for one in phonemize(text, lexicon=lexicon))


KNOWN = [
    ("Hello world.", "pau hh ax l ow w er l d pau"),
    ("Yes, the apple", "pau y eh s pau dh iy ae p ax l pau"),
    ("a book or vitamin A", "pau ax b uh k ao r v ay t ax m ax n ey pau"),
    ("the end; the dog", "pau dh iy eh n d pau dh ax d ao g pau"),
    ("AT&T", "pau ey t iy ae n d t iy pau"),
    ("[[HH AH0 L OW1]]", "pau hh ax l ow pau"),
    ("hello[[b ay]] you", "pau b ay y uw pau"),
]


@pytest.mark.parametrize(("text", "expected"), KNOWN)
def test_known_answers(text: str, expected: str) -> None:
    assert phones(text) == expected


def test_places_lead_back_to_the_text() -> None:
    text = "Pay \u201c$3.50\u201d to caf\u00e9-goers, Dr. No\u2019s!"
    (utterance,) = phonemize(text)
    written = [text[word.source_start : word.source_end] for word in utterance.words]
    assert written == ["Pay", *["$3.50"] * 4, "to", "caf\u00e9", "goers", "Dr", "No\u2019s"]
    assert [word.pause_after for word in utterance.words].index(True) == 7


def test_value_of_the_core() -> None:
    (utterance,) = phonemize("Yes, we can.")
    value = utterance.to_phones()
    assert value.symbols == utterance.phones
    assert value.words == ("yes", "we", "can")
    assert [value.symbols[a:b] for a, b in value.word_spans] == [
        word.phones for word in utterance.words
    ]
    assert value.source_spans == ((0, 3), (5, 7), (8, 11))


def test_sentences() -> None:
    text = 'Dr. No said "Go." Then, at 5 p.m. sharp, J. Q. Public left... Why?! \U0001f642'
    assert split_sentences(text) == (
        'Dr. No said "Go."',
        "Then, at 5 p.m. sharp, J. Q. Public left...",
        "Why?! \U0001f642",
    )
    assert [one.text for one in phonemize(text)] == [
        "doctor no said go.",
        "then, at five p m sharp, j q public left.",
        "why?",
    ]


def test_long_sentences_are_cut_at_pauses_and_lose_nothing() -> None:
    text = "one two three, four five six seven eight nine ten"
    assert [one.text for one in phonemize(text, max_chars=24)] == [
        "one two three,",
        "four five six seven",
        "eight nine ten",
    ]
    assert split_sentences(text, max_chars=24) == (
        "one two three,",
        "four five six seven",
        "eight nine ten",
    )


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            "the A cat, dog. 3.5 $20 Dr. runs! (no) -- FBI a a.b x's 12:30 I'm".split()
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 60),
)
def test_pieces_are_whole_and_every_phone_is_of_the_alphabet(parts: list[str], size: int) -> None:
    text = " ".join(parts)
    if not normalize(text):
        return
    whole = phonemize(text, max_chars=10_000)
    cut = phonemize(text, max_chars=size)
    words = [word.text for one in whole for word in one.words]
    assert [word.text for one in cut for word in one.words] == words
    assert "".join("".join(split_sentences(text, max_chars=size)).split()).endswith(
        "".join(text.split())[-3:]
    )
    for one in (*whole, *cut):
        check(one, text)


def check(utterance: Utterance, text: str) -> None:
    assert set(utterance.phones) <= set(PHONES)
    assert utterance.phones[0] == utterance.phones[-1] == "pau"
    assert ("pau", "pau") not in zip(utterance.phones, utterance.phones[1:], strict=False)
    ends = 0
    for word in utterance.words:
        assert word.phones
        assert ends <= word.source_end <= len(text)
        ends = word.source_end


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sherlock's", "sh er l aa k s"),
        ("blorps", None),
        ("googled", "g uw g ax l d"),
        ("unwanteds", None),
        ("emailing", "iy m ey l ih ng"),
        ("watson'll", "w aa t s ax n ax l"),
    ],
)
def test_endings(word: str, expected: str | None) -> None:
    known = {
        "sherlock": ("sh", "er", "l", "aa", "k"),
        "google": ("g", "uw", "g", "ax", "l"),
        "email": ("iy", "m", "ey", "l"),
        "watson": ("w", "aa", "t", "s", "ax", "n"),
    }
    derived = derive_phones(word, known)
    assert derived == (tuple(expected.split()) if expected else None)


def test_network_spells_new_words_sensibly() -> None:
    assert guess_phones("blick") == ("b", "l", "ih", "k")
    assert guess_phones("zog")[0] == "z"
    assert guess_phones("'")


def test_word_without_end() -> None:
    (*_, last) = utterances = phonemize("x" * 10 + "ab" * 5000)
    spans = [(word.source_start, word.source_end) for one in utterances for word in one.words]
    assert spans[0][0] == 0
    assert last.words[-1].source_end == 10_010
    assert all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_user_lexicon() -> None:
    assert phones("the Tomato", tomato="T AH0 M AA1 T OW2", the="dh ah") == (
        "pau dh ah t ax m aa t ow pau"
    )
    assert phones("XKQ XKQs", xkq="z ih p") == "pau z ih p z ih p s pau"


def test_lexicon_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# mine\nTomato\tT AH0 M AA1 T OW2\n\ngif jh ih f # soft\ngif g ih f\n")
    assert read_lexicon(path) == {
        "tomato": ("t", "ax", "m", "aa", "t", "ow"),
        "gif": ("jh", "ih", "f"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ok ow k ey\nbad qq", "words.txt, line 2: 'qq' is not a phone; use aa ae"),
        ("bad", "words.txt, line 1: a pronunciation needs at least one phone"),
        ("b4d b ae d", "words.txt, line 1: a word has only letters"),
    ],
)
def test_lexicon_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        parse_lexicon(text, name="words.txt")


def test_lexicon_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="cannot read the lexicon"):
        read_lexicon(tmp_path / "none.txt")


@pytest.mark.parametrize("text", ["", "  \n", "...", "\U0001f642", "?! --"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match="nothing to say"):
        phonemize(text)


@pytest.mark.parametrize(
    ("text", "lexicon", "message"),
    [
        ("[[hh qq]]", {}, "'qq' is not a phone; use aa ae ah"),
        ("[[]]", {}, "at least one phone"),
        ("[[pau]]", {}, "'pau' is not a phone"),
        ("hello", {"he llo": "hh ax"}, "only letters a-z and apostrophes"),
        ("hello", {"hello": "hh 9"}, "lexicon entry 'hello': '9' is not a phone"),
    ],
)
def test_wrong_phones(text: str, lexicon: dict[str, str], message: str) -> None:
    with pytest.raises(TextError, match=message):
        phonemize(text, lexicon=lexicon)


def test_length_below_one_is_refused() -> None:
    with pytest.raises(TextError, match="`max_chars` must be at least 1"):
        phonemize("hello", max_chars=0)


def test_alphabet_reads_arpabet() -> None:
    assert parse_phones("AH0 AH1 AH ah0 ax ER0 Zh") == ("ax", "ah", "ah", "ax", "ax", "er", "zh")


def test_shipped_lexicon_is_whole() -> None:
    lexicon = load_lexicon()
    assert len(lexicon) > 120_000
    assert lexicon["about"] == ("ax", "b", "aw", "t")
    assert "qqq" not in lexicon


def test_known_words_need_no_torch() -> None:
    code = (
        "import sys; from speechloom_starter.english import phonemize; phonemize('Hello world.');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
