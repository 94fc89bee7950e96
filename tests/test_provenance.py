"""The record of how speech came to be, and making it again from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechloom.container import save_audio
from speechloom.errors import SpeechloomError, UsageError, WeightsError
from speechloom.hooks import Hooks
from speechloom.pipeline import Pipeline
from speechloom.provenance import replay
from speechloom.registry import Registry
from speechloom.speech import Request, Speech, read_provenance
from speechloom.testing.fake_specs import CODEC
from speechloom.testing.fakes import FakeCodec
from speechloom.values import Audio, Voice

Record = Callable[..., Audio]


@pytest.fixture
def source(tmp_path: Path, record: Record) -> Path:
    path = tmp_path / "source.wav"
    save_audio(record(2.0, 22_050, 2), path)
    return path


def made(pipeline: Pipeline, task: str, source: Path) -> Speech:
    options: dict[str, dict[str, Any]] = {
        "synthesize": {"text": "Hello. You", "style": "fast", "lexicon": {"you": ["y", "u"]}},
        "edit": {"audio": source, "text": "one two three", "new_text": "one three four"},
        "continue_": {"audio": str(source), "text": "so on", "temperature": 0.7},
        "convert": {"audio": source, "voice": "bob"},
    }
    speech = getattr(pipeline, task)(**options[task])
    assert isinstance(speech, Speech)
    return speech


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
@pytest.mark.parametrize("task", ["synthesize", "edit", "continue_", "convert"])
def test_replay_makes_the_same_samples(
    pipeline: Pipeline, source: Path, tmp_path: Path, task: str, suffix: str
) -> None:
    speech = made(pipeline, task, source)
    speech.save(tmp_path / f"out{suffix}")
    again = replay(tmp_path / f"out{suffix}", pipeline=pipeline)
    assert np.array_equal(again.audio.samples, speech.audio.samples)
    assert again.regions == speech.regions
    assert again.provenance == speech.provenance
    assert again.seed == speech.seed


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("edit", {"spans": [(0.2, 0.4, "so"), (1.0, 1.0, "on")]}),
        ("continue_", {"seconds": 0.5}),
        ("continue_", {"text": "so on", "seconds": 0.9}),
        ("convert", {"voice": [0.5, 0.5, 0.0, 0.1]}),
        ("convert", {"voice": Voice(np.ones(4, np.float32), "fake-voice", "one")}),
    ],
)
def test_other_requests_are_replayed_too(
    pipeline: Pipeline, source: Path, tmp_path: Path, task: str, options: dict[str, Any]
) -> None:
    speech = getattr(pipeline, task)(source, **options)
    speech.save(tmp_path / "out.wav")
    again = replay(tmp_path / "out.wav", pipeline=pipeline)
    assert np.array_equal(again.audio.samples, speech.audio.samples)


def test_replay_finds_the_same_parts_by_itself(
    pipeline: Pipeline,
    fake_registry: Registry,
    hooks: Hooks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = Pipeline(
        registry=fake_registry, hooks=hooks, parts={"content_generator": "fake-text-generator"}
    )
    speech = chosen.synthesize("hello", seed=3)
    speech.save(tmp_path / "out.wav")
    monkeypatch.setattr("speechloom.registry._default", fake_registry)
    monkeypatch.setattr("speechloom.hooks._default", hooks)
    again = replay(tmp_path / "out.wav")
    assert np.array_equal(again.audio.samples, speech.audio.samples)


# Recordings that are not where they were --------------------------------------------------


def test_a_source_that_moved(pipeline: Pipeline, source: Path, tmp_path: Path) -> None:
    speech = made(pipeline, "convert", source)
    speech.save(tmp_path / "out.wav")
    moved = tmp_path / "elsewhere.wav"
    source.rename(moved)
    with pytest.raises(UsageError, match=r"source\.wav is gone.*audio="):
        replay(tmp_path / "out.wav", pipeline=pipeline)
    again = replay(tmp_path / "out.wav", pipeline=pipeline, audio=moved)
    assert np.array_equal(again.audio.samples, speech.audio.samples)
    with moved.open("rb") as file:
        again = replay(tmp_path / "out.wav", pipeline=pipeline, audio=file)
    assert np.array_equal(again.audio.samples, speech.audio.samples)


def test_a_source_that_changed(
    pipeline: Pipeline, source: Path, tmp_path: Path, record: Record
) -> None:
    made(pipeline, "edit", source).save(tmp_path / "out.wav")
    save_audio(record(2.0, 22_050, 2, number=1), source)
    with pytest.raises(UsageError, match="its samples differ"):
        replay(tmp_path / "out.wav", pipeline=pipeline)
    with pytest.raises(UsageError, match="its samples differ"):
        replay(tmp_path / "out.wav", pipeline=pipeline, audio=record(1.0))


def test_a_voice_that_moved_or_changed(
    pipeline: Pipeline, source: Path, tmp_path: Path, record: Record
) -> None:
    reference = tmp_path / "voice.wav"
    save_audio(record(1.0, number=2), reference)
    speech = pipeline.convert(source, voice=reference, seed=1)
    speech.save(tmp_path / "out.wav")
    moved = reference.rename(tmp_path / "moved.wav")
    with pytest.raises(UsageError, match=r"voice\.wav is gone.*voice="):
        replay(tmp_path / "out.wav", pipeline=pipeline)
    with pytest.raises(UsageError, match="its samples differ"):
        replay(tmp_path / "out.wav", pipeline=pipeline, voice=source)
    again = replay(tmp_path / "out.wav", pipeline=pipeline, voice=moved)
    assert np.array_equal(again.audio.samples, speech.audio.samples)


def test_a_recording_that_was_no_file_must_be_given_again(
    pipeline: Pipeline, record: Record, tmp_path: Path
) -> None:
    audio = record(1.5)
    for given in (audio, (audio.samples, 16_000)):
        speech = pipeline.convert(given, voice="ann", seed=1)
        asked = speech.provenance["request"]["audio"]
        assert set(asked) == {"sha256"}
        speech.save(tmp_path / "out.wav")
        with pytest.raises(UsageError, match="audio="):
            replay(tmp_path / "out.wav", pipeline=pipeline)
        again = replay(tmp_path / "out.wav", pipeline=pipeline, audio=audio)
        assert np.array_equal(again.audio.samples, speech.audio.samples)


def test_recordings_that_it_was_not_made_from(
    pipeline: Pipeline, record: Record, tmp_path: Path
) -> None:
    pipeline.synthesize("hello", voice="ann", seed=1).save(tmp_path / "out.wav")
    with pytest.raises(UsageError, match="leave audio= out"):
        replay(tmp_path / "out.wav", pipeline=pipeline, audio=record(1.0))
    with pytest.raises(UsageError, match="leave voice= out"):
        replay(tmp_path / "out.wav", pipeline=pipeline, voice=record(1.0))


def test_a_file_named_like_a_voice_does_not_take_its_place(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann").mkdir()
    speech = pipeline.synthesize("hello", voice="ann", seed=1)
    assert speech.provenance["request"]["voice"] == {"name": "ann"}


# Records that are not whole ---------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    record = read_provenance(path)
    change(record)
    save_audio(
        Audio(np.zeros(10, np.float32), 16_000), path,
        comment="speechloom-provenance:" + json.dumps(record),
    )  # fmt: skip
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.clear(),
        lambda r: r.pop("format"),
        lambda r: r.update(format=99),
        lambda r: r.pop("seed"),
        lambda r: r.update(seed="x"),
        lambda r: r.pop("chain"),
        lambda r: r.update(chain=3),
        lambda r: r.update(chain=[{}]),
        lambda r: r.update(chain=["codec"]),
        lambda r: r["chain"][0].pop("weights"),
        lambda r: r.pop("request"),
        lambda r: r.update(request="x"),
        lambda r: r.update(request=[]),
        lambda r: r["request"].pop("task"),
        lambda r: r["request"].update(task="sing"),
        lambda r: r["request"].pop("text"),
        lambda r: r["request"].update(text=3),
        lambda r: r["request"].update(spans=[[1]]),
        lambda r: r["request"].update(style=[1]),
        lambda r: r["request"].update(style={"rate": "x"}),
        lambda r: r["request"].update(lexicon=[1]),
        lambda r: r["request"].update(temperature=None),
        lambda r: r["request"].update(voice={"vector": "x"}),
        lambda r: r["request"].update(voice={"vector": [1.0], "kind": "fake-voice"}),
        lambda r: r["request"].update(voice=3),
        lambda r: r["request"].update(audio=[]),
    ],
)
def test_a_damaged_record_is_one_usage_error(
    pipeline: Pipeline, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path = tmp_path / "out.wav"
    pipeline.synthesize("hello", seed=1).save(path)
    with pytest.raises(UsageError) as caught:
        replay(rewritten(path, change), pipeline=pipeline)
    assert "\n" not in str(caught.value)


def test_a_file_with_no_record(pipeline: Pipeline, source: Path) -> None:
    with pytest.raises(UsageError, match="no speechloom record"):
        replay(source, pipeline=pipeline)


# Other parts ------------------------------------------------------------------------------


class Trained(FakeCodec):
    """A codec with weights."""

    sha256 = "1" * 64

    @property
    def weights(self) -> Mapping[str, str]:
        return {"codec.safetensors": self.sha256}


def test_other_weights_are_refused(
    pipeline: Pipeline, fake_registry: Registry, source: Path, tmp_path: Path
) -> None:
    codec = Trained()
    with fake_registry.override(codec):
        speech = made(pipeline, "convert", source)
        speech.save(tmp_path / "out.wav")
        (row,) = (r for r in speech.provenance["chain"] if r["role"] == "codec")
        assert row["weights"] == {"codec.safetensors": "1" * 64}
        replay(tmp_path / "out.wav", pipeline=pipeline)
        codec.sha256 = "2" * 64
        with pytest.raises(WeightsError, match="codec fake-codec has other weights"):
            replay(tmp_path / "out.wav", pipeline=pipeline)


def test_a_pipeline_of_other_parts_is_refused(
    pipeline: Pipeline, fake_registry: Registry, hooks: Hooks, source: Path, tmp_path: Path
) -> None:
    made(pipeline, "convert", source).save(tmp_path / "out.wav")
    twin = FakeCodec(CODEC.model_copy(update={"id": "twin-codec"}))
    with fake_registry.override(twin):
        other = Pipeline(registry=fake_registry, hooks=hooks, parts={"codec": "twin-codec"})
        with pytest.raises(UsageError, match="fake-codec, but the pipeline has twin-codec"):
            replay(tmp_path / "out.wav", pipeline=other)


def test_a_part_that_is_no_longer_installed(
    pipeline: Pipeline,
    isolated_registry: Registry,
    hooks: Hooks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline.synthesize("hello", seed=1).save(tmp_path / "out.wav")
    monkeypatch.setattr("speechloom.registry._default", isolated_registry)
    monkeypatch.setattr("speechloom.hooks._default", hooks)
    with pytest.raises(SpeechloomError, match="fake-feature-generator"):
        replay(tmp_path / "out.wav")


# What is in it ----------------------------------------------------------------------------


def test_the_record_names_every_part_with_its_version(pipeline: Pipeline) -> None:
    record = pipeline.synthesize("hello", voice="ann", seed=3).provenance
    assert record["format"] == 1
    assert record["generated"] is True
    assert record["seed"] == 3
    chain = pipeline.plan("synthesize", voice=True)
    assert [(r["role"], r["id"]) for r in record["chain"]] == [
        (link.role, link.spec.id) for link in chain.links
    ]
    assert {r["distribution"] for r in record["chain"]} == {"speechloom-fakes"}
    assert {r["version"] for r in record["chain"]} == {"1.0"}


@pytest.mark.parametrize(
    "options",
    [
        {"style": {"rate": np.float32(1.5)}},
        {"style": np.float64(1.5)},
        {"temperature": np.float32(0.5)},
        {"seed": np.int64(3)},
        {"voice": np.ones(4, np.float32)},
        {"voice": np.ones(4, np.int64)},
        {"lexicon": {"hello": ("h", "i")}},
    ],
    ids=repr,
)
def test_the_record_is_json_whatever_was_given(pipeline: Pipeline, options: dict[str, Any]) -> None:
    record = pipeline.synthesize("hello", **{"voice": "ann", **options}).provenance
    assert json.loads(json.dumps(record)) == record


def test_the_record_of_recordings_is_json(pipeline: Pipeline, source: Path, tmp_path: Path) -> None:
    speeches = [
        pipeline.edit(source, spans=((np.float32(0.25), np.float64(0.5), "so"),), voice=source),
        pipeline.continue_(source, seconds=np.float32(0.5)),
        pipeline.convert(source.read_bytes(), voice=source.read_bytes()),
        pipeline.run(
            Request(
                "continue", audio=source, seconds=np.float32(0.5), seed=np.int64(2),
                temperature=np.float32(0.5), spans=(),
            )
        ),
    ]  # fmt: skip
    for speech in speeches:
        assert json.loads(json.dumps(speech.provenance)) == speech.provenance
        speech.save(tmp_path / "out.wav")
        assert read_provenance(tmp_path / "out.wav") == speech.provenance
    asked = speeches[0].provenance["request"]
    assert asked["audio"]["path"] == str(source)
    assert asked["voice"]["path"] == str(source)
    assert "path" not in speeches[2].provenance["request"]["audio"]
    assert "path" not in speeches[2].provenance["request"]["voice"]


def test_tensors_are_voices_too(pipeline: Pipeline) -> None:
    torch = pytest.importorskip("torch")
    speech = pipeline.synthesize("hello", voice=torch.ones(4), seed=1)
    assert speech.provenance["request"]["voice"] == {"vector": [1.0] * 4}


def test_relative_paths_are_recorded_whole(
    pipeline: Pipeline, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    speech = pipeline.convert("source.wav", voice="ann", seed=1)
    assert speech.provenance["request"]["audio"]["path"] == str(source)
