"""With fairseq2: conformance, its own features on the same weights, its cards, wrong input."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechloom import Audio, UsageError, WeightsError
from speechloom.testing import parametrize_with_checks
from speechloom.testing.inputs import made_audio
from speechloom_fairseq2 import _spec, spec_for

pytest.importorskip("fairseq2", reason="needs fairseq2 in an environment of its own")
pytest.importorskip("sklearn", reason="compares units with scikit-learn's")

from fairseq2.assets import AssetCard  # noqa: E402  # only where it is
from fairseq2.data.audio import WaveformToFbankConverter  # noqa: E402
from fairseq2.models.w2vbert import get_w2vbert_model_hub  # noqa: E402
from fairseq2.models.wav2vec2 import get_wav2vec2_model_hub  # noqa: E402
from fairseq2.nn import BatchLayout  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402

from speechloom_fairseq2 import Fairseq2Tokenizer, encoder  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    # fairseq2 0.8 warns of parts of itself, and so do the packages that it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
RATE = 16_000
LENGTHS = {"1 sample": 1, "1 frame": 320, "1 frame + 1": 321, "3.7 s": 59_200, "31 s": 496_000}
TINY = {"model_dim": 32, "num_encoder_layers": 3, "num_encoder_attn_heads": 2, "ffn_inner_dim": 64}
CONVS = [(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] * 2
TINY_WAV2VEC = {**TINY, "feature_dim": 32, "feature_extractor_layer_descs": CONVS}
FAMILIES = {
    "wav2vec 2.0 base": ("wav2vec2", "base", TINY_WAV2VEC, False),
    "wav2vec 2.0 large_lv60k": ("wav2vec2", "large_lv60k", TINY_WAV2VEC, True),
    "w2v-BERT 600m": ("w2vbert", "600m", {**TINY, "depthwise_conv_kernel_size": 5}, False),
}
SIZE, LAYER = 20, 2

SPECS = [
    _spec.XLSR2_1B,
    spec_for(
        "nobody/nothing",
        id="bert",
        kmeans="k.npy",
        vocabulary_size=SIZE,
        layer=LAYER,
        family="w2vbert",
        arch="600m",
    ),
]
CHECKS = [
    pytest.param(*one.values, id=f"{spec.id}-{one.id}", marks=one.marks)
    for spec in SPECS
    for one in parametrize_with_checks(spec).args[1]
]


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def _made(family: str, arch: str, sizes: dict[str, Any], folder: Path) -> Any:
    """fairseq2's own model with random weights, saved where a tokenizer can read it."""
    hub: Any = get_w2vbert_model_hub() if family == "w2vbert" else get_wav2vec2_model_hub()
    config = hub.get_arch_config(arch)
    inner = config.w2v2_config if family == "w2vbert" else config
    inner.encoder_config = replace(inner.encoder_config, **sizes)
    if family == "w2vbert":
        config.num_bert_encoder_layers = 1
    torch.manual_seed(1)
    model = hub.create_new_model(config).eval()
    torch.save({"model": model.state_dict()}, folder / "model.pt")
    return model.w2v2_model if family == "w2vbert" else model


def _spec_of(folder: Path, family: str, arch: str, sizes: Any, normalize: bool) -> Any:
    return spec_for(
        folder,
        id="same-weights",
        kmeans=folder / "k.npy",
        vocabulary_size=SIZE,
        layer=LAYER,
        family=family,  # type: ignore[arg-type]  # one of the two
        arch=arch,
        config=sizes,
        normalize=normalize,
    )


@torch.inference_mode()
def _features_of(model: Any, family: str, samples: torch.Tensor, frames: int) -> torch.Tensor:
    """Features [F, D] of a layer, by a hook on the whole model, of samples and enough silence."""
    window = 560 if family == "w2vbert" else 400
    padded = torch.nn.functional.pad(samples, (0, (frames - 1) * 320 + window - len(samples)))
    if family == "w2vbert":
        convert = WaveformToFbankConverter(
            num_mel_bins=80, waveform_scale=2.0**15, channel_last=True, standardize=True
        )
        padded = convert({"waveform": padded[:, None], "sample_rate": RATE})["fbank"]
    outputs: dict[int, torch.Tensor] = {}

    def keep(index: int, output: torch.Tensor, layout: Any, layers: int) -> bool:
        outputs[index] = output
        return True

    with model.encoder.register_layer_hook(keep):
        seqs, layout = model.encoder_frontend(padded[None], BatchLayout.of(padded[None]))
        model.encoder(seqs, layout)
    assert len(outputs) == TINY["num_encoder_layers"]
    return outputs[LAYER - 1][0]


def _recording(source: str, length: int) -> Audio:
    if source == "speech-like":
        return made_audio(length, RATE, 1, 2)
    return Audio(0.2 * np.random.default_rng(length).standard_normal(length, np.float32), RATE)


