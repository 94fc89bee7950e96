import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.errors import TextError
from speechloom_sv2tts._spec import CHARACTERS_FRONTEND
from speechloom_sv2tts.characters import CharacterFrontend, in_words
from speechloom_sv2tts.symbols import CHARACTERS, NVIDIA_IDS

FRONTEND = CharacterFrontend(CHARACTERS_FRONTEND)


def spelled(text: str) -> list[str]:
    return ["".join(one.symbols) for one in FRONTEND.phonemize(text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Hello, world!", ["hello,|world!"]),
        ("Dr. Smith sat. He slept.", ["doctor|smith|sat.", "he|slept."]),
        ("Mr Fox met MRS. Fox.", ["mister|fox|met|misses|fox."]),
        ("It was Fox Ltd.", ["it|was|fox|limited."]),
        ("Lost. Found.", ["lost.", "found."]),
        ("It is 7.", ["it|is|seven."]),
        ("In 1,204 days", ["in|one|thousand|two|hundred|four|days|"]),
        ("3.14 & more", ["three|point|one|four|and|more|"]),
        ("Zoë’s café", ["zoe's|cafe|"]),
        ("a", ["a|"]),
        ("[[o d d]] one", ["odd|one|"]),
    ],
)
def test_spells_english(text: str, said: list[str]) -> None:
    assert spelled(text) == said


def test_words_keep_their_place() -> None:
    assert FRONTEND.phonemize("To Dr. Fox")[0].source_spans == ((0, 2), (3, 5), (7, 10))
    (one,) = FRONTEND.phonemize("  It cost $5.")
    text = "  It cost $5."
    assert [text[a:b] for a, b in one.source_spans] == ["It", "cost", "$", "5"]
    assert "".join(one.symbols[slice(*one.word_spans[1])]) == "cost"


@pytest.mark.parametrize("text", ["", "?!", "漢字", "привет", "[[]]", "[[q€]]", "∑"])
def test_refuses_what_it_cannot_read(text: str) -> None:
    with pytest.raises(TextError):
        FRONTEND.phonemize(text)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"), (13, "thirteen"), (40, "forty"), (99, "ninety nine"), (100, "one hundred"),
        (1_000_001, "one million one"), (2_030_400, "two million thirty thousand four hundred"),
    ],
)  # fmt: skip
def test_numbers_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


@settings(max_examples=50)
@given(st.text(alphabet="abc XYZ.,;!?'12$", min_size=1, max_size=40))
def test_all_is_known_characters(text: str) -> None:
    try:
        said = FRONTEND.phonemize(text)
    except TextError:
        assert not any(c.isalnum() or c == "$" for c in text)
        return
    for one in said:
        assert set(one.symbols) <= set(CHARACTERS)


def test_ids_are_nvidias() -> None:
    """`_` is 0, `-` 1, then marks from 2 (``!``) to 11 (the space), capitals, small letters."""
    assert NVIDIA_IDS["-"] == 1
    assert NVIDIA_IDS["!"] == 2
    assert NVIDIA_IDS["|"] == 11
    assert NVIDIA_IDS["a"] == 12 + 26
    assert tuple(NVIDIA_IDS) == CHARACTERS
