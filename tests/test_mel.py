from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speechloom.errors import AudioError, UsageError
from speechloom.mel import (
    GE2E,
    R9Y9_WAVENET,
    RTVC_SYNTHESIZER,
    TACOTRON2,
    MelSpec,
    mel_filters,
)
from speechloom.values import Audio, Features

PRESETS = [RTVC_SYNTHESIZER, GE2E, TACOTRON2, R9Y9_WAVENET]


def tone(hertz: float, rate: int, seconds: float, amplitude: float = 0.5) -> Audio:
    times = np.arange(round(rate * seconds)) / rate
    return Audio((amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32), rate)


# The kind ---------------------------------------------------------------------------------


def test_the_kind_spells_every_parameter() -> None:
    assert RTVC_SYNTHESIZER.kind == (
        "mel-rate=16000,fft=800,win=800,hop=200,bands=80,low=55,high=7600,scale=slaney,norm=area,"
        "measure=amplitude,preemphasis=0.97,edges=reflect,log=db,floor=1e-05,span=-80:20,onto=-4:4"
    )


@pytest.mark.parametrize("spec", PRESETS)
def test_a_kind_reads_back(spec: MelSpec) -> None:
    assert MelSpec.from_kind(spec.kind) == spec
    assert MelSpec.from_kind(f"features:{spec.kind}") == spec


