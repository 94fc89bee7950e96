from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom.errors import AudioError, BackendUnavailable, UsageError, WeightsError
from speechloom.mel import GE2E
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio
from speechloom_sv2tts import ge2e_spec
from speechloom_sv2tts._spec import GE2E_ENCODER
from speechloom_sv2tts.config import Ge2eConfig
from speechloom_sv2tts.ge2e import MIN_COVERAGE, WINDOW_FRAMES, Ge2eEncoder, window_starts
from speechloom_sv2tts.speech_only import BLOCK, louder, speech_blocks, speech_of

SECOND = 16_000
SMALL = Ge2eConfig(hidden=8, layers=2)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    # A window of 1.6 s each 0.8 s; the last one needs 1.2 s of speech.
    [(0.5, [0]), (1.6, [0]), (1.9, [0]), (2.0, [0, 80]), (2.4, [0, 80]), (3.2, [0, 80, 160])],
)
def test_windows_share_a_half(seconds: float, starts: list[int]) -> None:
    assert window_starts(int(seconds * SECOND), step=80) == starts


@given(st.integers(1, 60 * SECOND), st.sampled_from([40, 77, 80, 160]))
def test_windows_leave_out_less_than_their_share(samples: int, step: int) -> None:
    starts = window_starts(samples, step=step)
    assert starts == list(range(0, len(starts) * step, step))
    end = (starts[-1] + WINDOW_FRAMES) * GE2E.hop
    if len(starts) > 1:
        assert samples - starts[-1] * GE2E.hop >= MIN_COVERAGE * WINDOW_FRAMES * GE2E.hop
    assert samples - end < MIN_COVERAGE * WINDOW_FRAMES * GE2E.hop + GE2E.hop


def test_a_pause_is_kept_at_its_edges_and_cut_inside() -> None:
    judged = np.array([1] * 20 + [0] * 40 + [1] * 20, bool)
    kept = speech_blocks(judged)
    assert kept[:20].all()
    assert kept[-20:].all()
    # Half of 8 blocks is no majority: it ends one block early and begins on time; 3 more stay.
    assert kept[20:60].sum() == 5
    assert not kept[30:50].any()


def test_a_click_is_no_speech() -> None:
    assert not speech_blocks(np.array([0] * 10 + [1] * 3 + [0] * 10, bool)).any()


@given(st.lists(st.booleans(), max_size=40))
def test_blocks_that_stay_are_as_many_as_were_judged(judged: list[bool]) -> None:
    kept = speech_blocks(np.array(judged, bool))
    assert kept.shape == (len(judged),)
    if all(judged) and len(judged) > 8:
        assert kept.all()


def test_quiet_speech_is_raised_and_loud_speech_stays() -> None:
    tone = np.sin(np.arange(SECOND) * 0.1).astype(np.float32)
    raised = louder(0.001 * tone)
    assert 20 * np.log10(np.sqrt(np.mean(raised**2))) == pytest.approx(-30, abs=0.01)
    assert np.array_equal(louder(0.5 * tone), 0.5 * tone)
    assert not louder(np.zeros(10, np.float32)).any()


def test_pauses_are_cut_out() -> None:
    speech = made_audio(2 * SECOND).samples[0]
    quiet = np.zeros(3 * SECOND, np.float32)
    heard = speech_of(np.concatenate([speech, quiet, speech]), "energy")
    assert len(heard) % BLOCK == 0
    assert 3.9 * SECOND < len(heard) < 4.5 * SECOND
    assert speech_of(quiet, "energy").size == 0
    assert speech_of(quiet, "none").size == 0


def test_the_webrtc_detector_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "webrtcvad", None)
    with pytest.raises(BackendUnavailable, match="pip install webrtcvad"):
        speech_of(made_audio(SECOND).samples[0], "webrtc")


def saved(folder: Path, name: str, content: object) -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_reads_what_was_saved_for_training(tmp_path: Path) -> None:
    """As Real-Time-Voice-Cloning and resemblyzer save it: beside the optimiser's state."""
    encoder = Ge2eEncoder.from_random(GE2E_ENCODER)
    state = encoder._network.state_dict()
    extra = {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    path = saved(tmp_path, "encoder.pt", {"step": 3, "model_state": {**state, **extra}})
    loaded = Ge2eEncoder.from_pretrained(ge2e_spec(path, id="mine", config=SMALL))
    audio = [made_audio(2 * SECOND)]
    assert np.array_equal(loaded.embed(audio)[0].vector, encoder.embed(audio)[0].vector)
    assert loaded.embed(audio)[0].kind == "mine"
    assert list(loaded.weights) == ["encoder.pt"]


def test_refuses_what_is_no_encoder(tmp_path: Path) -> None:
    path = saved(tmp_path, "encoder.pt", {"model_state": {"encoder.weight": torch.ones(1)}})
    with pytest.raises(WeightsError, match="holds no GE2E speaker encoder"):
        Ge2eEncoder.from_pretrained(ge2e_spec(path, id="mine"))
    state = Ge2eEncoder.from_random(GE2E_ENCODER)._network.state_dict()
    del state["linear.bias"]
    path = saved(tmp_path, "encoder.pt", {"model_state": state})
    with pytest.raises(WeightsError, match=r"lacks linear\.bias"):
        Ge2eEncoder.from_pretrained(ge2e_spec(path, id="mine", config=SMALL))


def test_says_where_its_weights_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("speechloom_sv2tts.ge2e.resemblyzer_folder", lambda: None)
    with pytest.raises(WeightsError, match=r"speechloom-sv2tts\[ge2e\]"):
        Ge2eEncoder.from_pretrained(GE2E_ENCODER)


def test_a_reference_must_be_long_enough_and_hold_sound() -> None:
    encoder = Ge2eEncoder.from_random(GE2E_ENCODER)
    with pytest.raises(AudioError, match=r"lasts 0\.20 s; at least 0\.5 s"):
        encoder.embed([made_audio(SECOND // 5)])
    with pytest.raises(AudioError, match="silent"):
        encoder.embed([Audio(np.zeros(3 * SECOND, np.float32), SECOND)])
    with pytest.raises(UsageError, match="give a recording"):
        encoder.named("iris")


@settings(deadline=None, max_examples=5)
@given(st.floats(0.2, 1))
def test_loudness_tells_nothing_of_the_speaker(gain: float) -> None:
    """Below -30 dBFS all is raised to it."""
    encoder = Ge2eEncoder.from_random(GE2E_ENCODER)
    quiet = made_audio(2 * SECOND).samples * 0.05
    one, other = (encoder.embed([Audio(quiet * g, SECOND)])[0].vector for g in (1.0, gain))
    assert float(one @ other) > 0.999
