from __future__ import annotations

import importlib.util
import random

import numpy as np
import pytest

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.eval import METRICS, Sample
from speechloom.eval.measurement import Measurement, measure
from speechloom.eval.metrics import choose_metrics, wer
from speechloom.eval.metrics.wer import recognise, word_errors
from speechloom.values import Audio

RATE = 16_000


def score(name: str, sample: Sample) -> float:
    return METRICS[name].function(sample).value


def noisy(audio: Audio, level: float, seed: int = 1) -> Audio:
    noise = np.random.default_rng(seed).standard_normal(audio.samples.shape) * level
    return Audio((audio.samples + noise).astype(np.float32), audio.sample_rate)


# Words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "heard", "errors", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("The cat, sat!", "the bat sat", 1, 3),
        ("the cat sat", "cat", 2, 3),
        ("the cat", "the cat sat down", 2, 2),
        ("21 cats", "twenty one cats", 0, 3),
        ("the cat", "", 2, 2),
    ],
)
def test_word_errors_of_known_strings(expected, heard, errors, words):
    assert word_errors(expected, heard) == (errors, words)


def test_a_transcript_without_words_has_no_error_rate():
    with pytest.raises(UsageError, match="has no words"):
        word_errors("...", "the cat")


def test_word_error_rate_counts_by_words_and_listens_where_the_transcript_is(babble, monkeypatch):
    whole, part, reference = babble(1.0), babble(1.1), babble(1.2)
    heard = {id(whole): "one two", id(part): "two", id(reference): "two three"}
    monkeypatch.setattr(wer, "recognise", lambda audio: heard[id(audio)])
    sample = Sample(whole, reference=reference, transcript="two three four", spoken=part)
    found = METRICS["wer"].function(sample)
    assert (found.value, found.weight) == (pytest.approx(2 / 3), 3)
    assert score("wer_reference", sample) == pytest.approx(1 / 3)
    assert score("wer", Sample(whole, transcript="one two")) == 0


def test_what_the_recogniser_hears_does_not_depend_on_what_it_heard(babble):
    def hear(audio: Audio) -> tuple[str, float]:
        return recognise(audio), wer._decoder().hyp().score

    one, other = babble(0.5), babble(0.3, f0_hertz=220.0, seed=5)
    first = hear(one)
    assert hear(other) != first
    assert hear(one) == first


# Comparison with a reference ------------------------------------------------------------------


def test_identical_recordings_are_perfect(babble):
    audio = babble()
    sample = Sample(audio, reference=audio, voice=audio)
    assert score("mcd", sample) == 0
    assert score("f0_error", sample) == 0
    assert score("voicing_error", sample) == 0
    assert score("stoi", sample) == pytest.approx(1.0, abs=1e-6)


def test_distortion_ignores_level_and_tempo_but_not_the_spectrum(babble):
    audio = babble()
    quiet = Audio(audio.samples * 0.3, RATE)
    # One sample and then itself again: half the tempo at the same pitch, frame by frame.
    frames = audio.samples[0].reshape(-1, 160 * 20)
    slow = Audio(np.repeat(frames, 2, axis=0).reshape(1, -1), RATE)
    dull = np.convolve(audio.samples[0], np.ones(6) / 6, mode="same").astype(np.float32)
    distortion = {
        name: score("mcd", Sample(other, reference=audio))
        for name, other in {
            "quiet": quiet,
            "slow": slow,
            "dull": Audio(dull, RATE),
            "other": babble(seed=7),
        }.items()
    }
    assert distortion["quiet"] < 1e-3
    assert distortion["slow"] < distortion["dull"] < 30
    assert distortion["dull"] > 2
    assert distortion["other"] > distortion["slow"]


def test_distortion_is_the_root_mean_square_difference_of_spectra_in_db():
    from speechloom.eval.metrics.distortion import _DECIBELS
    from speechloom.eval.spectrum import cosine_series

    band = np.arange(40) + 0.5
    difference = 0.3 * np.cos(np.pi * 2 * band / 40) + 0.1 * np.cos(np.pi * 5 * band / 40)
    in_db = np.sqrt(np.mean((20 / np.log(10) * difference) ** 2))
    cepstra = cosine_series(difference[None], 24)
    assert _DECIBELS * np.linalg.norm(cepstra) == pytest.approx(in_db)


