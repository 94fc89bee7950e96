"""Content that is no ids: features of a recording, and tables of voices."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from speechloom.chain import Chain
from speechloom.errors import UnsupportedCapability, UsageError
from speechloom.filling import Filler, SheetJob
from speechloom.layout import Copy, Sheet
from speechloom.router import find_chain
from speechloom.spec import (
    ComponentSpec,
    GeneratorFacts,
    Kind,
    SpeakerEncoderFacts,
    TokenizerFacts,
)
from speechloom.testing import check_plugin
from speechloom.testing.fake_base import Fake
from speechloom.testing.fake_specs import SPEAKER_ENCODER
from speechloom.values import Audio, Canvas, Features, Voice, frames_in, pad_stack

torch = pytest.importorskip("torch")

RATE = 16_000


def spec(id: str, cls: str, facts: Any) -> ComponentSpec:
    return ComponentSpec(
        id=id, implementation=f"{__name__}:{cls}", facts=facts, summary="for tests", license="MIT"
    )


EAR = spec(
    "ear",
    "Ear",
    TokenizerFacts(
        vocabulary="means",
        vocabulary_size=2,
        sample_rate=RATE,
        frame_rate=Fraction(50),
        context_frames=0,
        form="features",
    ),
)
MOUTH = spec(
    "mouth",
    "Mouth",
    GeneratorFacts(
        tasks=("convert",),
        content=("features:means",),
        content_size=2,
        gives="audio",
        frame_rate=Fraction(100),
        codebook_size=2,
        sample_rate=RATE,
    ),
)


class Ear(Fake):
    """The mean and the largest sample of each frame."""

    default_spec = EAR

    def encode(self, audio: Sequence[Audio]) -> Features:
        rows = []
        for one in audio:
            samples = one.mono().resampled(RATE).samples[0]
            frames = frames_in(one.length, one.sample_rate, Fraction(50))
            padded = np.pad(samples, (0, max(0, frames * 320 - len(samples))))[: frames * 320]
            framed = padded.reshape(frames, 320)
            pair = np.stack([framed.mean(1), framed.max(1)])
            rows.append(torch.tensor(pair, dtype=torch.float32))
        lengths = torch.tensor([row.shape[1] for row in rows])
        return Features(pad_stack(rows, 0.0), "means", Fraction(50), lengths)


class Mouth(Fake):
    default_spec = MOUTH

    def __init__(self, spec: ComponentSpec | None = None) -> None:
        super().__init__(spec)
        self.canvases: list[Canvas] = []

    def fill(self, canvas: Canvas) -> list[Audio]:
        self.canvases.append(canvas)
        return [Audio(np.zeros((1, int(n) * 160), np.float32), RATE) for n in canvas.lengths]


def job(samples: np.ndarray[Any, Any]) -> SheetJob:
    seconds = Fraction(len(samples), RATE)
    sheet = Sheet(0, seconds, told=(Copy(Fraction(0), Fraction(0), seconds),))
    return SheetJob(sheet, Audio(samples.astype(np.float32), RATE), None, 0, 1.0)


def test_features_of_the_recording_are_the_content_at_the_rate_of_the_canvas() -> None:
    ear, mouth = Ear(), Mouth()
    samples = np.repeat([0.1, 0.2, 0.3], 320)
    filled = Filler("convert", mouth, tokenizer=ear).fill([job(samples), job(samples[:320])])
    (canvas,) = mouth.canvases
    assert canvas.content_kind == "features:means"
    assert canvas.content is not None
    assert canvas.content.shape == (2, 2, 6)
    short, long = sorted(canvas.content.tolist())
    assert long[0] == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3])
    assert long[1] == pytest.approx(long[0])
    assert short[0] == pytest.approx([0.1, 0.1, 0, 0, 0, 0])
    assert all(one.tokens is None for one in filled)


def test_the_router_finds_who_gives_the_features() -> None:
    def specs_of(kind: Kind) -> list[ComponentSpec]:
        return {"tokenizer": [EAR], "generator": [MOUTH]}.get(kind, [])

    chain: Chain = find_chain("convert", specs_of, has_text=False)
    assert chain.spec("tokenizer").id == "ear"
    assert chain.bridges == ("features:means 50 Hz -> 100 Hz, by the frame in time",)


def test_a_tokenizer_of_features_passes_the_kit() -> None:
    status = {one.name: one.status for one in check_plugin(Ear())}
    assert status["encodes_to_its_layout"] == "passed"
    assert status["encodes_windows_like_the_whole"] == "passed"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (torch.zeros(1, 2, 4), r"float32 \[1, D, 3\]"),
        (torch.zeros(1, 3), r"float32 \[1, D, 3\]"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), "float32"),
        (torch.full((1, 2, 3), float("nan")), "finite"),
        (None, "belong together"),
    ],
)
def test_a_canvas_checks_features(content: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Canvas(
            task="convert",
            ids=torch.zeros(1, 1, 3, dtype=torch.int64),
            known=torch.zeros(1, 1, 3, dtype=torch.bool),
            lengths=torch.tensor([3]),
            gives="audio",
            codebook_size=2,
            frame_rate=Fraction(50),
            seeds=torch.tensor([0]),
            items=torch.tensor([0]),
            content=content,
            content_kind="features:means",
        )


def test_the_size_of_features_is_a_fact() -> None:
    with pytest.raises(ValidationError, match="content_size belongs"):
        GeneratorFacts(**{**MOUTH.facts.model_dump(), "content_size": None})
    with pytest.raises(ValidationError, match="content_size belongs"):
        GeneratorFacts(**{**MOUTH.facts.model_dump(), "content": ("tokens:units",)})


class Table(Fake):
    """Two voices, and none from recordings."""

    default_spec = SPEAKER_ENCODER.model_copy(
        update={
            "implementation": f"{__name__}:Table",
            "facts": SpeakerEncoderFacts(
                voice="table",
                size=2,
                sample_rate=RATE,
                named_voices=("ann", "bob"),
                recordings=False,
            ),
        }
    )

    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        raise UnsupportedCapability("no recordings; name one of ann, bob")

    def named(self, name: str) -> Voice:
        if name not in ("ann", "bob"):
            raise UsageError("the voices are ann, bob")
        return Voice(np.array([1.0, float(name == "ann")]), "table", name)


class Deaf(Table):
    """Claims to refuse recordings, but takes them."""

    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        return [self.named("ann") for _ in audio]


def test_a_table_of_voices_passes_and_must_refuse_recordings() -> None:
    refusal = "refuses_recordings_where_it_takes_none"
    status = {one.name: one.status for one in check_plugin(Table())}
    assert status[refusal] == "passed"
    assert status["gives_voices"] == "skipped"
    assert status["knows_its_named_voices"] == "passed"
    deaf = {one.name: one.status for one in check_plugin(Deaf(), on_fail="return")}
    assert deaf[refusal] == "failed"


def test_a_table_without_voices_is_none() -> None:
    with pytest.raises(ValidationError, match="must have named voices"):
        SpeakerEncoderFacts(voice="v", size=2, sample_rate=RATE, recordings=False)
