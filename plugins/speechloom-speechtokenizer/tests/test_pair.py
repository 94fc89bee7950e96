"""SpeechTokenizer + SpeechTokenizer, a pair of the SpeechSEC paper, in a whole pipeline."""

from __future__ import annotations

import pytest

from speechloom.compatibility import generator_between
from speechloom.hooks import Hooks
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry
from speechloom.spec import ComponentSpec
from speechloom.testing.fakes import FakeSpeakerEncoder
from speechloom.testing.inputs import made_audio
from speechloom_speechtokenizer import SpeechTokenizerCodec, SpeechTokenizerUnits, _spec

pytest.importorskip("speechloom_speechsec", reason="the pair needs a generator")


@pytest.fixture
def pipeline() -> Pipeline:
    """Tiny and random, with the generator that the pair's facts ask for."""
    from speechloom_speechsec.config import tiny
    from speechloom_speechsec.generator import SpeechSECGenerator
    from speechloom_speechsec.model import SpeechSEC

    voice = FakeSpeakerEncoder.default_spec
    spec = generator_between(
        _spec.HUBERT_AVG_UNITS,
        _spec.HUBERT_AVG_CODEC,
        id="pair",
        implementation="this.test:Pair",
        voice=voice,
    )
    sizes = tiny(
        content_vocab=1024,
        codebooks=8,
        codebook_size=1024,
        voice_dim=voice.facts.size,  # type: ignore[union-attr]
    )

    class Pair(SpeechSECGenerator):
        """Where the weights of a trained pair would come from."""

        @classmethod
        def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Pair:
            raise NotImplementedError("a pair that nobody has trained")

        @classmethod
        def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Pair:
            return cls(spec, SpeechSEC(sizes, seed=seed))

    registry = Registry(entry_points=(), environ={})
    for component in (
        SpeechTokenizerCodec.from_random(_spec.HUBERT_AVG_CODEC),
        SpeechTokenizerUnits.from_random(_spec.HUBERT_AVG_UNITS),
        FakeSpeakerEncoder.from_random(voice),
        Pair.from_random(spec),
    ):
        registry.register(component)
    return Pipeline(registry=registry, hooks=Hooks(entry_points=(), environ={}))


def test_the_pair_converts_and_continues(pipeline: Pipeline) -> None:
    recording = made_audio(20_000)
    converted = pipeline.convert(recording, voice=made_audio(16_000, number=3), seed=1)
    assert converted.audio.sample_rate == 16_000
    assert converted.audio.length == recording.length
    continued = pipeline.continue_(recording, seconds=0.5, seed=1)
    assert continued.audio.length == recording.length + 8_000
    assert (continued.audio.samples[:, : recording.length] == recording.samples).all()
