"""All metrics by name, and the choice among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.eval.metrics import cost, distortion, dnsmos, pesq, regions, speaker, stoi, wer
from speechloom.eval.metrics.metric import Metric

__all__ = ["METRICS", "choose_metrics"]

METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for module in (wer, speaker, stoi, pesq, distortion, dnsmos, regions, cost)
    for metric in module.METRICS
}
"""Every metric by its name."""


def choose_metrics(
    names: Iterable[str] | None = None,
) -> tuple[tuple[Metric, ...], Mapping[str, str]]:
    """The metrics to compute.

    Args:
        names: which; None for the default set, of which those that are not installed are left
            out.

    Returns:
        The metrics, and for each that was left out the sentence that says why.

    Raises:
        UsageError: no metric has that name.
        BackendUnavailable: a metric that was named is not installed.
    """
    if names is not None:
        chosen = tuple(_named(name) for name in dict.fromkeys(names))
        for metric in chosen:
            metric.check_installed()
        return chosen, {}
    installed, absent = [], {}
    for metric in METRICS.values():
        if not metric.by_default:
            continue
        try:
            metric.check_installed()
            installed.append(metric)
        except BackendUnavailable as error:
            absent[metric.name] = str(error)
    return tuple(installed), absent


def _named(name: str) -> Metric:
    if name not in METRICS:
        raise UsageError(f"no metric is called {name!r}; choose from {', '.join(METRICS)}")
    return METRICS[name]
