"""Run lengths, merged pairs and frame rates: known answers, inverses, refusals."""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechloom.errors import BackendUnavailable, UsageError, WeightsError
from speechloom.units import (
    RATE_METHODS,
    UnitBPE,
    convert_rate,
    expand_runs,
    nearest_frames,
    reduce_runs,
    require_frames,
)
from speechloom.values import Features, Tokens, pad_stack

RATE = Fraction(50)
batches = st.lists(st.lists(st.integers(0, 6), max_size=30), min_size=1, max_size=4)
rates = st.sampled_from([Fraction(25), Fraction(50), Fraction(75), Fraction(44100, 512)])


def tokens_of(rows: list[list[int]], *, rate: Fraction = RATE, size: int = 7) -> Tokens:
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    ids = pad_stack([torch.tensor(row, dtype=torch.int64) for row in rows])
    return Tokens(ids, "toy", size, rate, lengths)


def rows_of(tokens: Tokens) -> list[list[int]]:
    return [tokens.item(i).tolist() for i in range(len(tokens.lengths))]


def features_of(values: list[list[float]], rate: Fraction = RATE) -> Features:
    return Features(torch.tensor([values], dtype=torch.float32), "toy", rate)


# Runs -------------------------------------------------------------------------------------


def test_runs_of_each_item_are_merged() -> None:
    reduced, durations = reduce_runs(tokens_of([[5, 5, 5, 1, 1, 5], [2], []]))
    assert rows_of(reduced) == [[5, 1, 5], [2], []]
    assert durations.tolist() == [[3, 2, 1], [1, 0, 0], [0, 0, 0]]
    assert reduced.form == "reduced"
    assert reduced.kind == "tokens:toy"
    assert reduced.frame_rate == RATE


@given(batches)
def test_expanding_undoes_reducing(rows: list[list[int]]) -> None:
    tokens = tokens_of(rows)
    reduced, durations = reduce_runs(tokens)
    assert all(a != b for row in rows_of(reduced) for a, b in zip(row, row[1:], strict=False))
    assert durations.sum(1).tolist() == tokens.lengths.tolist()
    back = expand_runs(reduced, durations)
    assert torch.equal(back.ids, tokens.ids)
    assert torch.equal(back.lengths, tokens.lengths)
    assert back.form == "frames"


def test_any_durations_can_be_given() -> None:
    reduced, _ = reduce_runs(tokens_of([[3, 3, 4]]))
    assert rows_of(expand_runs(reduced, torch.tensor([[0, 2]]))) == [[4, 4]]


def test_reduced_tokens_are_refused_where_frames_are_needed() -> None:
    reduced, durations = reduce_runs(tokens_of([[1, 1, 2]]))
    with pytest.raises(UsageError, match="a vocoder needs one unit a frame.*'reduced'"):
        require_frames(reduced, "a vocoder")
    with pytest.raises(UsageError, match="reducing runs needs one unit a frame"):
        reduce_runs(reduced)
    with pytest.raises(UsageError, match="changing the frame rate needs one unit a frame"):
        convert_rate(reduced, Fraction(25), "nearest")
    with pytest.raises(UsageError, match="takes reduced tokens, but these are 'frames'"):
        expand_runs(tokens_of([[1, 2]]), durations)


@pytest.mark.parametrize(
    ("durations", "message"),
    [
        (torch.tensor([[2]]), r"must be int64 \[1, 2\]"),
        (torch.tensor([[2.0, 1.0]]), r"must be int64 \[1, 2\].*float32"),
        (torch.tensor([[-1, 1]]), "some are negative"),
    ],
)
def test_senseless_durations_are_refused(durations: torch.Tensor, message: str) -> None:
    reduced, _ = reduce_runs(tokens_of([[1, 1, 2]]))
    with pytest.raises(UsageError, match=message):
        expand_runs(reduced, durations)


# Pairs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bpe() -> UnitBPE:
    pytest.importorskip("tokenizers", reason="BPE over units needs tokenizers")
    reduced, _ = reduce_runs(tokens_of([[0, 1, 2, 0, 1, 2, 3, 0, 1], [4, 0, 1, 2, 5]] * 3))
    return UnitBPE.train([reduced], 10)


def test_the_commonest_pair_is_merged_first(bpe: UnitBPE) -> None:
    # 0 1 comes 15 times, so it is the first merge: id 7. Then 7 2 (9 times): id 8.
    reduced, _ = reduce_runs(tokens_of([[0, 1, 3], [0, 1, 2]]))
    merged = bpe.encode(reduced)
    assert rows_of(merged) == [[7, 3], [8]]
    assert merged.form == "bpe"
    assert merged.vocabulary == "toy-bpe10"
    assert merged.vocabulary_size == bpe.size == 10
    assert merged.frame_rate == RATE


