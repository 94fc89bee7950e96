"""Checkpoints: what is read, and what each wrong one is told."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechloom.checkpoints import sha256_of
from speechloom.errors import UsageError, WeightsError
from speechloom.testing.inputs import made_audio
from speechloom_hubert import SPECS, spec_for
from speechloom_hubert.loading import load_encoder
from speechloom_hubert.units import HubertUnits

Make = Callable[..., Any]
AUDIO = [made_audio(16_000)]


class Runs:
    """Unpickling this makes a file, if it is let."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_all_layouts_of_one_model_are_the_same(original: Make, checkpoint: Make) -> None:
    model = original()
    folders = [
        checkpoint(model=model, name="plain"),
        checkpoint(model=model, name="with-head", prefix="hubert."),
        checkpoint(model=model, name="older", pickled=True),
    ]
    first, *others = [load_encoder(folder).features(AUDIO, 3).values for folder in folders]
    for other in others:
        assert torch.equal(first, other)


def test_weights_are_named_and_hashed(checkpoint: Make, kmeans: Make) -> None:
    folder, units = checkpoint(), kmeans()
    pins = {
        "model.safetensors": sha256_of(folder / "model.safetensors"),
        units.name: sha256_of(units),
    }
    spec = spec_for(folder, layer=2, kmeans=units, sha256=pins)
    assert HubertUnits.from_pretrained(spec).weights == pins
    files = HubertUnits.weight_files(spec)
    assert {name: file.sha256 for name, file in files.items()} == pins
    assert all(sha256_of(file.path) == file.sha256 for file in files.values())
    assert HubertUnits.weight_files(SPECS[0]) == {}


@pytest.mark.parametrize("name", ["model.safetensors", "km.safetensors"])
def test_another_hash_is_refused(checkpoint: Make, kmeans: Make, name: str) -> None:
    spec = spec_for(checkpoint(), layer=2, kmeans=kmeans())
    pinned = spec.model_copy(update={"options": {**spec.options, "sha256": {name: "0" * 64}}})
    with pytest.raises(WeightsError, match=f"{name} should have SHA-256 0000"):
        HubertUnits.from_pretrained(pinned)


@pytest.mark.parametrize(
    ("norm", "says", "normalizes"),
    [
        ("group", None, False),
        ("layer", None, True),
        ("group", {"do_normalize": True, "sampling_rate": 16_000}, True),
        ("layer", {"do_normalize": False}, False),
    ],
)
def test_it_normalises_as_the_checkpoint_says(
    checkpoint: Make, norm: str, says: dict[str, Any] | None, normalizes: bool
) -> None:
    folder = checkpoint(feat_extract_norm=norm, preprocessor=says)
    expected = load_encoder(folder, normalize=normalizes).features(AUDIO, 1)
    other = load_encoder(folder, normalize=not normalizes).features(AUDIO, 1)
    got = load_encoder(folder).features(AUDIO, 1)
    assert torch.equal(got.values, expected.values)
    assert not torch.equal(got.values, other.values)


