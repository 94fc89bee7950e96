"""Written English to spoken English: known answers, then properties."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.errors import TextError
from speechloom_starter.english import normalize
from speechloom_starter.english.lexicon import load_lexicon
from speechloom_starter.english.scanner import scan

KNOWN = [
    ("Hello, World!", "hello, world!"),
    (
        "0 7 13 20 42 100 101 1000",
        "zero seven thirteen twenty forty two one hundred one hundred one one thousand",
    ),
    ("1,234,567", "one million two hundred thirty four thousand five hundred sixty seven"),
    ("3.14 and .5", "three point one four and point five"),
    ("-5 or \u22127", "minus five or minus seven"),
    ("007", "zero zero seven"),
    (
        "1st 2nd 3rd 12th 21st 30th 1,500th",
        "first second third twelfth twenty first thirtieth one thousand five hundredth",
    ),
    (
        "in 1066, 1905, 1999, 2005 and 2026",
        "in one thousand sixty six, nineteen oh five, "
        "nineteen ninety nine, two thousand five and twenty twenty six",
    ),
    ("the 1990s and '80s", "the nineteen nineties and eighties"),
    (
        "1/2, 3/4, 2/3, 2 1/2 and 3\u00bd",
        "one half, three quarters, two thirds, two and a half and three and a half",
    ),
    ("2026-11-20", "november twentieth, twenty twenty six"),
    ("11/20/2026", "november twentieth, twenty twenty six"),
    ("20/11/2026", "november twentieth, twenty twenty six"),
    ("20 November 2026", "the twentieth of november twenty twenty six"),
    ("the 3rd of May", "the third of may"),
    ("Nov 20, 2026", "november twentieth, twenty twenty six"),
    ("Sept. 5 was fine", "september fifth was fine"),
    ("10:30 10:05 10:00", "ten thirty ten oh five ten o'clock"),
    ("5pm, 5 a.m. and 10:30 PM.", "five p m, five a m and ten thirty p m."),
    ("At 5 p.m. He left.", "at five p m. he left."),
    (
        "$3.50 $1 $0.01 \u00a32 5\u20ac",
        "three dollars fifty cents one dollar one cent two pounds five euros",
    ),
    ("$2 million and US$5", "two million dollars and five u s dollars"),
    ("45% or 4.5 %", "forty five percent or four point five percent"),
    (
        "5 km, 1 kg, 20\u00b0C, 10 km/h, 5 m\u00b2",
        "five kilometers, one kilogram, "
        "twenty degrees celsius, ten kilometers per hour, five square meters",
    ),
    ("Mr. and Mrs. Holmes", "mister and missus holmes"),
    ("Dr. Smith of Baker St. in St. Louis", "doctor smith of baker street in saint louis"),
    ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera."),
    ("cats, dogs, etc. Then we left.", "cats, dogs, et cetera. then we left."),
    ("No. 5 vs. Fig. 3", "number five versus figure three"),
    ("No. He is not.", "no. he is not."),
    ("the FBI and NASA", "the fbi and nasa"),
    ("XKQ, XKQs and U.S. law", "x k q, x k q's and u s law"),
    ("J. R. R. Tolkien", "j r r tolkien"),
    ("a.b@example.com", "a dot b at example dot com"),
    ("https://www.example.com/x-y.", "w w w dot example dot com slash x dash y."),
    ("you & me + 1 = 2 @ #5", "you and me plus one equals two at number five"),
    ("Chapter IV, Henry VIII, World War II", "chapter four, henry the eighth, world war two"),
    ("part I am reading", "part i am reading"),
    ("555-1234", "five five five, one two three four"),
    ("(555) 123-4567", "five five five, one two three, four five six seven"),
    ("10-20 and 1914\u201318", "ten to twenty and nineteen fourteen to eighteen"),
    ("caf\u00e9 na\u00efve \ufb01ne \u201cquote\u201d", "cafe naive fine quote"),
    ("well-known COVID-19", "well known covid nineteen"),
    ("wait -- now \u2014 or\u2026 then... go", "wait, now, or, then, go"),
    ("the [[T AH0 M EY1 T OW2]] here", "the [[t ax m ey t ow]] here"),
    ("'tis John's dogs' 'quoted'", "'tis john's dogs quoted"),
    ("and/or he/she", "and or he slash she"),
    ("v1.2.3 mp3", "v one point two point three m p three"),
    ("10:61, 99/99", "ten: sixty one, ninety nine over ninety nine"),
    ("one\n\ntwo", "one\n\ntwo"),
    ("", ""),
    ("\U0001f642 ... !", ""),
]


@pytest.mark.parametrize(("written", "spoken"), KNOWN)
def test_known_answers(written: str, spoken: str) -> None:
    assert normalize(written) == spoken


FRAGMENTS = st.sampled_from(
    [written for written, _ in KNOWN]
    + "A I V X IV a Co Co. co. no. No St St. Dr etc etc. U.S. p.m. - -- ' \" . ... , / & # * 's s' "
    "USA aBc CDs can't 'em 1 12 1,000 $ % \u00b0 ( ) [ ] \n\n \u00e9 \u03b1 \U0001f642".split(" ")
)
TEXTS = st.one_of(
    st.text(st.sampled_from("abcAIVXs0159 .,:;'-/$%&()\n\"@#"), max_size=40),
    st.lists(st.tuples(FRAGMENTS, st.sampled_from(["", " ", ". ", " "])), max_size=8).map(
        lambda parts: "".join(piece for part in parts for piece in part)
    ),
)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_idempotent(text: str) -> None:
    try:
        spoken = normalize(text)
    except TextError:
        return
    assert normalize(spoken) == spoken


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_word_is_dropped(text: str) -> None:
    try:
        tokens = scan(text, load_lexicon())
    except TextError:
        return
    covered: set[int] = set()
    for token in tokens:
        if token.kind == "word":
            covered.update(range(token.start, token.end))
    said = [index for index, mark in enumerate(text) if mark.isascii() and mark.isalnum()]
    assert set(said) <= covered


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_spans_run_forward_inside_the_text(text: str) -> None:
    try:
        tokens = scan(text, load_lexicon())
    except TextError:
        return
    spans = [(token.start, token.end) for token in tokens]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    for (start, end), (next_start, next_end) in zip(spans, spans[1:], strict=False):
        assert (start, end) == (next_start, next_end) or end <= next_start


@pytest.mark.parametrize(
    "text",
    [
        "\u4f60\u597d",
        "hello \u043c\u0438\u0440",
        "\u0645\u0631\u062d\u0628\u0627",
        "\u0395\u03bb\u03bb\u03ac\u03b4\u03b1",
        "\uc548\ub155",
    ],
)
def test_other_scripts_are_refused_by_name(text: str) -> None:
    foreign = next(mark for mark in text if not mark.isascii())
    with pytest.raises(TextError, match=f"{foreign}.*Latin script"):
        normalize(text)


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "a.", "1,", "-", "(", "a1", "$", "A", "' ", "[[", "1/", "\n", ". ", "Aa", "5:"],
)
def test_linear_time(unit: str) -> None:
    text = unit * (50_000 // len(unit))
    began = time.process_time()
    scan(text, load_lexicon())
    assert time.process_time() - began < 10
