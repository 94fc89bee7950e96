"""Features against ``transformers``, tokens against scikit-learn, pickles against ``joblib``.

The same random weights on both sides: ours reads the checkpoint that the original wrote. At every
length the frames that the original gives must be ours, in the same places.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from speechloom.testing.inputs import made_audio
from speechloom.values import Audio, frames_in
from speechloom_hubert import spec_for
from speechloom_hubert.encoder import SpeechEncoder
from speechloom_hubert.kmeans import read_kmeans
from speechloom_hubert.units import HubertUnits

joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")

pytestmark = pytest.mark.parity

LENGTHS = {
    "1 sample": 1,
    "1 hop": 320,
    "1 hop + 1": 321,
    "1 frame": 400,  # what the original needs for its first
    "1 frame + 1": 401,
    "2 frames": 720,
    "2 frames + 1": 721,
    "3.7 s": 59_200,
    "31 s": 496_000,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert base": ("hubert", {}),
    "hubert large": ("hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "wavlm base": ("wavlm", {}),
    "wavlm large": ("wavlm", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "conv_dim": [64] * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
CLUSTERS = 50


def noise(length: int) -> Audio:
    draw = np.random.default_rng(length)
    return Audio(0.1 * draw.standard_normal((1, length)).astype(np.float32), 16_000)


SOUNDS = {"speech-like": made_audio, "noise": noise}


class Pair:
    """The original model and the folder that it wrote."""

    def __init__(self, name: str, folder: Path) -> None:
        from transformers import (
            HubertConfig,
            HubertModel,
            Wav2Vec2FeatureExtractor,
            WavLMConfig,
            WavLMModel,
        )

        family, fields = MODELS[name]
        torch.manual_seed(0)
        if family == "hubert":
            model: Any = HubertModel(HubertConfig(**SMALL, **fields))
        else:
            model = WavLMModel(WavLMConfig(**SMALL, **fields))
        self.model = model.eval()
        self.normalize = "large" in name
        self.extractor = Wav2Vec2FeatureExtractor(do_normalize=self.normalize)
        self.model.save_pretrained(folder)
        self.extractor.save_pretrained(folder)
        self.folder = folder

    def hidden_states(self, audio: Audio) -> list[NDArray[np.float32]]:
        """[F, D] of each layer, as a user of ``transformers`` gets them."""
        inputs = self.extractor(audio.samples[0], sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            result = self.model(inputs.input_values, output_hidden_states=True)
        states = list(result.hidden_states)
        if self.normalize and torch.equal(states[-1], result.last_hidden_state):
            states.pop()  # transformers 4 normalises the last of the large models once more
        return [hidden[0].numpy() for hidden in states]


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Pair(request.param, tmp_path_factory.mktemp("original"))
    torch.set_num_threads(before)


def test_features_are_those_of_transformers(pair: Pair, request: pytest.FixtureRequest) -> None:
    encoder = SpeechEncoder.from_checkpoint(pair.folder)
    rows = []
    for sound, make in SOUNDS.items():
        for label, length in LENGTHS.items():
            audio = make(length)
            expected_frames = frames_in(length, 16_000, encoder.frame_rate)
            given = encoder.architecture.original_frames(length)
            states = pair.hidden_states(audio) if given else []
            worst = 0.0
            for layer, expected in enumerate(states):
                got = encoder.features([audio], layer).values[0].T.numpy()
                assert got.shape[0] == expected_frames
                assert expected.shape[0] == given
                difference = np.abs(got[:given] - expected).max() / np.abs(expected).max()
                worst = max(worst, float(difference))
            assert worst < 1e-5
            rows.append((sound, label, expected_frames, given, f"{worst:.1e}"))
    _print(f"{request.node.callspec.id}: features of layers 0 to 4", rows)


def test_tokens_are_those_of_scikit_learn(
    pair: Pair, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    layer = 3
    training = np.concatenate(
        [pair.hidden_states(made_audio(160_000, number=i))[layer] for i in range(2)]
        + [pair.hidden_states(noise(80_000))[layer]]
    )
    sklearn = cluster.MiniBatchKMeans(CLUSTERS, random_state=0, n_init=1).fit(training)
    path = tmp_path / "km.bin"
    joblib.dump(sklearn, path)
    tokenizer = HubertUnits.from_pretrained(
        spec_for(pair.folder, layer=layer, kmeans=path, allow_pickle=True)
    )
    rows = []
    for sound, make in SOUNDS.items():
        for label, length in LENGTHS.items():
            audio = make(length)
            ids = tokenizer.encode([audio]).item(0).numpy()
            given = max(0, (length - 400) // 320 + 1)
            expected = sklearn.predict(pair.hidden_states(audio)[layer]) if given else ids[:0]
            assert len(expected) == given
            differing = int((ids[:given] != expected).sum())
            assert differing == 0, f"{sound}, {label}: {differing} of {given} tokens differ"
            assert len(ids) == frames_in(length, 16_000, tokenizer.spec.facts.frame_rate)  # type: ignore[union-attr]
            rows.append((sound, label, len(ids), given, differing))
    _print(f"{request.node.callspec.id}: tokens that differ", rows)


@pytest.mark.parametrize("estimator", ["MiniBatchKMeans", "KMeans"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dump", ["joblib", "pickle"])
def test_pickles_are_those_of_joblib(tmp_path: Path, estimator: Any, dtype: Any, dump: str) -> None:
    draw = np.random.default_rng(0)
    fitted = getattr(cluster, estimator)(5, random_state=np.random.RandomState(0), n_init=1)
    fitted.fit(draw.standard_normal((60, 7)).astype(dtype))
    fitted.cluster_centers_ = np.asfortranarray(fitted.cluster_centers_)
    path = tmp_path / "km.bin"
    path.write_bytes(pickle.dumps(fitted))
    if dump == "joblib":
        joblib.dump(fitted, path)
    centroids = read_kmeans(path, allow_pickle=True).centroids
    assert np.array_equal(centroids, fitted.cluster_centers_.astype(np.float32))


def _print(title: str, rows: list[tuple[Any, ...]]) -> None:
    print(f"\n{title}\n{'sound':12} {'length':13} {'ours':>6} {'original':>9} {'difference':>11}")
    for sound, label, ours, given, difference in rows:
        print(f"{sound:12} {label:13} {ours:6} {given or 'refuses':>9} {difference:>11}")
