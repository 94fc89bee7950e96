"""synthesize: one sheet per sentence, long ones parted where it is heard least."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from speechloom.layout import Make
from speechloom.tasks.synthesize import plan, split_phones
from speechloom.values import Phones

F = Fraction
RATE = F(50)


def sentence(*words: str) -> Phones:
    """Words in letters, ``_`` for a pause."""
    symbols: list[str] = []
    spelled, spans = [], []
    for word in words:
        start = len(symbols)
        symbols += word
        if word != "_":
            spelled.append(word)
            spans.append((start, len(symbols)))
    return Phones(tuple(symbols), "letters", tuple(spelled), tuple(spans))


def test_two_sentences_by_hand() -> None:
    one, two = sentence("_", "hi"), sentence("yo", "_")
    layout = plan([one, two], [[2, 3, 4], [5, 6, 7]], frame_rate=RATE, max_seconds=30)
    assert layout.pieces == (Make(0, F(0), F(9, 50)), Make(1, F(0), F(18, 50)))
    first, second = layout.sheets
    assert (first.item, second.item) == (0, 1)
    assert [p.symbol for p in first.phones] == ["_", "h", "i"]
    assert first.words == (("hi", F(2, 50), F(9, 50)),)
    assert second.words == (("yo", F(0), F(11, 50)),)
    assert first.known == first.told == ()


def test_planning_is_pure() -> None:
    durations = [[2, 3, 4]]
    plans = [
        plan([sentence("_", "hi")], durations, frame_rate=RATE, max_seconds=0.1) for _ in range(2)
    ]
    assert plans[0] == plans[1]
    assert durations == [[2, 3, 4]]


def test_items_count_through_parts_of_several_sentences() -> None:
    long = sentence("ab", "cd", "ef")
    layout = plan([long, long], [[10] * 6] * 2, frame_rate=RATE, max_seconds=0.4)
    assert [sheet.item for sheet in layout.sheets] == list(range(6))
    assert [word for sheet in layout.sheets for word, _, _ in sheet.words] == ["ab", "cd", "ef"] * 2
    assert all(sheet.seconds <= F(2, 5) for sheet in layout.sheets)


def test_a_pause_in_the_second_half_is_preferred_to_the_end_of_a_word() -> None:
    phones = sentence("ab", "cde", "_", "ef", "gh")
    parts = split_phones(phones, [1] * 10, 9)
    assert [part.words for part, _ in parts] == [("ab", "cde"), ("ef", "gh")]
    assert parts[1][0].symbols[0] == "_"


def test_a_pause_in_the_first_half_is_too_early() -> None:
    phones = sentence("a", "_", "bcd", "efg", "hij")
    parts = split_phones(phones, [1] * 11, 9)
    assert [part.words for part, _ in parts] == [("a", "bcd", "efg"), ("hij",)]


def test_an_endless_word_is_cut_between_phones() -> None:
    phones = sentence("abcdefghij")
    parts = split_phones(phones, [1] * 10, 4)
    assert [len(frames) for _, frames in parts] == [4, 4, 2]
    assert all(part.words == ("abcdefghij",) for part, _ in parts)


def test_a_phone_longer_than_a_sheet_stands_alone() -> None:
    parts = split_phones(sentence("ab", "c"), [3, 99, 3], 10)
    assert [frames for _, frames in parts] == [[3], [99], [3]]


def test_source_spans_go_with_their_words() -> None:
    phones = Phones(tuple("abcd"), "letters", ("ab", "cd"), ((0, 2), (2, 4)), ((5, 7), (8, 10)))
    parts = split_phones(phones, [1] * 4, 2)
    assert [part.source_spans for part, _ in parts] == [((5, 7),), ((8, 10),)]


@given(
    words=st.lists(st.sampled_from(["_", "a", "ab", "abcd", "abcdefghijklm"]), min_size=1),
    lengths=st.lists(st.integers(1, 9), min_size=300, max_size=300),
    limit=st.integers(1, 40),
)
def test_parts_join_to_the_whole_and_fit(
    words: list[str], lengths: list[int], limit: int
) -> None:  # fmt: skip
    phones = sentence(*words)
    frames = lengths[: len(phones)]
    frames += [1] * (len(phones) - len(frames))
    parts = split_phones(phones, frames, limit)
    assert tuple(s for part, _ in parts for s in part.symbols) == phones.symbols
    assert [n for _, theirs in parts for n in theirs] == frames
    for part, theirs in parts:
        assert len(part) == len(theirs) > 0
        assert sum(theirs) <= limit or len(theirs) == 1
    spelled = [word for part, _ in parts for word in part.words]
    assert list(dict.fromkeys(spelled)) == list(dict.fromkeys(phones.words))