def test_features_and_units_are_those_of_fairseq2_and_scikit_learn(tmp_path: Path) -> None:
    rows = []
    for title, (family, arch, sizes, normalize) in FAMILIES.items():
        folder = tmp_path / family / arch
        folder.mkdir(parents=True)
        model = _made(family, arch, sizes, folder)
        fitted = _fitted(model, family, normalize)
        np.save(folder / "k.npy", fitted.cluster_centers_)
        spec = _spec_of(folder, family, arch, sizes, normalize)
        tokenizer = Fairseq2Tokenizer.from_pretrained(spec)
        for name, length in LENGTHS.items():
            for source in ("speech-like", "noise"):
                recording = _recording(source, length)
                ours = tokenizer.features([recording]).values[0].t()
                theirs = _features_of(model, family, _samples(recording, normalize), len(ours))
                error = float((ours - theirs).abs().max())
                units = tokenizer.encode([recording]).item(0)
                expected = fitted.predict(theirs.numpy())
                differ = int((units.numpy() != expected).sum())
                kinds = len(units.unique())
                rows.append((title, name, source, len(units), kinds, differ, error))
    print("\n| encoder | length | input | units | kinds | units that differ | features |")
    print("|---|---|---|---|---|---|---|")
    for title, name, source, count, kinds, differ, error in rows:
        print(f"| {title} | {name} | {source} | {count} | {kinds} | {differ} | {error:.1e} |")
    assert all(differ == 0 for *_, differ, _ in rows)
    assert max(error for *_, error in rows) < 1e-4


def _samples(recording: Audio, normalize: bool) -> torch.Tensor:
    samples = recording.tensor()[0]
    return torch.nn.functional.layer_norm(samples, samples.shape) if normalize else samples


def _fitted(model: Any, family: str, normalize: bool) -> KMeans:
    recordings = [_recording(source, 64_000) for source in ("speech-like", "noise")]
    features = [_features_of(model, family, _samples(r, normalize), 200) for r in recordings]
    return KMeans(SIZE, n_init=1, random_state=0).fit(torch.cat(features).numpy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _made("wav2vec2", "base", TINY_WAV2VEC, tmp_path)
    np.save(tmp_path / "k.npy", np.eye(SIZE, 32, dtype=np.float32))
    return tmp_path


def _loaded(folder: Path, **changes: Any) -> Fairseq2Tokenizer:
    spec = _spec_of(folder, "wav2vec2", "base", TINY_WAV2VEC, False)
    options = {**spec.options, **changes}
    return Fairseq2Tokenizer.from_pretrained(spec.model_copy(update={"options": options}))


def test_addresses_and_files_give_the_same(folder: Path) -> None:
    audio = [made_audio(8_000)]
    whole = _loaded(folder)
    by_address = _loaded(folder, checkpoint=(folder / "model.pt").as_uri())
    assert torch.equal(whole.encode(audio).ids, by_address.encode(audio).ids)
    assert whole.weights.keys() == {"model.pt", "k.npy"}


def test_cards_bring_their_sizes_and_their_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = encoder._card("card:wav2vec2_base")
    assert public.field("checkpoint").as_uri().scheme == "https"
    metadata = {
        "model_family": "wav2vec2",
        "model_arch": "base",
        "model_config": {"encoder_config": TINY_WAV2VEC},
        "checkpoint": str(folder / "model.pt"),
    }
    card = AssetCard("tiny", metadata)
    monkeypatch.setattr(encoder, "_card", lambda location: card if "card:" in location else None)
    tokenizer = _loaded(folder, checkpoint="card:tiny", config=None)
    audio = [made_audio(8_000)]
    assert torch.equal(tokenizer.encode(audio).ids, _loaded(folder).encode(audio).ids)


def test_wrong_input_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(WeightsError, match=match):
            _loaded(folder, **changes)

    refused("has no asset card 'nothing'", checkpoint="card:nothing")
    refused("knows no wav2vec2 architecture 'huge'", arch="huge")
    refused("layer 9 was asked for", layer=9)
    refused(
        r"does not fit SpeechEncoder.* instead of", config={**TINY_WAV2VEC, "ffn_inner_dim": 32}
    )
    refused("has no such fields", config={"model_size": 3})
    refused("no network can be built", config={**TINY_WAV2VEC, "num_encoder_attn_heads": 0})
    (width, kernel, stride), *rest = CONVS
    slower = {**TINY_WAV2VEC, "feature_extractor_layer_descs": [(width, kernel, 2 * stride), *rest]}
    refused("promises frame rate 50, but .* has 25", config=slower)
    np.save(folder / "wide.npy", np.zeros((SIZE, 7), np.float32))
    refused("finite centroids of 32 values", kmeans=str(folder / "wide.npy"))
    torch.save({"decoder.model.0.conv.conv.weight": torch.zeros(2)}, folder / "model.pt")
    refused("does not fit SpeechEncoder: it lacks")
    data = (folder / "model.pt").read_bytes()
    (folder / "model.pt").write_bytes(data[: len(data) // 2])
    refused("truncated or something else")
    with (folder / "model.pt").open("wb") as file:
        pickle.dump({"model": _Dangerous()}, file)
    refused("could run code|cannot be read as a torch file")
    assert "never" not in capsys.readouterr().out


class _Dangerous:
    def __reduce__(self) -> Any:
        return (print, ("this must never be printed",))


def test_bad_audio_is_refused(folder: Path) -> None:
    tokenizer = _loaded(folder)
    with pytest.raises(UsageError, match="NaN"):
        tokenizer.encode([Audio(np.full((1, 400), np.nan, np.float32), RATE)])
    with pytest.raises(UsageError, match="up to 80 s at once"):
        tokenizer.encode([Audio(np.zeros((1, 81 * RATE), np.float32), RATE)])
    for method in (tokenizer.encode, tokenizer.features):
        with pytest.raises(UsageError, match="there is no audio to encode"):
            method([])


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    match = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert match
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(match[1], "README.md", "exec"), names)
    assert names["units"].ids.shape == (1, 100)
    assert names["features"].values.shape == (1, 32, 100)