@given(rows=batches)
def test_decoding_undoes_encoding(bpe: UnitBPE, rows: list[list[int]]) -> None:
    reduced, _ = reduce_runs(tokens_of(rows))
    back = bpe.decode(bpe.encode(reduced))
    assert rows_of(back) == rows_of(reduced)
    assert (back.form, back.vocabulary, back.vocabulary_size) == ("reduced", "toy", 7)


def test_unseen_units_keep_their_ids(bpe: UnitBPE) -> None:
    reduced, _ = reduce_runs(tokens_of([[6, 5, 6]]))
    assert rows_of(bpe.encode(reduced)) == [[6, 5, 6]]


def test_it_survives_a_file(bpe: UnitBPE, tmp_path: Path) -> None:
    bpe.save(tmp_path / "bpe.json")
    again = UnitBPE.load(tmp_path / "bpe.json")
    reduced, _ = reduce_runs(tokens_of([[0, 1, 2, 3, 0, 1]]))
    assert rows_of(again.encode(reduced)) == rows_of(bpe.encode(reduced))
    assert (again.vocabulary, again.frame_rate, again.form) == ("toy", RATE, "reduced")


def test_large_vocabularies_fit_and_merges_can_be_kept_short() -> None:
    pytest.importorskip("tokenizers")
    units = [tokens_of([[19_999, 0, 10_000] * 20], size=20_000)]
    short = UnitBPE.train(units, 20_010, max_units=2)
    assert short.form == "frames"
    merged = short.encode(units[0])
    assert rows_of(short.decode(merged)) == rows_of(units[0])
    assert len(rows_of(merged)[0]) == 40  # pairs only: three units are two ids


def test_what_it_was_not_trained_on_is_refused(bpe: UnitBPE) -> None:
    reduced, _ = reduce_runs(tokens_of([[0, 1]]))
    with pytest.raises(UsageError, match="one form, reduced, but got tokens of frames"):
        bpe.encode(tokens_of([[0, 1]]))
    with pytest.raises(UsageError, match="one vocabulary_size, 7, but got tokens of 9"):
        bpe.encode(reduce_runs(tokens_of([[0, 1]], size=9))[0])
    with pytest.raises(UsageError, match="one frame rate, 50, but got tokens of 25"):
        bpe.encode(reduce_runs(tokens_of([[0, 1]], rate=Fraction(25)))[0])
    with pytest.raises(UsageError, match="decodes toy-bpe10 of the form 'bpe', but got toy"):
        bpe.decode(reduced)
    with pytest.raises(UsageError, match="form 'bpe'; undo that first with UnitBPE.decode"):
        require_frames(bpe.encode(reduced), "a vocoder")


def test_senseless_training_is_refused(bpe: UnitBPE) -> None:
    frames, reduced = tokens_of([[0, 1]]), reduce_runs(tokens_of([[0, 1]]))[0]
    with pytest.raises(UsageError, match="no units to learn"):
        UnitBPE.train([], 10)
    with pytest.raises(UsageError, match=r"at least the number of units \(7\), but is 6"):
        UnitBPE.train([frames], 6)
    with pytest.raises(UsageError, match="one form, frames, but got tokens of reduced"):
        UnitBPE.train([frames, reduced], 10)
    with pytest.raises(UsageError, match="merged already"):
        UnitBPE.train([bpe.encode(reduced)], 10)
    with pytest.raises(UsageError, match="up to 65534 units"):
        UnitBPE.train([tokens_of([[0]], size=65_535)], 70_000)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}'])
def test_wrong_files_are_refused(text: str, bpe: UnitBPE, tmp_path: Path) -> None:
    path = tmp_path / "bpe.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match="cannot be read as a unit BPE"):
        UnitBPE.load(path)


def test_a_truncated_file_is_refused(bpe: UnitBPE, tmp_path: Path) -> None:
    path = tmp_path / "bpe.json"
    bpe.save(path)
    content = json.loads(path.read_text())
    del content["tokenizer"]["model"]
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="cannot be read as a unit BPE"):
        UnitBPE.load(path)
    with pytest.raises(WeightsError, match="cannot be read as a unit BPE"):
        UnitBPE.load(tmp_path / "missing.json")


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BackendUnavailable, match="pip install tokenizers"):
        UnitBPE.train([tokens_of([[0]])], 10)


# Rates ------------------------------------------------------------------------------------


