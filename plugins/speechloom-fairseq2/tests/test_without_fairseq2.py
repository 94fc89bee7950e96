"""What works where fairseq2 is not: the spec, its listing, and the k-means."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from speechloom import UsageError, WeightsError
from speechloom.errors import PluginError
from speechloom.records import Status
from speechloom.registry import Registry
from speechloom_fairseq2 import _spec, spec_for
from speechloom_fairseq2.kmeans import nearest, read_centroids


def _registry() -> Registry:
    distribution = importlib.metadata.distribution("speechloom-fairseq2")
    return Registry(entry_points=tuple(distribution.entry_points), environ={})


def _fairseq2_is_here() -> bool:
    try:
        importlib.metadata.version("fairseq2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(_fairseq2_is_here(), reason="fairseq2 is installed")
def test_it_is_listed_with_the_install_hint() -> None:
    registry = _registry()
    (record,) = registry.records("tokenizer")
    assert record.status is Status.missing_dependency
    assert record.error is not None
    assert "fairseq2<0.9,>=0.8 (not installed)" in record.error
    with pytest.raises(PluginError, match=r"pip install 'speechloom-fairseq2\[fairseq2\]'"):
        registry.load("tokenizer", _spec.XLSR2_1B.id)


def test_specs_say_what_they_need() -> None:
    spec = spec_for("card:wav2vec2_base", id="mine", kmeans="k.npy", vocabulary_size=7, layer=6)
    assert spec.facts.vocabulary == "mine"  # type: ignore[union-attr]
    assert spec.requires == ("fairseq2>=0.8,<0.9", "torch==2.9.1")
    assert spec.options["checkpoint"] == "card:wav2vec2_base"


def test_specs_hold_from_any_folder_and_of_known_families_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "k.npy", CENTROIDS.numpy())
    monkeypatch.chdir(tmp_path)
    spec = spec_for(".", id="mine", kmeans="k.npy", vocabulary_size=4, layer=6)
    here = tmp_path.resolve()
    assert [spec.options[name] for name in ("checkpoint", "kmeans")] == [
        str(here),
        str(here / "k.npy"),
    ]
    with pytest.raises(UsageError, match="family must be one of wav2vec2, w2vbert"):
        spec_for(".", id="x", kmeans="k.npy", vocabulary_size=4, layer=6, family="hubert")  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(2, 12), st.integers(1, 6))
def test_units_are_the_nearest_centroids(seed: int, frames: int, size: int, width: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, width, generator=draw)
    centroids = torch.randn(size, width, generator=draw)
    distances = torch.cdist(features.double(), centroids.double())
    chosen = distances.gather(1, nearest(features, centroids)[:, None])[:, 0]
    torch.testing.assert_close(chosen, distances.min(1).values, atol=1e-5, rtol=0)


CENTROIDS = torch.arange(12.0).reshape(4, 3)


def test_both_formats_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", CENTROIDS.double().numpy())
    metadata = {"encoder": "xlsr", "layer": "35", "frame_rate": "50"}
    save_file({"centroids": CENTROIDS.half()}, tmp_path / "k.safetensors", metadata)
    for name in ("k.npy", "k.safetensors"):
        read = read_centroids(tmp_path / name, size=4, width=3, expected={"layer": "35"})
        assert read.dtype == torch.float32
        assert torch.equal(read, CENTROIDS)


def test_centroids_of_another_size_or_layer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "k.safetensors"
    save_file({"centroids": CENTROIDS}, path, {"layer": "6"})
    with pytest.raises(WeightsError, match=r"should hold 4 finite centroids of 5 .* \[4, 3\]"):
        read_centroids(path, size=4, width=5)
    with pytest.raises(WeightsError, match="fitted for layer 6, but the spec promises 35"):
        read_centroids(path, size=4, width=3, expected={"layer": "35"})
    np.save(tmp_path / "nan.npy", np.full((4, 3), np.nan, np.float32))
    with pytest.raises(WeightsError, match="finite centroids"):
        read_centroids(tmp_path / "nan.npy", size=4, width=3)


def test_damaged_and_unsafe_centroids_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([print], dtype=object), allow_pickle=True)
    save_file({"centers": CENTROIDS}, tmp_path / "other.safetensors")
    save_file({"centroids": CENTROIDS}, tmp_path / "cut.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(cut.read_bytes()[:-5])
    (tmp_path / "k.bin").write_bytes(b"km")
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, CENTROIDS.numpy(), CENTROIDS.numpy())
    unreadable = ("object.npy", "several.npy", "other.safetensors", "cut.safetensors", "k.bin")
    for name in (*unreadable, "missing.npy"):
        with pytest.raises(WeightsError, match="holds no centroids that can be read"):
            read_centroids(tmp_path / name, size=4, width=3)