def test_the_hub_is_read_from_its_cache(
    checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    folder = checkpoint(preprocessor={"do_normalize": False})
    cache = tmp_path / "hub"
    commit = "c" * 40
    snapshot = cache / "models--lab--tiny" / "snapshots" / commit
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    refs = cache / "models--lab--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    encoder = load_encoder("lab/tiny", layers=1)
    assert (encoder.name, encoder.layers) == ("tiny", 1)
    assert torch.equal(
        encoder.features(AUDIO, 1).values,
        load_encoder("lab/tiny", revision=commit).features(AUDIO, 1).values,
    )


# Wrong checkpoints ------------------------------------------------------------------------


def _rewrite(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_another_family_is_refused(checkpoint: Make) -> None:
    folder = checkpoint()
    _rewrite(folder, model_type="wav2vec2")
    with pytest.raises(WeightsError, match="of the family 'wav2vec2'.*reads hubert and wavlm"):
        load_encoder(folder)


def test_weights_of_another_family_are_refused(checkpoint: Make) -> None:
    folder = checkpoint()
    _rewrite(folder, model_type="wavlm")
    with pytest.raises(WeightsError, match="does not fit WavLMModel: it lacks .*gru_rel_pos"):
        load_encoder(folder)


def test_weights_of_another_size_are_refused(checkpoint: Make) -> None:
    folder = checkpoint()
    _rewrite(folder, hidden_size=32)
    with pytest.raises(WeightsError, match=r"does not fit HubertModel: it has .*instead of"):
        load_encoder(folder)


def test_another_rate_is_refused(checkpoint: Make) -> None:
    folder = checkpoint(preprocessor={"sampling_rate": 24_000})
    with pytest.raises(WeightsError, match="works at 24000 Hz, but .* 16000 Hz"):
        load_encoder(folder)


def test_a_truncated_file_is_refused(checkpoint: Make) -> None:
    for pickled in (False, True):
        folder = checkpoint(pickled=pickled, name=f"cut-{pickled}")
        (path,) = [p for p in folder.iterdir() if p.suffix != ".json"]
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(WeightsError, match=f"{path.name} cannot be read"):
            load_encoder(folder)


def test_a_pickle_with_code_is_refused(checkpoint: Make, tmp_path: Path) -> None:
    folder = checkpoint(pickled=True)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Runs(tmp_path / "ran")}))
    with pytest.raises(WeightsError, match="a pickle that needs more than plain tensors"):
        load_encoder(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"model_type": "hubert"}'])
def test_a_broken_config_is_refused(checkpoint: Make, text: str) -> None:
    folder = checkpoint()
    (folder / "config.json").write_text(text)
    why = "config.json (is not JSON|is not the configuration|is not a who)"
    with pytest.raises(WeightsError, match=why):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_stride": [0] * 7}, "not a whole hubert configuration"),
        ({"hidden_size": -16}, "not a whole hubert configuration"),
        ({"hidden_size": float("inf")}, "not a whole hubert configuration"),
        ({"num_attention_heads": 0}, "no network can be built of the sizes"),
        ({"hidden_act": "loud"}, "no network can be built of the sizes"),
    ],
)
def test_sizes_of_no_network_are_refused(
    checkpoint: Make, changes: dict[str, Any], message: str
) -> None:
    folder = checkpoint()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(WeightsError, match=message):
        load_encoder(folder)


def test_the_weights_file_stands_for_its_folder(checkpoint: Make, kmeans: Make) -> None:
    folder = checkpoint(preprocessor={"do_normalize": True, "sampling_rate": 16_000})
    expected = load_encoder(folder).features(AUDIO, 2).values
    encoder = load_encoder(folder / "model.safetensors")
    assert torch.equal(encoder.features(AUDIO, 2).values, expected)
    spec = spec_for(folder / "model.safetensors", layer=2, kmeans=kmeans())
    assert HubertUnits.from_pretrained(spec).spec.facts.frame_rate == encoder.frame_rate


def test_a_spec_holds_from_any_folder(
    checkpoint: Make, kmeans: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, units = checkpoint(), kmeans()
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(units.parent))
    spec = spec_for(folder.name, layer=2, kmeans=f"~/{units.name}", id="mine")
    monkeypatch.chdir("/")
    assert HubertUnits.from_pretrained(spec).spec == spec


def test_a_layer_that_is_not_there_is_refused(checkpoint: Make) -> None:
    with pytest.raises(UsageError, match="hidden layers 0 to 3, but layer 4 was asked for"):
        load_encoder(checkpoint(), layers=4)


def test_without_a_network_the_message_says_what_to_do(no_network: list[str]) -> None:
    with pytest.raises(WeightsError, match="of nobody/nothing is not in the cache"):
        load_encoder("nobody/nothing")
    with pytest.raises(WeightsError, match="does not exist; give a folder, a file or a hub id"):
        load_encoder("/no/such/folder")


