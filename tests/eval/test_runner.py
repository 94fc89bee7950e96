from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from speechloom.container import load_audio, save_audio
from speechloom.errors import BackendUnavailable, OutputError, UnsupportedCapability, UsageError
from speechloom.eval import METRICS, EvalCase, evaluate
from speechloom.eval.runner import _as_sample, _Result
from speechloom.pipeline import Pipeline
from speechloom.speech import Region
from speechloom.values import Audio

LIGHT = ["mcd", "f0_error", "voicing_error"]
COST = ["rtf", "first_chunk", "peak_memory"]


@pytest.fixture
def recording(tmp_path, babble):
    path = tmp_path / "recording.wav"
    save_audio(babble(1.0), path)
    return path


def test_recordings_that_exist_are_judged_beside_each_other(tmp_path, babble, recording):
    other = tmp_path / "other.wav"
    save_audio(babble(1.0, f0_hertz=140.0), other)
    cases = [
        EvalCase(id="a", audio_result=recording, reference=recording, group="source"),
        EvalCase(id="b", audio_result=other, reference=recording),
    ]
    report = evaluate(cases, metrics=[*LIGHT, "rtf"])
    assert report.mean("mcd", "source") == 0
    assert report.mean("f0_error", "source") == 0
    assert report.mean("f0_error") == pytest.approx(1200 * np.log2(140 / 120), rel=0.1)
    assert report.mean("rtf") is None
    assert "existed already" in report.cases[0].skipped["rtf"]
    assert report.cases[1].audio == str(other)


def test_what_is_made_is_measured_and_kept(tmp_path, pipeline, recording):
    folder = tmp_path / "made" / "here"
    seen = []
    report = evaluate(
        [EvalCase(id="a", text="one two", voice="ann", seed=3, reference=recording)],
        pipeline=pipeline,
        metrics=[*LIGHT, *COST],
        keep_audio=folder,
        out=tmp_path / "report.json",
        progress=seen.append,
    )
    result = report.cases[0]
    assert result.error is None
    assert result.skipped == {}
    assert set(result.scores) == {*LIGHT, *COST}
    assert 0 < result.scores["first_chunk"].value < 60
    assert result.scores["rtf"].value > 0
    assert load_audio(folder / "a.wav").seconds == result.seconds == 1.0
    assert (tmp_path / "report.json").exists()
    assert seen == [result]
    warm, made, streamed = pipeline.calls
    assert warm == made == ("synthesize", "one two", {"voice": "ann", "seed": 3})
    assert streamed[2] == {"voice": "ann", "seed": 3, "stream": True}


def test_each_task_is_asked_for_with_what_the_case_names(pipeline):
    source = Path("source.wav")
    cases = [
        EvalCase(id="e", task="edit", audio=source, text="a b", new_text="a c"),
        EvalCase(id="c", task="continue", audio=source, seconds=2.0),
        EvalCase(id="v", task="convert", audio=source, voice="ann", reference=source),
    ]
    report = evaluate(cases, pipeline=pipeline, metrics=["rtf"])
    # The sources do not exist: the edit and the continuation are to sound like them.
    assert [bool(result.error) for result in report.cases] == [True, True, True]
    assert [call[0] for call in pipeline.calls] == ["edit", "edit", "continue", "convert"]
    options = [call[2] for call in pipeline.calls[1:]]
    assert options == [
        {"text": "a b", "new_text": "a c", "seed": 0},
        {"seconds": 2.0, "seed": 0},
        {"voice": "ann", "seed": 0},
    ]


def test_a_case_that_fails_harms_no_other(pipeline):
    cases = [EvalCase(id="bad", text="fail"), EvalCase(id="good", text="fine")]
    report = evaluate(cases, pipeline=pipeline, metrics=["rtf"])
    assert report.failed[0].id == "bad"
    assert report.failed[0].error == "AudioError: this text always fails"
    assert report.summary[0].n == 1


def test_a_mistake_of_the_program_is_not_hidden(pipeline, monkeypatch):
    def broken(text: str, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "synthesize", broken)
    with pytest.raises(ZeroDivisionError):
        evaluate([EvalCase(id="a", text="x")], pipeline=pipeline, metrics=["rtf"])


