"""Files of codes: what is written comes back, and everything else is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechloom.code_file import load_codes, save_codes
from speechloom.errors import OutputError, UsageError
from speechloom.values import Codes

torch = pytest.importorskip("torch")

RATE = Fraction(5000, 33)


def codes(frames: int = 5, levels: int = 2, *, scales: bool = True) -> Codes:
    draw = torch.Generator().manual_seed(frames)
    return Codes(
        torch.randint(0, 70_000, (1, levels, frames), generator=draw),
        "mine",
        70_000,
        RATE,
        scales=torch.rand(1, frames, generator=draw) if scales else None,
    )


@given(st.integers(0, 40), st.integers(1, 4), st.booleans(), st.fractions(0, 600))
def test_what_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    frames: int,
    levels: int,
    scales: bool,
    seconds: Fraction,
) -> None:
    path = tmp_path_factory.mktemp("codes") / "a.npz"
    written = codes(frames, levels, scales=scales)
    save_codes(path, written, seconds)
    read, lasts = load_codes(path)
    assert lasts == seconds
    assert (read.codec, read.codebook_size, read.frame_rate) == ("mine", 70_000, RATE)
    assert torch.equal(read.ids, written.ids)
    assert (read.scales is None) == (written.scales is None)
    if read.scales is not None and written.scales is not None:
        assert torch.equal(read.scales, written.scales)


def test_padding_is_not_written(tmp_path: Path) -> None:
    whole = codes(9)
    padded = Codes(whole.ids, "mine", 70_000, RATE, torch.tensor([4]), whole.scales)
    save_codes(tmp_path / "a.npz", padded, Fraction(1))
    read, _ = load_codes(tmp_path / "a.npz")
    assert read.ids.shape == (1, 2, 4)
    assert read.scales is not None
    assert read.scales.shape == (1, 4)


def test_a_file_holds_one_item(tmp_path: Path) -> None:
    two = Codes(torch.zeros(2, 1, 3, dtype=torch.int64), "mine", 8, RATE)
    with pytest.raises(UsageError, match="codes of one item, but there are 2"):
        save_codes(tmp_path / "a.npz", two, Fraction(1))


def test_nothing_is_left_behind_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        save_codes(tmp_path / "no" / "a.npz", codes(), Fraction(1))


HEADER = {"format": 1, "codes": "mine", "frame_rate": "50", "codebook_size": 8, "seconds": "1"}


def _write(path: Path, header: object, **arrays: np.ndarray) -> None:
    np.savez(path, header=np.array(json.dumps(header)), **arrays)


@pytest.mark.parametrize(
    ("header", "arrays", "why"),
    [
        ({**HEADER, "format": 2}, {"ids": np.zeros((1, 3), np.int32)}, "its format is 2"),
        (HEADER, {}, "ids"),
        ({"format": 1}, {"ids": np.zeros((1, 3), np.int32)}, "codes"),
        (HEADER, {"ids": np.zeros(3, np.int32)}, r"int64 \[B, K, F\]"),
        (HEADER, {"ids": np.full((1, 3), 8, np.int32)}, "0 to 7"),
        (HEADER, {"ids": np.zeros((1, 3), np.int32), "scales": np.ones(2)}, "scales"),
        ([1], {"ids": np.zeros((1, 3), np.int32)}, "list indices"),
    ],
)
def test_what_is_no_codes_file_is_refused(
    tmp_path: Path, header: object, arrays: dict[str, np.ndarray], why: str
) -> None:
    _write(tmp_path / "a.npz", header, **arrays)
    with pytest.raises(UsageError, match=f"not a whole codes file.*{why}"):
        load_codes(tmp_path / "a.npz")


def test_damaged_unsafe_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UsageError, match="does not exist"):
        load_codes(path)
    save_codes(path, codes(40), Fraction(1))
    whole = path.read_bytes()
    for content in (b"", b"RIFF", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="not a whole codes file"):
            load_codes(path)
    np.savez(path, header=np.array(json.dumps(HEADER)), ids=np.array([print], dtype=object))
    with pytest.raises(UsageError, match="not a whole codes file"):
        load_codes(path)