# Wrong pairs of encoder and k-means -------------------------------------------------------


def test_kmeans_of_another_dimension_are_refused(checkpoint: Make, kmeans: Make) -> None:
    spec = spec_for(checkpoint(), layer=2, kmeans=kmeans(width=24))
    with pytest.raises(WeightsError, match="k-means .*24 values per frame, but encoder has 16"):
        HubertUnits.from_pretrained(spec)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"layer": 1}, "it has 1 as layer, but encoder has 2"),
        ({"family": "wavlm"}, "it has wavlm as family, but encoder has hubert"),
        ({"frame_rate": 25}, "it has 25 frames per second, but encoder has 50"),
    ],
)
def test_kmeans_of_other_features_are_refused(
    checkpoint: Make, kmeans: Make, facts: dict[str, Any], message: str
) -> None:
    spec = spec_for(checkpoint(), layer=2, kmeans=kmeans(**facts))
    with pytest.raises(WeightsError, match=message):
        HubertUnits.from_pretrained(spec)


def test_a_spec_of_another_rate_is_refused(checkpoint: Make, kmeans: Make) -> None:
    spec = spec_for(checkpoint(), layer=2, kmeans=kmeans())
    facts = spec.facts.model_copy(update={"sample_rate": 24_000})
    with pytest.raises(WeightsError, match="the spec .* 24000 Hz, but encoder has 16000"):
        HubertUnits.from_pretrained(spec.model_copy(update={"facts": facts}))


def test_kmeans_of_another_size_than_the_spec_are_refused(checkpoint: Make, kmeans: Make) -> None:
    spec = spec_for(checkpoint(), layer=2, kmeans=kmeans())
    facts = spec.facts.model_copy(update={"vocabulary_size": 13})
    with pytest.raises(WeightsError, match="it has 12 units, but encoder has 13"):
        HubertUnits.from_pretrained(spec.model_copy(update={"facts": facts}))


# Specs ------------------------------------------------------------------------------------


def test_a_spec_of_ones_own_says_what_it_is(checkpoint: Make, kmeans: Make) -> None:
    folder = checkpoint(name="My Encoder")
    spec = spec_for(folder, layer=2, kmeans=kmeans(), weights_license="MIT")
    assert spec.id == "my-encoder-l2-km12"
    assert spec.facts.gives == "tokens:my-encoder-l2-km12"  # type: ignore[union-attr]
    assert spec.weights_license == "MIT"
    slow = checkpoint(name="slow", conv_stride=[5, 2, 2, 2, 2, 2, 4])
    spec = spec_for(slow, layer=2, kmeans=kmeans(frame_rate=25, name="slow-km"))
    assert spec.facts.frame_rate == 25  # type: ignore[union-attr]
    assert len(HubertUnits.from_pretrained(spec).encode(AUDIO).item(0)) == 25


def test_published_tokenizers_say_how_to_get_their_kmeans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEECHLOOM_KMEANS", str(tmp_path))
    with pytest.raises(WeightsError, match="convert km.bin --sklearn-pickle --for") as caught:
        HubertUnits.from_pretrained(SPECS[0])
    assert "download https://" in str(caught.value)
    assert str(tmp_path / f"{SPECS[0].id}.safetensors") in str(caught.value)


def test_ids_are_those_of_the_nearest_centroids(checkpoint: Make, kmeans: Make) -> None:
    spec = spec_for(checkpoint(), layer=1, kmeans=kmeans())
    tokenizer = HubertUnits.from_pretrained(spec)
    features = load_encoder(spec.options["checkpoint"]).features(AUDIO, 1).values[0].T.numpy()
    centroids = tokenizer.centroids.numpy()
    distances = np.linalg.norm(features[:, None].astype(np.float64) - centroids[None], axis=-1)
    assert tokenizer.encode(AUDIO).item(0).tolist() == distances.argmin(1).tolist()
    with pytest.raises(UsageError, match="no audio to encode"):
        tokenizer.encode([])
