"""Measuring speech: cases in, a report with confidence intervals out.

::

    from speechloom.eval import evaluate, read_cases

    report = evaluate(read_cases("cases.jsonl"), pipeline=pipeline, metrics=["wer", "rtf"])
    print(report.mean("wer"))
"""

from speechloom.eval.cases import EvalCase, read_cases
from speechloom.eval.making import EvalPipeline
from speechloom.eval.metrics import METRICS, Metric, Score
from speechloom.eval.plots import save_plot, speech_figure
from speechloom.eval.report import CaseResult, Report, Summary
from speechloom.eval.runner import evaluate
from speechloom.eval.sample import Sample

__all__ = [
    "METRICS",
    "CaseResult",
    "EvalCase",
    "EvalPipeline",
    "Metric",
    "Report",
    "Sample",
    "Score",
    "Summary",
    "evaluate",
    "read_cases",
    "save_plot",
    "speech_figure",
]
