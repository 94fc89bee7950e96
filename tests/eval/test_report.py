from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from speechloom.errors import OutputError, UsageError
from speechloom.eval import METRICS, CaseResult, Report
from speechloom.eval.report import CaseScore, summarise


def case(id: str, group: str = "result", **values: float) -> CaseResult:
    scores = {name: CaseScore(value=value) for name, value in values.items()}
    return CaseResult(id=id, group=group, task="synthesize", scores=scores)


def report_of(*cases: CaseResult, **options) -> Report:
    metrics = [METRICS["wer"], METRICS["mcd"]]
    summary = summarise(cases, metrics, confidence=0.95)
    return Report(summary=summary, cases=cases, speechloom="0.1.0", **options)


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(report.table())
    return console.file.getvalue()


def test_groups_are_summed_up_apart():
    report = report_of(case("a", wer=0.5), case("b", wer=0.1), case("c", "source", wer=0.2))
    assert report.mean("wer") == pytest.approx(0.3)
    assert report.mean("wer", "source") == 0.2
    assert report.mean("mcd") is None
    ours = report.summary[0]
    assert (ours.n, ours.low, ours.high) == (2, 0.1, 0.5)
    assert report.summary[1].low is None
    with pytest.raises(UsageError, match="no wer of theirs; it has wer of result"):
        report.mean("wer", "theirs")


def test_means_are_weighted():
    heavy = CaseResult(
        id="a", group="result", task="edit", scores={"wer": CaseScore(value=1.0, weight=3)}
    )
    assert report_of(heavy, case("b", wer=0.0)).mean("wer") == 0.75


def test_a_report_comes_back_from_its_file(tmp_path):
    failed = CaseResult(id="z", group="result", task="edit", error="AudioError: gone")
    report = report_of(case("a", wer=1 / 3), failed, not_installed={"pesq": "install it"})
    path = tmp_path / "report.json"
    report.save(path)
    assert Report.from_json(json.loads(path.read_text())) == report
    assert [result.id for result in report.failed] == ["z"]
    with pytest.raises(OutputError, match="cannot be written"):
        report.save(tmp_path / "absent" / "report.json")
    with pytest.raises(UsageError, match="not a report"):
        Report.from_json({"colour": "red"})


def test_the_table_shows_means_intervals_and_what_is_missing():
    report = report_of(
        case("a", wer=0.25, mcd=1234.0),
        case("b", wer=0.75),
        case("c", "source", wer=0.125),
        not_installed={"pesq": "install it"},
    )
    text = shown(report)
    assert "wer ↓" in text
    assert "0.5 [0.25, 0.75] (2)" in text
    assert "0.125 (1)" in text
    assert "mcd ↓ dB" in text
    assert "1234 (1)" in text
    assert "not installed" in text
    assert "95% interval" in text
