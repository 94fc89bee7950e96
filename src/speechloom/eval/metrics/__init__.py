"""The metrics, one module per subject."""

from speechloom.eval.metrics.metric import Metric, Score
from speechloom.eval.metrics.registry import METRICS, choose_metrics

__all__ = ["METRICS", "Metric", "Score", "choose_metrics"]
