"""The experiment on joint training: its page says what its record holds."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "plugins" / "speechloom-starter" / "experiments"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    spec = importlib.util.spec_from_file_location("joint_training", FOLDER / "joint_training.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_record(experiment: ModuleType) -> None:
    page = (ROOT / "docs" / "joint-training.md").read_text(encoding="utf-8")
    results = FOLDER / "joint_training.json"
    assert experiment.table(results) in page, "render it: joint_training.py table"
    record = json.loads(results.read_text())
    assert f"{record['steps']} steps" in page
    assert f"{record['sentences']} held-out sentences" in page
    assert f"{record['recordings']['wer']:.3f}" in page


def test_a_row_is_mean_and_spread_over_the_seeds(experiment: ModuleType, tmp_path: Path) -> None:
    key = "wer synthesize"
    record = {"alone": {key: [0.2, 0.4]}, "joint": {key: [0.25, 0.25]}}
    (tmp_path / "results.json").write_text(json.dumps(record))
    row = "| synthesis: word error | 0.300 ± 0.141 | 0.250 ± 0.000 |"
    assert row in experiment.table(tmp_path / "results.json").splitlines()


def test_an_edit_says_one_other_word(experiment: ModuleType) -> None:
    said = experiment.with_another_word("He was quite certain of it.", "The elephant, then?")
    assert said == "He was quite elephant of it."