def test_a_metric_that_breaks_loses_its_own_scores_only(recording, monkeypatch, caplog):
    def broken(sample: object) -> float:
        raise ZeroDivisionError("no words")

    monkeypatch.setitem(METRICS, "mcd", replace(METRICS["mcd"], function=broken))
    cases = [EvalCase(id=name, audio_result=recording, reference=recording) for name in "ab"]
    report = evaluate(cases, metrics=["mcd", "f0_error"])
    assert [case.skipped["mcd"] for case in report.cases] == [
        "failed with ZeroDivisionError: no words"
    ] * 2
    assert [row.n for row in report.summary] == [0, 2]
    assert report.failed == ()
    assert "the metric mcd failed" in caplog.text
    assert "Traceback" in caplog.text


def test_a_pipeline_that_does_not_stream_has_no_latency(pipeline, monkeypatch):
    made = pipeline.synthesize

    def unstreamed(text: str, *, stream: bool = False, **options: object) -> object:
        if stream:
            raise UnsupportedCapability("this one does not stream")
        return made(text, **options)

    monkeypatch.setattr(pipeline, "synthesize", unstreamed)
    report = evaluate([EvalCase(id="a", text="x")], pipeline=pipeline, metrics=COST)
    assert "cannot be streamed" in report.cases[0].skipped["first_chunk"]


def test_the_words_of_a_continuation_are_looked_for_in_what_was_added(babble, recording):
    audio = babble(1.0)
    result = _Result(audio, regions=(Region(4000, 12_000, 16_000),))
    case = EvalCase(id="a", task="continue", audio=recording, text="more")
    sample = _as_sample(case, result)
    np.testing.assert_array_equal(sample.spoken.samples, audio.samples[:, 4000:12_000])
    assert sample.voice.seconds == 1.0
    whole = case.model_copy(update={"transcript": "all of it"})
    assert _as_sample(whole, result).spoken is None


def test_the_voice_to_sound_like(tmp_path, babble, recording):
    ann = tmp_path / "ann.wav"
    save_audio(babble(0.5), ann)
    result = _Result(babble(1.0))
    given = EvalCase(id="a", text="x", voice=str(ann), reference=recording)
    assert _as_sample(given, result).voice.seconds == 0.5
    named = EvalCase(id="a", text="x", voice="bob", reference=recording)
    assert _as_sample(named, result).voice.seconds == 1.0
    converted = EvalCase(id="a", task="convert", audio=recording, voice="bob")
    assert _as_sample(converted, result).voice is None


def test_requests_that_make_no_sense_are_refused_before_anything_is_made(pipeline, tmp_path):
    good = EvalCase(id="a", text="x")
    with pytest.raises(UsageError, match="no cases"):
        evaluate([], pipeline=pipeline)
    with pytest.raises(UsageError, match="'a' stands twice"):
        evaluate([good, good], pipeline=pipeline)
    with pytest.raises(UsageError, match="'a' has no audio_result"):
        evaluate([good])
    with pytest.raises(UsageError, match="no metric is called"):
        evaluate([good], pipeline=pipeline, metrics=["beauty"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        evaluate([good], pipeline=pipeline, metrics=["rtf"], keep_audio=tmp_path / "file" / "sub")
    assert pipeline.calls == []


def test_plots_without_matplotlib_are_refused_before_anything_is_made(pipeline, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendUnavailable, match="a plot needs the package matplotlib"):
        evaluate([EvalCase(id="a", text="x")], pipeline=pipeline, metrics=["rtf"], plots="plots")
    assert pipeline.calls == []


def test_a_real_pipeline_of_fakes_is_evaluated_in_all_tasks(fake_registry, tmp_path):
    source = tmp_path / "source.wav"
    rng = np.random.default_rng(0)
    save_audio(Audio(rng.standard_normal(32_000).astype(np.float32) * 0.1, 16_000), source)
    cases = [
        EvalCase(id="s", text="ab ba"),
        EvalCase(id="e", task="edit", audio=source, text="ab ba", new_text="ab bb"),
        EvalCase(id="c", task="continue", audio=source, text="ab", group="more"),
        EvalCase(id="v", task="convert", audio=source, voice=str(source), reference=source),
    ]
    report = evaluate(
        cases,
        pipeline=Pipeline(registry=fake_registry),
        metrics=[*COST, "mcd"],
        plots=tmp_path / "plots",
    )
    assert [result.error for result in report.cases] == [None] * 4
    for result in report.cases:
        assert {"rtf", "peak_memory"} <= set(result.scores) | set(result.skipped)
        assert ("first_chunk" in result.scores) == (result.task in ("synthesize", "convert"))
        assert (tmp_path / "plots" / f"{result.id}.png").stat().st_size > 5000
    assert "mcd" in report.cases[3].scores