def test_nearest_takes_the_frame_at_the_middle() -> None:
    tokens = tokens_of([[0, 1, 2, 3, 4]])
    assert rows_of(convert_rate(tokens, Fraction(25), "nearest")) == [[1, 3, 4]]
    assert rows_of(convert_rate(tokens, Fraction(75), "nearest")) == [[0, 1, 1, 2, 3, 3, 4, 4]]


def test_repeat_repeats_whole_frames() -> None:
    doubled = convert_rate(tokens_of([[4, 1], [6]]), Fraction(100), "repeat")
    assert rows_of(doubled) == [[4, 4, 1, 1], [6, 6]]
    assert doubled.frame_rate == 100
    values = convert_rate(features_of([[1.0, 2.0]]), Fraction(150), "repeat").values
    assert values.tolist() == [[[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]]


def test_mean_averages_over_time() -> None:
    features = features_of([[0.0, 2.0, 4.0, 6.0, 9.0]])
    halved = convert_rate(features, Fraction(25), "mean")
    assert halved.values.tolist() == [[[1.0, 5.0, 9.0]]]  # the last frame has only half its time
    assert halved.frame_rate == 25
    # At 100/3 Hz a frame lasts one and a half of the old ones.
    third = convert_rate(features, Fraction(100, 3), "mean").values[0, 0].tolist()
    assert third == pytest.approx([(0 + 1) / 1.5, (1 + 4) / 1.5, (6 + 4.5) / 1.5, 9.0])


def test_the_length_of_the_audio_decides_where_it_is_known() -> None:
    tokens = tokens_of([[0, 1, 2], [3]])
    longer = convert_rate(tokens, Fraction(75), "nearest", lengths=torch.tensor([6, 1]))
    assert rows_of(longer) == [[0, 1, 1, 2, 2, 2], [3]]
    values = convert_rate(
        features_of([[1.0, 3.0]]), Fraction(50), "mean", lengths=torch.tensor([3])
    )
    assert values.values.tolist() == [[[1.0, 3.0, 3.0]]]


@given(batches, rates, rates)
def test_lengths_cover_the_time_and_padding_is_not_heard(
    rows: list[list[int]], old: Fraction, new: Fraction
) -> None:
    tokens = tokens_of(rows, rate=old)
    result = convert_rate(tokens, new, "nearest")
    assert result.lengths.tolist() == [math.ceil(len(row) * new / old) for row in rows]
    for index, row in enumerate(rows):
        alone = rows_of(convert_rate(tokens_of([row], rate=old), new, "nearest"))[0]
        assert result.item(index).tolist() == alone
        assert set(alone) <= set(row)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20), rates, rates)
def test_a_mean_lies_between_its_frames(values: list[float], old: Fraction, new: Fraction) -> None:
    result = convert_rate(features_of([values], old), new, "mean")
    assert result.values.min() >= min(values) - 1e-4
    assert result.values.max() <= max(values) + 1e-4
    same = convert_rate(features_of([values], old), old, "mean")
    assert same.values[0, 0].tolist() == pytest.approx(values, abs=1e-5)


def test_the_frame_that_holds_the_middle_is_taken() -> None:
    half, double = Fraction(25), Fraction(50)
    assert nearest_frames(4, double, half, 2).tolist() == [0, 0, 1, 1]
    assert nearest_frames(3, half, double, 6).tolist() == [1, 3, 5]
    assert nearest_frames(4, double, double, 2).tolist() == [0, 1, 1, 1]


def test_senseless_conversions_are_refused() -> None:
    tokens, features = tokens_of([[0, 1]]), features_of([[0.0, 1.0]])
    with pytest.raises(UsageError, match=f"one of {', '.join(RATE_METHODS)}, but is 'linear'"):
        convert_rate(tokens, RATE, "linear")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="ids have no mean; use nearest"):
        convert_rate(tokens, Fraction(25), "mean")
    with pytest.raises(UsageError, match="above 0 Hz, but is 0"):
        convert_rate(tokens, Fraction(0), "nearest")
    with pytest.raises(UsageError, match="a multiple of 50 Hz, but 75 Hz.*use nearest or mean"):
        convert_rate(features, Fraction(75), "repeat")
    with pytest.raises(UsageError, match=r"lengths must be int64 \[1\]"):
        convert_rate(tokens, RATE, "nearest", lengths=torch.tensor([1, 2]))
    with pytest.raises(UsageError, match="no frames cannot become longer"):
        convert_rate(tokens_of([[]]), RATE, "nearest", lengths=torch.tensor([1]))
