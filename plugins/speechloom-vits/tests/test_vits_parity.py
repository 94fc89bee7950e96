"""The same weights and the same noise: the same waveform as transformers' VitsModel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import speechloom_vits
from speechloom.errors import TextError, WeightsError
from speechloom.registry import Registry
from speechloom.values import Phones, Voice
from speechloom_vits.characters import CharacterFrontend
from speechloom_vits.generator import VitsGenerator

transformers = pytest.importorskip("transformers")

LETTERS = [*"k'zyuds", "-", *"ihbpwerjolfmctvngaqx", " ", "0", "<unk>"]


def sizes(**changes: Any) -> Any:
    """An MMS configuration, but narrow."""
    return transformers.VitsConfig(
        **{
            "vocab_size": len(LETTERS),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "ffn_dim": 48,
            "flow_size": 16,
            "spectrogram_bins": 129,
            "posterior_encoder_num_wavenet_layers": 2,
            "upsample_initial_channel": 64,
            "prior_encoder_num_wavenet_layers": 2,
            **changes,
        }
    )


def save(folder: Path, config: Any, **tokenizer: Any) -> Any:
    """A checkpoint folder, as transformers writes it, and its model."""
    torch.manual_seed(0)
    model = transformers.VitsModel(config).eval()
    # The initial weights leave couplings and splines almost idle.
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "conv_post" in name or "conv_proj" in name or "log_scale" in name:
                value.normal_(std=0.1)
    model.save_pretrained(folder)
    vocabulary = {letter: number for number, letter in enumerate(LETTERS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    rules = {"language": "eng", "add_blank": True, "normalize": True, "phonemize": False}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**rules, "is_uroman": False, "pad_token": "k", **tokenizer})
    )
    return model


@contextmanager
def noise_of(monkeypatch: pytest.MonkeyPatch, canvas: Any, size: int) -> Iterator[None]:
    """Transformers draws what the generator draws."""
    from speechloom_vits.generator import duration_noise, prior_noise

    def durations(*shape: int) -> torch.Tensor:
        return duration_noise(shape[2], 0)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", durations)
        patch.setattr(torch, "randn_like", lambda _: prior_noise(canvas, 0, size))
        yield


def canvas_of(generator: Any, phones: Phones, frames: list[int], voice: Voice | None) -> Any:
    from speechloom.values import Canvas

    ids = {one: number for number, one in enumerate(generator.spec.options["phones"])}
    content = torch.tensor(
        [[ids[s] for s, n in zip(phones.symbols, frames, strict=True) for _ in range(n)]]
    )
    segments = torch.tensor([[i for i, n in enumerate(frames) for _ in range(n)]])
    total = sum(frames)
    return Canvas(
        task="synthesize",
        ids=torch.zeros(1, 1, total, dtype=torch.int64),
        known=torch.zeros(1, 1, total, dtype=torch.bool),
        lengths=torch.tensor([total]),
        gives="audio",
        codebook_size=2,
        frame_rate=generator.spec.facts.frame_rate,
        seeds=torch.tensor([5]),
        items=torch.tensor([0]),
        content=content,
        content_kind=f"phones:{phones.alphabet}",
        segments=segments,
        voices=None if voice is None else torch.from_numpy(voice.vector)[None],
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="mms"),
        pytest.param({"use_stochastic_duration_prediction": False}, id="deterministic"),
        pytest.param({"num_speakers": 3, "speaker_embedding_size": 8}, id="speakers"),
        pytest.param({"speaking_rate": 1.3, "noise_scale": 0.4}, id="scales"),
    ],
)
def test_waveform_is_that_of_transformers(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save(tmp_path, sizes(**changes))
    specs = speechloom_vits.specs_for(tmp_path, id="mms-test")
    by_kind = {spec.kind: spec for spec in specs}
    generator = VitsGenerator.from_pretrained(by_kind["generator"])
    frontend = CharacterFrontend.from_pretrained(by_kind["frontend"])
    (phones,) = frontend.phonemize("The quick brown fox, it seems")
    tokens = transformers.VitsTokenizer.from_pretrained(tmp_path)("The quick brown fox, it seems")
    options = by_kind["generator"].options["phones"]
    ours = [options.index(symbol) for symbol in phones.symbols]
    assert ours == tokens["input_ids"]

    voice, speaker = None, {}
    if "num_speakers" in changes:
        from speechloom_vits.speakers import SpeakerTable

        voice = SpeakerTable.from_pretrained(by_kind["speaker_encoder"]).named("2")
        speaker = {"speaker_id": 2}
    (frames,) = generator.durations([phones], voices=None if voice is None else [voice])
    canvas = canvas_of(generator, phones, frames, voice)
    (audio,) = generator.fill(canvas)
    with noise_of(monkeypatch, canvas, model.config.flow_size), torch.no_grad():
        theirs = model(torch.tensor([ours]), **speaker).waveform[0].numpy()
    assert theirs.shape == audio.samples[0].shape
    assert np.abs(theirs).max() > 0.01
    assert np.abs(theirs - audio.samples[0]).max() < 1e-4


def test_a_registered_checkpoint_speaks(tmp_path: Path) -> None:
    from speechloom.pipeline import Pipeline

    save(tmp_path, sizes())
    generator, frontend = speechloom_vits.specs_for(tmp_path, id="mms-test")
    registry = Registry()
    registry.register(VitsGenerator.from_pretrained(generator))
    registry.register(CharacterFrontend.from_pretrained(frontend))
    pipeline = Pipeline(registry=registry, parts={"generator": "mms-test"})
    for text in ("a", "a long one, " * 12, "Two sentences. Here they are."):
        said = pipeline.synthesize(text, seed=3)
        assert said.audio.length > 0
        again = pipeline.synthesize(text, seed=3)
        assert np.array_equal(said.audio.samples, again.audio.samples)
    fast = pipeline.synthesize("a long one", seed=3, style=2.0)
    assert fast.audio.length < pipeline.synthesize("a long one", seed=3).audio.length
    for text, match in (("room 7", "digit '7'"), ("\u6f22\u5b57", "letter"), ("...", "nothing")):
        with pytest.raises(TextError, match=match):
            pipeline.synthesize(text)


def test_a_checkpoint_with_missing_keys_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path, sizes())
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "text_encoder.project.weight"
    save_file({k: v.clone() for k, v in tensors.items() if k != name}, path)
    generator, _ = speechloom_vits.specs_for(tmp_path, id="mms-test")
    with pytest.raises(WeightsError, match=name):
        VitsGenerator.from_pretrained(generator)