def test_the_error_of_a_semitone_is_100_cents(sine):
    low, high = Audio(sine(200.0), RATE), Audio(sine(200.0 * 2 ** (1 / 12)), RATE)
    found = METRICS["f0_error"].function(Sample(high, reference=low))
    assert found.value == pytest.approx(100, abs=2)
    assert 95 <= found.weight <= 200


def test_voicing_errors_are_counted(sine):
    voiced = Audio(sine(200.0), RATE)
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    sample = Sample(Audio(noise, RATE), reference=voiced)
    assert score("voicing_error", sample) > 0.9
    with pytest.raises(UsageError, match="no voiced frame"):
        score("f0_error", Sample(Audio(np.zeros(RATE, np.float32), RATE), reference=voiced))


def test_intelligibility_falls_with_noise(babble):
    audio = babble()
    little, much = (
        score("stoi", Sample(noisy(audio, level), reference=audio)) for level in (0.005, 0.3)
    )
    assert 0.5 < little < 0.999
    assert much < little - 0.1


def test_recordings_of_other_timing_are_refused_by_name(babble):
    sample = Sample(babble(2.0), reference=babble(3.0))
    with pytest.raises(UsageError, match=r"result lasts 2\.00 s and the reference 3\.00 s"):
        score("stoi", sample)
    almost = Sample(babble(3.0).slice(0, 3 * RATE - 500), reference=babble(3.0))
    assert score("stoi", almost) > 0.99


def test_intelligibility_needs_speech_in_the_reference(babble):
    short = babble(0.2)
    with pytest.raises(UsageError, match=r"at least 0\.4 s"):
        score("stoi", Sample(short, reference=short))


def test_rates_and_channels_do_not_matter(babble):
    audio = babble()
    stereo = Audio(np.repeat(audio.resampled(24_000).samples, 2, axis=0), 24_000)
    sample = Sample(stereo, reference=audio)
    assert score("mcd", sample) < 1
    assert score("f0_error", sample) < 5
    assert score("stoi", sample) > 0.99


def test_perceptual_quality_falls_with_noise(babble):
    pytest.importorskip("pesq")
    audio = babble()
    assert score("pesq", Sample(audio, reference=audio)) > 4.5
    assert score("pesq", Sample(noisy(audio, 0.1), reference=audio)) < 3
    with pytest.raises(UsageError, match="silent"):
        score("pesq", Sample(Audio(np.zeros(3 * RATE, np.float32), RATE), reference=audio))


# No reference ---------------------------------------------------------------------------------


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")


@needs("resemblyzer")
@pytest.mark.filterwarnings("ignore")  # of librosa and its packages
def test_the_speaker_of_a_recording_is_its_own_and_random_states_are_left_alone(babble):
    import torch

    audio = babble()
    torch_before, numpy_before, python_before = (
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),
        random.getstate(),
    )
    assert score("speaker_similarity", Sample(audio, voice=audio)) == pytest.approx(1, abs=1e-5)
    other = babble(f0_hertz=240.0, seed=4)
    assert score("speaker_similarity", Sample(other, voice=audio)) < 0.98
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()
    assert random.getstate() == python_before
    silence = Audio(np.zeros(RATE, np.float32), RATE)
    with pytest.raises(UsageError, match="silent"):
        score("speaker_similarity", Sample(silence, voice=audio))


@needs("speechmos")
@pytest.mark.filterwarnings("ignore")  # of librosa and its packages
def test_opinion_scores_hear_noise(babble):
    audio = babble()
    names = ("dnsmos", "dnsmos_speech", "dnsmos_background", "dnsmos_p808")
    clean, dirty = Sample(audio), Sample(noisy(audio, 0.2))
    assert all(1 <= score(name, clean) <= 5 for name in names)
    assert score("dnsmos_background", dirty) < score("dnsmos_background", clean)


# Cost -----------------------------------------------------------------------------------------


