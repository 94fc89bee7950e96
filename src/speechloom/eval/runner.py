"""Run cases through a pipeline and judge what comes out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from speechloom.container import load_audio, save_audio
from speechloom.errors import OutputError, SpeechloomError, UsageError
from speechloom.eval.cases import EvalCase, check_unique
from speechloom.eval.making import EvalPipeline, make_case, seconds_to_first_chunk
from speechloom.eval.measurement import Measurement, measure
from speechloom.eval.metrics import Metric, choose_metrics
from speechloom.eval.plots import require_matplotlib, save_plot
from speechloom.eval.report import CaseResult, CaseScore, Report, summarise, to_case_score
from speechloom.eval.sample import Sample
from speechloom.speech import Alignment, Region, Speech
from speechloom.values import Audio

__all__ = ["evaluate"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Result:
    """A result as it was made or found."""

    audio: Audio
    regions: tuple[Region, ...] = ()
    alignment: Alignment = Alignment()
    measurement: Measurement | None = None


def evaluate(
    cases: Iterable[EvalCase],
    *,
    pipeline: EvalPipeline | None = None,
    metrics: Iterable[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    keep_audio: str | os.PathLike[str] | None = None,
    plots: str | os.PathLike[str] | None = None,
    confidence: float = 0.95,
    progress: Callable[[CaseResult], None] | None = None,
) -> Report:
    """Make what the cases ask for and judge it.

    The first case is made once more before anything is measured, so that loading the weights
    counts nowhere. A case that fails is reported and harms no other.

    Args:
        cases: what to make; those with an ``audio_result`` are only judged.
        pipeline: makes the results; not needed when every case has an ``audio_result``.
        metrics: names from `METRICS`; by default every usual one whose package is installed.
        out: file for the report as JSON.
        keep_audio: folder for the results, ``<id>.wav`` each; made when it is not there.
        plots: folder for a picture of each result, ``<id>.png``; made when it is not there.
        confidence: of the intervals, between 0 and 1.
        progress: called with each case when it is done.

    Returns:
        The report.

    Raises:
        UsageError: no cases, two with one id, an unknown metric, or no pipeline where one is
            needed.
        BackendUnavailable: a metric that was named, or the plots, need a package that is missing.
        OutputError: a file cannot be written.
    """
    cases = tuple(cases)
    _check_cases(cases, pipeline)
    chosen, not_installed = choose_metrics(metrics)
    if plots is not None:
        require_matplotlib()
    job = _Job(pipeline, chosen, _made_folder(keep_audio), _made_folder(plots))
    job.warm_up(cases)
    results = []
    for case in cases:
        results.append(job.run(case))
        if progress is not None:
            progress(results[-1])
    report = Report(
        summary=summarise(results, chosen, confidence=confidence),
        cases=tuple(results),
        not_installed=dict(not_installed),
        confidence=confidence,
        speechloom=_version(),
    )
    if out is not None:
        report.save(out)
    return report


@dataclass(frozen=True)
class _Job:
    """Everything that is the same for all cases."""

    pipeline: EvalPipeline | None
    metrics: tuple[Metric, ...]
    audio_folder: Path | None
    plot_folder: Path | None

    def warm_up(self, cases: Sequence[EvalCase]) -> None:
        """Make the first case that is made at all; whether it fails is seen when its turn comes."""
        to_make = next((case for case in cases if case.audio_result is None), None)
        if to_make is not None:
            try:
                make_case(self._required_pipeline(), to_make)
            except SpeechloomError:
                return

    def run(self, case: EvalCase) -> CaseResult:
        outcome = CaseResult(id=case.id, group=case.group, task=case.task)
        try:
            result = self._obtain(case)
            sample = _as_sample(case, result)
        except SpeechloomError as error:
            return outcome.model_copy(update={"error": f"{type(error).__name__}: {error}"})
        self._plot(case, result)
        scores, skipped = judge(sample, self.metrics)
        return outcome.model_copy(
            update={
                "scores": scores,
                "skipped": skipped,
                "seconds": result.audio.seconds,
                "audio": self._keep(case, result),
            }
        )

    def _required_pipeline(self) -> EvalPipeline:
        assert self.pipeline is not None  # evaluate() has checked that no case needs it otherwise
        return self.pipeline

    def _obtain(self, case: EvalCase) -> _Result:
        if case.audio_result is not None:
            return _Result(load_audio(case.audio_result))
        pipeline = self._required_pipeline()
        speech: Speech
        speech, measurement = measure(partial(make_case, pipeline, case))
        if any(metric.name == "first_chunk" for metric in self.metrics):
            first = seconds_to_first_chunk(pipeline, case)
            measurement = replace(measurement, first_chunk_seconds=first)
        return _Result(speech.audio, tuple(speech.regions), speech.alignment, measurement)

    def _keep(self, case: EvalCase, result: _Result) -> str | None:
        if case.audio_result is not None:
            return str(case.audio_result)
        if self.audio_folder is None:
            return None
        path = self.audio_folder / f"{case.id}.wav"
        save_audio(result.audio, path)
        return str(path)

    def _plot(self, case: EvalCase, result: _Result) -> None:
        if self.plot_folder is not None:
            path = self.plot_folder / f"{case.id}.png"
            title = f"{case.id}: {case.expected_words or case.task}"
            save_plot(
                path,
                result.audio,
                regions=result.regions,
                alignment=result.alignment,
                title=title,
            )


def judge(sample: Sample, metrics: Iterable[Metric]) -> tuple[dict[str, CaseScore], dict[str, str]]:
    """Compute metrics of one sample.

    Returns:
        The scores, and for each metric that does not apply or that failed the reason.
    """
    scores, skipped = {}, {}
    for metric in metrics:
        reason = metric.reason_against(sample)
        if reason is None:
            try:
                scores[metric.name] = to_case_score(metric.function(sample))
                continue
            except UsageError as error:
                reason = str(error)
            except Exception as error:
                # Most metrics are packages of others. The scores of an hour are not lost by one.
                logger.exception("the metric %s failed", metric.name)
                reason = f"failed with {type(error).__name__}: {error}"
        skipped[metric.name] = reason
    return scores, skipped


def _as_sample(case: EvalCase, result: _Result) -> Sample:
    return Sample(
        audio=result.audio,
        reference=None if case.reference is None else load_audio(case.reference),
        voice=_voice_recording(case),
        transcript=case.expected_words,
        spoken=_added_part(case, result),
        regions=result.regions or None,
        measurement=result.measurement,
    )


def _voice_recording(case: EvalCase) -> Audio | None:
    """Who the result should sound like: the voice given, the edited speaker, or the reference."""
    own = case.audio if case.task in ("edit", "continue") else None
    path = case.voice_file or own or case.reference
    return None if path is None else load_audio(path)


def _added_part(case: EvalCase, result: _Result) -> Audio | None:
    """The continuation alone, where only its words are known."""
    if case.task != "continue" or case.transcript is not None or not result.regions:
        return None
    first, last = result.regions[0], result.regions[-1]
    rate = result.audio.sample_rate
    return result.audio.slice(round(first.start_seconds * rate), round(last.end_seconds * rate))


def _check_cases(cases: Sequence[EvalCase], pipeline: EvalPipeline | None) -> None:
    if not cases:
        raise UsageError("there are no cases to evaluate")
    check_unique(cases, "cases")
    for case in cases:
        if pipeline is None and case.audio_result is None:
            raise UsageError(
                f"case {case.id!r} has no audio_result, so that a pipeline is needed to make it"
            )


def _made_folder(folder: str | os.PathLike[str] | None) -> Path | None:
    if folder is None:
        return None
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {error.strerror}") from error
    return path


def _version() -> str:
    try:
        return version("speechloom")
    except PackageNotFoundError:
        return "not installed"
