"""Public tokens beside the packages that they come from: the same weights, the same audio.

Each side is a process of its own (see `speechloom_bench.coder`); they take turns, so that what else
the machine does reaches both. A ratio is the median of the rounds' ratios. A row runs where the
original is installed: the environments are those of ``nox -s parity``. There::

    pytest tests/bench/test_speed_tokens.py -m bench --benchmark-enable --benchmark-json run.json
    python tests/bench/render_tokens.py run.json
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from speechloom_bench.families import FAMILIES, SEED

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

NEAR_TIES = 1e-3
"""Codes that may differ where the network ran in windows: another order of the same sums."""


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        family: what codes.
        seconds: of audio.
        rounds: each is one turn of either side.
        size: of the network.
        exact: whether both give the same, up to rounding; what they give differs where a model
            whose every frame hears the whole recording runs in windows.
    """

    family: str
    seconds: int
    rounds: int
    size: str = "public"
    exact: bool = True

    @property
    def row(self) -> str:
        size = "" if self.size == "public" else f"-{self.size}"
        return f"{self.family}{size}-{self.seconds}"


CASES = (
    Case("dac-16khz", 10, 3),
    Case("dac-16khz", 300, 3, size="narrow"),
    Case("dac-16khz", 300, 1),
    Case("encodec-24khz", 10, 5),
    Case("encodec-24khz", 300, 3),
    Case("encodec-48khz", 10, 5),
    Case("encodec-48khz", 300, 1),
    Case("speechtokenizer", 10, 5),
    Case("speechtokenizer", 300, 3, size="narrow"),
    Case("speechtokenizer", 300, 1),
    Case("hubert-base", 10, 5),
    Case("hubert-base", 300, 1, exact=False),
    Case("hubert-base-whole", 300, 1),
)


class Coder:
    """A side in its process; see `speechloom_bench.coder`."""

    def __init__(self, case: Case, side: str, folder: Path) -> None:
        self.folder, self.side = folder, side
        words = ["-m", "speechloom_bench.coder", case.family, side, folder, case.seconds]
        environ = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.facts = self._answer()

    def __enter__(self) -> Coder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    @property
    def codes(self) -> Path:
        return self.folder / f"{self.side}-codes.npy"

    @property
    def audio(self) -> Path:
        return self.folder / f"{self.side}-audio.npy"

    def encode(self) -> dict[str, float]:
        return self._told(f"encode {self.codes}")

    def decode(self, codes: Path) -> dict[str, float]:
        return self._told(f"decode {codes} {self.audio}")

    def _told(self, line: str) -> dict[str, float]:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # some originals print while they load
                return json.loads(line)
        raise RuntimeError(f"{self.side} ended with {self._process.wait()}")


def _compared(theirs: Path, ours: Path) -> dict[str, float]:
    """How far apart two results are, over the frames or samples that both have."""
    one, other = np.load(theirs), np.load(ours)
    if one.dtype == np.int64:
        frames = min(one.shape[-1], other.shape[-1])
        return {"codes": float((one[:, :frames] != other[:, :frames]).mean())}
    if one.shape[0] > 2:  # features [F, D], of which we have one more at the end
        frames = min(len(one), len(other)) - 1
        one, other = one[:frames], other[:frames]
        return {"features": float(np.abs(one - other).max() / one.std())}
    samples = min(one.shape[-1], other.shape[-1]) - 400  # before the end, which is padded
    return {"audio": float(np.abs(one[:, :samples] - other[:, :samples]).max())}


def _summary(theirs: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    ratios = [one["seconds"] / other["seconds"] for one, other in zip(theirs, ours, strict=True)]
    return {
        "theirs": _side(theirs),
        "ours": _side(ours),
        "ratio": statistics.median(ratios),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def _side(turns: list[dict[str, float]]) -> dict[str, float]:
    seconds = statistics.median(turn["seconds"] for turn in turns)
    return {"seconds": seconds, "peak_mib": max(turn["peak_mib"] for turn in turns)}


def _checkpoint(case: Case, folder: Path) -> Path:
    family = FAMILIES[case.family]
    torch.manual_seed(SEED)
    family.write(folder, family.sizes[case.size])
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
def test_as_fast_as_the_original_and_in_bounded_memory(
    case: Case, benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    family = FAMILIES[case.family]
    if importlib.util.find_spec(family.module) is None:
        pytest.skip(f"{family.package} is not installed")
    folder = _checkpoint(case, tmp_path)
    work: dict[str, tuple[list[dict[str, float]], list[dict[str, float]]]] = {}
    with Coder(case, "theirs", folder) as theirs, Coder(case, "ours", folder) as ours:

        def turn() -> None:
            work.setdefault("encode", ([], []))
            for side, times in zip((theirs, ours), work["encode"], strict=True):
                times.append(side.encode())
            if np.load(theirs.codes, mmap_mode="r").dtype != np.int64:
                return
            work.setdefault("decode", ([], []))
            for side, times in zip((theirs, ours), work["decode"], strict=True):
                times.append(side.decode(theirs.codes))

        benchmark.pedantic(turn, rounds=case.rounds)
        apart = _compared(theirs.codes, ours.codes)
        if "decode" in work:
            apart |= _compared(theirs.audio, ours.audio)
        benchmark.extra_info.update(
            row=case.row,
            family=case.family,
            size=case.size,
            audio_seconds=case.seconds,
            rounds=case.rounds,
            peer=f"{family.package} {theirs.facts['version']}",
            apart=apart,
            exact=case.exact,
            work={name: _summary(*times) for name, times in work.items()},
            machine=ours.facts["machine"],
        )
    if case.exact:
        assert apart.get("codes", 0.0) <= (0.0 if case.seconds <= 30 else NEAR_TIES)
        assert apart.get("audio", 0.0) <= 1e-4
        assert apart.get("features", 0.0) <= 1e-3
    for name, summary in benchmark.extra_info["work"].items():
        assert summary["ratio"] > 0.97, f"{name} is slower than the original"


@pytest.mark.parametrize(
    ("case", "shorter"),
    [
        pytest.param(Case("dac-16khz", 180, 1, size="narrow"), 60, id="dac-16khz"),
        pytest.param(Case("encodec-24khz", 180, 1), 60, id="encodec-24khz"),
        pytest.param(Case("speechtokenizer", 180, 1, size="narrow"), 60, id="speechtokenizer"),
        # Windows are of equal length: from three of 40 s on, one has all of its context.
        pytest.param(Case("hubert-base", 240, 1), 120, id="hubert-base"),
    ],
)
def test_memory_does_not_grow_with_length(case: Case, shorter: int, tmp_path: Path) -> None:
    family = FAMILIES[case.family]
    if importlib.util.find_spec(family.module) is None:
        pytest.skip(f"{family.package} is not installed")
    folder = _checkpoint(case, tmp_path)
    peaks = []
    for seconds in (shorter, case.seconds):
        with Coder(Case(case.family, seconds, 1), "ours", folder) as ours:
            peaks.append(ours.encode()["peak_mib"])
            held = np.load(ours.codes).nbytes + 4 * seconds * family.sample_rate
    # What is heard and what is returned is longer, of course: a few copies of it.
    assert peaks[1] - peaks[0] < 4 * held / 2**20 + 50
