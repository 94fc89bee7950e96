"""docs/benchmarks.md says what was measured, and the tables say what the records hold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def render() -> ModuleType:
    path = Path(__file__).with_name("render.py")
    spec = importlib.util.spec_from_file_location("bench_render", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def record() -> dict[str, Any]:
    row = {
        "row": "decode-s",
        "title": "whole decode S",
        "peer": "theirs",
        "config": "float32, torch linear",
        "parity": {"what": "logits", "error": 2.4e-6, "allowed": 1e-4, "passed": True},
        "must": {"float32": 2.5},
        "seconds": 2.0,
        "spread": 0.05,
        "flops": 3.0e11,
        "of_ceiling": 0.85,
        "ceilings": {"linear float32": 176.0},
        "peers": {
            "theirs": {"seconds": 5.0, "spread": 0.5, "ratio": 2.5},
            "theirs, compiled": {"seconds": 0.5, "spread": 0.01, "ratio": 0.25},
        },
        "machine": {
            "processor": "Toy 1",
            "capability": "AVX2",
            "threads": 2,
            "torch": "2.13.0",
            "python": "3.11.7",
            "bfloat16_units": False,
        },
    }
    return {
        "datetime": "2026-11-21T09:00:00",
        "machine_info": {"node": "secret-host"},
        "benchmarks": [{"extra_info": row}, {"extra_info": {"real_time_factor": 0.2}}],
    }


def test_the_page_is_what_the_records_say(render: ModuleType) -> None:
    text = render.PAGE.read_text()
    assert render.page(text, render.records()) == text


def test_a_table_by_hand(render: ModuleType, record: dict[str, Any]) -> None:
    lines = render.tables(render.keep(record), render.CPU).splitlines()
    assert lines[0].startswith("2026-11-21, Toy 1, AVX2, 2 threads, torch 2.13.0")
    assert "linear float32 176 GFLOP/s" in lines[1]
    start = next(i for i, line in enumerate(lines) if "whole decode S" in line)
    assert lines[start].endswith(
        "| theirs | 5.00 s ± 500 ms | 2.00 s ± 50 ms | 2.5x | 2.5x "
        "| 85% (all of it: 2.94x) | 2e-06 |"
    )
    assert lines[start + 1] == "|  | theirs, compiled | 500 ms ± 10 ms |  | 0.25x |  |  |  |"
    assert "without bfloat16 units" in lines[start + 2]
    assert sum("| not measured |" in line for line in lines) > 5


def test_what_is_kept_does_not_name_the_machine(render: ModuleType, record: dict[str, Any]) -> None:
    kept = render.keep(record)
    assert list(kept["rows"]) == ["decode-s"]
    assert "secret-host" not in str(kept)


def test_only_what_is_between_the_markers_changes(
    render: ModuleType, record: dict[str, Any]
) -> None:
    text = "# Top\n<!-- begin cpu -->\nold\n<!-- end cpu -->\n"
    text += "<!-- begin gpu --><!-- end gpu -->\nend\n"
    made = render.page(text, {"cpu-toy": render.keep(record)})
    assert made.startswith("# Top\n<!-- begin cpu -->\n2026")
    assert made.endswith("<!-- end gpu -->\nend\n")
    assert "old" not in made
    assert "Not measured." in made
    assert render.page(made, {"cpu-toy": render.keep(record)}) == made
