"""Every component passes the conformance kit, tiny and random."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechloom.spec import ComponentSpec
from speechloom.testing import check_plugin
from speechloom.testing.inputs import Inputs
from speechloom.values import Phones
from speechloom_vits._spec import specs_of_config
from speechloom_vits._xe_spec import (
    IPA_ENGLISH,
    PINYIN,
    whisper_spec_for,
    x_e_specs_of_config,
)
from speechloom_vits.config import DecoderConfig, VitsConfig
from speechloom_vits.generator import VitsGenerator
from speechloom_vits.xe_config import Alphabet, XEConfig, XESizes

LETTERS = ("_", *"abcdefghijklmnopqrstuvwxyz", "'")


def vits(speakers: tuple[str, ...] = (), **sizes: object) -> list[ComponentSpec]:
    decoder = DecoderConfig(speaker_size=6 if speakers else 0)
    config = VitsConfig.model_validate(
        {
            "symbols": len(LETTERS),
            "speakers": max(1, len(speakers)),
            "decoder": decoder.model_dump(),
            **sizes,
        }
    )
    return specs_of_config(
        config,
        id="vits-kit",
        checkpoint="nowhere",
        phones=LETTERS,
        pause="_",
        alphabet="kit-letters",
        languages=("en",),
        speakers=speakers,
        sources=speakers[:1],
    )


def x_e() -> list[ComponentSpec]:
    config = XEConfig(
        sizes=XESizes(content_size=8, languages=("en", "zh")),
        symbols=(*LETTERS, "1"),
        alphabets={
            "kit-letters": Alphabet(phones=LETTERS, pause="_", language="en"),
            "kit-tones": Alphabet(phones=("_", "1", "a", "b"), pause="_", language="zh"),
        },
        content="kit-content",
        content_language="en",
    )
    return x_e_specs_of_config(config, id="x-e-kit", checkpoint="nowhere")


INPUTS = Inputs(
    symbols={"kit-letters": LETTERS, "kit-tones": ("_", "1", "a", "b")},
    texts={"zh": "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002"},
    long_seconds=10.0,
)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(vits()[0], id="vits"),
        pytest.param(vits(stochastic=False)[0], id="vits-deterministic"),
        *(pytest.param(one, id=f"speakers-{one.kind}") for one in vits(("ann", "bob"))),
        *(pytest.param(one, id=f"x-e-{one.kind}") for one in x_e()),
    ],
)
def test_conforms(spec: ComponentSpec) -> None:
    check_plugin(spec, inputs=INPUTS)


def test_the_seed_draws_the_durations_of_a_stochastic_predictor() -> None:
    phones = [Phones(LETTERS, "kit-letters")]
    for stochastic in (True, False):
        generator = VitsGenerator.from_random(vits(stochastic=stochastic)[0])
        one, again, other = (generator.durations(phones, rate=0.1, seed=s) for s in (1, 1, 2))
        assert one == again
        assert (one != other) == stochastic


def test_whisper_conforms(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"model_type": "whisper", "d_model": 8, "max_source_positions": 1500}
    (tmp_path / "config.json").write_text(json.dumps(config))
    check_plugin(whisper_spec_for(tmp_path, id="whisper-kit"), inputs=INPUTS)


def test_pinyin_conforms() -> None:
    pytest.importorskip("pypinyin")
    pytest.importorskip("jieba")
    check_plugin(PINYIN, inputs=INPUTS)


def test_ipa_conforms() -> None:
    backend = pytest.importorskip("phonemizer.backend")
    if not backend.EspeakBackend.is_available():
        pytest.skip("the program espeak-ng is not installed")
    check_plugin(IPA_ENGLISH, inputs=INPUTS)
