"""docs/benchmarks-tokens.md says what was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def render() -> ModuleType:
    path = Path(__file__).with_name("render_tokens.py")
    spec = importlib.util.spec_from_file_location("bench_render_tokens", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run(ratios: list[float], **changes: Any) -> dict[str, Any]:
    side = {"seconds": 2.0, "peak_mib": 100.4}
    work = {"theirs": side, "ours": side, "ratio": ratios[0], "ratios": ratios}
    row = {
        "row": "dac-16khz-10",
        "family": "dac-16khz",
        "size": "public",
        "audio_seconds": 10,
        "peer": "descript-audio-codec 1.0.0",
        "apart": {"codes": 0.0, "audio": 1.8e-7},
        "exact": True,
        "work": {"encode": work, "decode": work},
        "machine": {
            "processor": "Toy 1", "capability": "AVX2", "cores": 2, "torch": "2.9.1+cu128",
            "python": "3.11.7",
        },
        **changes,
    }  # fmt: skip
    benchmarks = [{"extra_info": row}, {"extra_info": {}}]
    return {"datetime": "2026-11-21T11:45:00", "benchmarks": benchmarks}


def test_the_page_is_what_the_record_says(render: ModuleType) -> None:
    text = render.PAGE.read_text()
    assert text == render.page(text, json.loads(render.RECORD.read_text())), (
        "docs/benchmarks-tokens.md is out of date; run `python tests/bench/render_tokens.py`"
    )


def test_a_row_by_hand(render: ModuleType) -> None:
    lines = render.table(render.kept(run([1.5, 1.25, 1.75]))).splitlines()
    assert lines[0] == "2026-11-21, Toy 1, AVX2, one thread of 2 cores, Python 3.11.7."
    assert lines[4] == (
        "| DAC 16 kHz, 12 levels | 10 s | encode | descript-audio-codec 1.0.0, torch 2.9.1 | 2 s "
        "| 2 s | 1.50 (3 rounds, 1.25 to 1.75) | 100 MiB | 100 MiB | no code |"
    )
    assert lines[5].startswith("|  |  | decode |  | 2 s | 2 s |")
    assert lines[5].endswith("| 2e-07 |")


def test_windows_are_named_where_they_differ(render: ModuleType) -> None:
    cut = run([2.0], family="hubert-base", apart={"features": 0.03}, exact=False)
    del cut["benchmarks"][0]["extra_info"]["work"]["decode"]
    assert "0.03 standard deviations, since it is cut into windows" in render.table(
        render.kept(cut)
    )
    some = render.table(render.kept(run([1.0], apart={"codes": 1e-4, "audio": 0.0})))
    assert "0.0001 of the codes" in some
    assert "1.00 (one round)" in some


def test_rows_of_several_machines_say_which(render: ModuleType) -> None:
    newer = run([2.5], row="dac-16khz-300", audio_seconds=300)
    machine = newer["benchmarks"][0]["extra_info"]["machine"]
    newer["benchmarks"][0]["extra_info"]["machine"] = machine | {"processor": "Toy 2"}
    lines = render.table(render.kept(run([1.5])) | render.kept(newer)).splitlines()
    assert "machine 1: Toy 1, AVX2" in lines[0]
    assert "machine 2: Toy 2, AVX2" in lines[0]
    assert "torch 2.9.1, machine 1 | 2 s" in lines[4]
    assert "torch 2.9.1, machine 2 | 2 s" in lines[6]


def test_a_row_that_is_measured_again_replaces_the_former(render: ModuleType) -> None:
    rows = render.kept(run([1.5])) | render.kept(run([2.5]))
    assert "2.50 (one round)" in render.table(rows)
    assert "1.50" not in render.table(rows)