def test_cost_is_read_from_the_measurement(babble):
    sample = Sample(babble(2.0), measurement=Measurement(0.5, 3 * 2**20, 0.1))
    found = METRICS["rtf"].function(sample)
    assert (found.value, found.weight) == (0.25, 2.0)
    assert score("first_chunk", sample) == 0.1
    assert score("peak_memory", sample) == 3
    bare = Sample(babble(2.0), measurement=Measurement(0.5))
    with pytest.raises(UsageError, match="cannot be streamed"):
        score("first_chunk", bare)
    with pytest.raises(UsageError, match="does not tell"):
        score("peak_memory", bare)


def test_the_peak_of_a_call_is_seen_and_then_forgotten():
    big, during = measure(lambda: np.ones(40_000_000).sum())  # 320 MB
    _, after = measure(lambda: None)
    assert big == 40_000_000
    assert during.wall_seconds > after.wall_seconds >= 0
    if during.peak_memory_bytes is not None and after.peak_memory_bytes is not None:
        assert during.peak_memory_bytes > 300_000_000
        assert after.peak_memory_bytes <= during.peak_memory_bytes


def test_the_peak_is_asked_for_portably_where_there_is_no_proc(monkeypatch, tmp_path):
    from speechloom.eval import measurement

    resource = pytest.importorskip("resource")
    monkeypatch.setattr(measurement, "_STATUS", tmp_path / "absent")
    monkeypatch.setattr(measurement, "_CLEAR_REFS", tmp_path / "absent" / "too")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = measure(lambda: None)[1].peak_memory_bytes
    assert found == pytest.approx(peak, rel=0.1)


# The table ------------------------------------------------------------------------------------


def test_every_metric_of_the_issue_is_there_and_says_what_it_needs():
    assert {
        "wer", "speaker_similarity", "stoi", "pesq", "mcd", "f0_error", "dnsmos", "rtf",
        "first_chunk", "peak_memory",
    } <= set(METRICS)  # fmt: skip
    for name, metric in METRICS.items():
        assert metric.name == name
        assert bool(metric.packages) == bool(metric.extra)


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        ("wer", "does not say"),
        ("speaker_similarity", "no recording of the voice"),
        ("mcd", "no reference"),
        ("rtf", "existed already"),
    ],
)
def test_a_bare_sample_has_reasons_against(babble, metric, reason):
    assert reason in METRICS[metric].reason_against(Sample(babble(0.5)))
    assert METRICS["dnsmos"].reason_against(Sample(babble(0.5))) is None


@pytest.fixture
def without(monkeypatch):
    """Make packages fail to import, as if they were not installed."""

    def block(*packages: str) -> None:
        import importlib

        real = importlib.import_module

        def guarded(name, package=None):
            if name.split(".")[0] in packages:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return real(name, package)

        monkeypatch.setattr(importlib, "import_module", guarded)

    return block


def test_a_metric_that_is_named_must_be_installed(without):
    without("pystoi")
    with pytest.raises(BackendUnavailable, match=r"pip install 'speechloom\[eval\]'") as caught:
        choose_metrics(["mcd", "stoi"])
    assert caught.value.plugin == "speechloom:eval"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_the_default_set_does_without_what_is_not_installed(without):
    without("pystoi", "pesq", "resemblyzer", "speechmos", "jiwer")
    chosen, absent = choose_metrics()
    assert set(absent) == {"stoi", "pesq", "speaker_similarity", "dnsmos", "wer", "wer_reference"}
    assert "speechloom[eval-pesq]" in absent["pesq"]
    assert [m.name for m in chosen] == [
        "mcd", "f0_error", "voicing_error", "seam_flux", "seam_level", "silence", "variety",
        "rtf", "first_chunk", "peak_memory",
    ]  # fmt: skip


def test_names_are_checked_and_doubles_removed():
    with pytest.raises(UsageError, match="no metric is called 'beauty'; choose from wer, "):
        choose_metrics(["beauty"])
    chosen, absent = choose_metrics(["mcd", "rtf", "mcd"])
    assert [metric.name for metric in chosen] == ["mcd", "rtf"]
    assert absent == {}