@given(
    floor=st.floats(1e-12, 1.0),
    low=st.floats(0.0, 1000.0),
    high=st.floats(1001.0, 8000.0),
    preemphasis=st.floats(0.0, 0.99),
    span=st.tuples(st.floats(-200, -1), st.floats(0, 50)),
)
def test_any_numbers_read_back(
    floor: float, low: float, high: float, preemphasis: float, span: tuple[float, float]
) -> None:
    spec = MelSpec(
        rate=16000, fft=512, win=400, hop=160, bands=20, low=low, high=high, floor=floor,
        preemphasis=preemphasis, log="db", span=span, onto=(0, 1),
    )  # fmt: skip
    assert MelSpec.from_kind(spec.kind) == spec


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("wavlm-6", "no mel spectrogram"),
        ("mel-", "rate"),
        (RTVC_SYNTHESIZER.kind.replace("hop=200", "hop=0"), "hop"),
        (RTVC_SYNTHESIZER.kind.replace("hop=200", "hop=900"), "longer than win"),
        (RTVC_SYNTHESIZER.kind.replace("high=7600", "high=9000"), "rate / 2"),
        (RTVC_SYNTHESIZER.kind.replace("span=-80:20", "span=20:-80"), "low to high"),
        (RTVC_SYNTHESIZER.kind.replace(",onto=-4:4", ""), "belong together"),
        (RTVC_SYNTHESIZER.kind.replace("hop=200", "hop=0200"), "one form"),
        (RTVC_SYNTHESIZER.kind + ",colour=red", "colour"),
    ],
)
def test_what_is_no_mel_kind_is_refused(kind: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        MelSpec.from_kind(kind)


def test_a_floor_belongs_to_a_logarithm() -> None:
    with pytest.raises(ValidationError, match="floor"):
        MelSpec(rate=16000, fft=512, win=400, hop=160, bands=20, low=0, high=8000, log="none")


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, speechloom.mel; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The filters ------------------------------------------------------------------------------


def test_slaney_edges_by_hand() -> None:
    # Linear below 1 kHz: 3 bands between 0 and 800 Hz have edges 0, 200, 400, 600, 800.
    filters = mel_filters(16000, 160, 3, 0, 800, norm="peak")
    assert filters.shape == (3, 81)
    np.testing.assert_allclose(filters[0, :6], [0, 0.5, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(filters[1, 2:8], [0, 0.5, 1, 0.5, 0, 0], atol=1e-6)
    area = mel_filters(16000, 160, 3, 0, 800, norm="area")
    np.testing.assert_allclose(area, filters * 2 / 400, rtol=1e-6)


def test_slaney_above_one_kilohertz_by_hand() -> None:
    # 27 mels above 15 mel (1 kHz) is a factor of 6.4; three edges: 1000, sqrt(6.4) * 1000, 6400.
    filters = mel_filters(16000, 1600, 1, 1000, 6400, norm="peak")
    assert int(filters[0].argmax()) == round(math.sqrt(6.4) * 100)
    assert filters[0, 99] == filters[0, 100] == filters[0, 640] == 0


def test_htk_edges_by_hand() -> None:
    # 1000 Hz is 999.9855 mel; the middle of 0 and that lies at 700 (10 ** (499.99 / 2595) - 1).
    filters = mel_filters(16000, 16000, 1, 0, 1000, scale="htk", norm="peak")
    assert int(filters[0].argmax()) == round(700 * (10 ** (999.9855 / 2 / 2595) - 1))


# What `librosa.filters.mel` 0.11 gives for 16 kHz, 400 points, 40 bands: (band, bin): value.
LIBROSA_SLANEY = {
    (0, 1): 0.007390209,
    (0, 2): 0.012404521,
    (10, 20): 0.01187949,
    (20, 43): 0.00550284,
    (30, 90): 0.001638065,
    (39, 195): 0.000607577,
    (20, 53): 0.0,
}
LIBROSA_HTK = {
    (0, 1): 0.01969018,
    (10, 17): 0.011317082,
    (20, 45): 0.004502073,
    (30, 104): 0.001663354,
    (39, 175): 0.000025845,
}


@pytest.mark.parametrize(
    ("scale", "values", "total"),
    [
        ("slaney", LIBROSA_SLANEY, 0.9994971752166748),
        ("htk", LIBROSA_HTK, 0.9990774989128113),
    ],
)
def test_filters_are_librosas(
    scale: Literal["slaney", "htk"], values: dict[tuple[int, int], float], total: float
) -> None:
    filters = mel_filters(16000, 400, 40, 0, 8000, scale=scale)
    for (band, index), value in values.items():
        assert float(filters[band, index]) == pytest.approx(value, abs=2e-9)
    assert float(filters.sum()) == pytest.approx(total, rel=1e-6)


# The values -------------------------------------------------------------------------------


def sweep() -> torch.Tensor:
    """What the values of librosa below were made from."""
    at = np.arange(4000) / 16000
    swept = 0.3 * np.sin(2 * np.pi * (220 * at + 600 * at**2))
    return torch.from_numpy(swept.astype(np.float32))[None]


# Made with librosa 0.11 and scipy by the lines of the original recipes, reflecting edges.
@pytest.mark.parametrize(
    ("spec", "shape", "values"),
    [
        (
            RTVC_SYNTHESIZER,
            (80, 20),
            {(0, 0): -0.61167, (5, 3): 1.35375, (12, 10): -2.92079, (40, 15): -4.0, (79, 19): -4.0},
        ),
        (
            TACOTRON2,
            (80, 16),
            {(0, 0): -1.13494, (5, 3): -5.2937, (12, 10): -1.98129, (40, 15): -3.80481},
        ),
        (GE2E, (40, 25), {(0, 0): 1.79701, (5, 3): 0.00045, (12, 10): 0.0, (30, 24): 0.0}),
    ],
)
def test_values_are_those_of_the_original_recipes(
    spec: MelSpec, shape: tuple[int, int], values: dict[tuple[int, int], float]
) -> None:
    mel = spec.of_samples(sweep())[0]
    assert tuple(mel.shape) == shape
    for place, value in values.items():
        assert float(mel[place]) == pytest.approx(value, abs=1e-4)


def test_a_tone_lies_in_its_band() -> None:
    mel = RTVC_SYNTHESIZER.compute(tone(1000, 16000, 0.5)).values[0, :, 20]
    centre = RTVC_SYNTHESIZER.filters()[int(mel.argmax())].argmax() * 16000 / 800
    assert abs(float(centre) - 1000) < 40


@given(samples=st.integers(1, 3000))
@pytest.mark.parametrize("edges", ["reflect", "zeros", "hop"])
def test_frames_cover_the_samples(edges: Literal["reflect", "zeros", "hop"], samples: int) -> None:
    spec = RTVC_SYNTHESIZER.model_copy(update={"edges": edges})
    mel = spec.of_samples(torch.ones(1, samples))
    assert mel.shape == (1, 80, -(-samples // 200))
    assert spec.frames(samples) == mel.shape[-1]
    assert spec.frame_rate == Fraction(80)


def test_hop_edges_centre_a_frame_in_its_hop() -> None:
    spec = TACOTRON2.model_copy(update={"edges": "hop"})
    samples = torch.zeros(1, 4096)
    samples[0, 7 * 256 + 128] = 1.0
    assert int(spec.of_samples(samples)[0].sum(0).argmax()) == 7


@pytest.mark.parametrize("spec", PRESETS)
def test_silence_has_the_value_of_silence(spec: MelSpec) -> None:
    mel = spec.of_samples(torch.zeros(1, 1000))
    torch.testing.assert_close(mel, torch.full_like(mel, spec.silence), atol=1e-6, rtol=1e-6)


def test_a_batch_is_its_items_and_padding_is_silence() -> None:
    long, short = tone(300, 16000, 0.3), tone(500, 16000, 0.1)
    both = RTVC_SYNTHESIZER.compute([long, short])
    assert both.lengths.tolist() == [24, 8]
    assert both.name == RTVC_SYNTHESIZER.kind
    alone = RTVC_SYNTHESIZER.compute(short)
    assert torch.equal(both.values[1:, :, :8], alone.values)
    assert bool((both.values[1, :, 8:] == -4).all())


def test_stereo_at_another_rate_is_brought_to_its_own() -> None:
    mono = tone(440, 44100, 0.2)
    stereo = Audio(np.concatenate([mono.samples, mono.samples]), 44100)
    one, two = RTVC_SYNTHESIZER.compute(mono), RTVC_SYNTHESIZER.compute(stereo)
    assert one.values.shape == (1, 80, 16)
    torch.testing.assert_close(one.values, two.values)


def test_no_recording_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        GE2E.compute([])
    with pytest.raises(AudioError):
        GE2E.compute(Audio(np.array([np.nan], np.float32), 16000))


@pytest.mark.parametrize("spec", PRESETS)
def test_gradients_flow_and_are_finite_in_silence(spec: MelSpec) -> None:
    samples = torch.zeros(1, 2048, requires_grad=True)
    spec.of_samples(samples).sum().backward()  # type: ignore[no-untyped-call]
    assert samples.grad is not None
    assert bool(torch.isfinite(samples.grad).all())


# Between specs ----------------------------------------------------------------------------


def test_what_was_computed_while_speaking_does_not_hinder_training() -> None:
    mel = TACOTRON2.model_copy(update={"win": 1000})  # of a window that no other test has
    with torch.inference_mode():
        mel.of_samples(torch.rand(1, 4000))
    samples = torch.rand(1, 4000, requires_grad=True)
    mel.of_samples(samples).sum().backward()
    assert samples.grad is not None


def test_expand_undoes_compress() -> None:
    mel = torch.tensor([[[1e-3, 0.5, 3.0]]])
    for spec in PRESETS:
        torch.testing.assert_close(spec.expand(spec.compress(mel)), mel, rtol=1e-5, atol=0)


def test_compress_by_hand() -> None:
    # An amplitude of 1 is 0 dB: 8 * 80 / 100 - 4 = 2.4.
    assert float(RTVC_SYNTHESIZER.compress(torch.ones(1))) == pytest.approx(2.4)
    assert float(R9Y9_WAVENET.compress(torch.tensor(1e-12))) == pytest.approx(-10)


def test_conversion_is_what_would_have_been_computed() -> None:
    natural = RTVC_SYNTHESIZER.model_copy(update={"log": "ln", "span": None, "onto": None})
    audio = tone(700, 16000, 0.4)
    assert natural.converts_to(RTVC_SYNTHESIZER)
    converted = natural.convert(natural.compute(audio), RTVC_SYNTHESIZER)
    expected = RTVC_SYNTHESIZER.compute(audio)
    assert converted.name == expected.name
    torch.testing.assert_close(converted.values, expected.values, atol=1e-5, rtol=0)


def test_what_would_lose_something_is_refused() -> None:
    natural = RTVC_SYNTHESIZER.model_copy(update={"log": "ln", "span": None, "onto": None})
    mel = RTVC_SYNTHESIZER.compute(tone(700, 16000, 0.1))
    assert not RTVC_SYNTHESIZER.converts_to(natural)  # it is clipped, the other is not
    with pytest.raises(UsageError, match="exactly"):
        RTVC_SYNTHESIZER.convert(mel, natural)
    with pytest.raises(UsageError, match="exactly"):
        RTVC_SYNTHESIZER.convert(mel, RTVC_SYNTHESIZER.model_copy(update={"low": 0.0}))
    with pytest.raises(UsageError, match="by their own"):
        natural.convert(mel, RTVC_SYNTHESIZER)
    foreign = Features(mel.values, "wavlm-6", mel.frame_rate)
    with pytest.raises(UsageError, match="by their own"):
        RTVC_SYNTHESIZER.convert(foreign, natural)
