"""K-means files: what is read and written, and what a pickle may not do."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from speechloom.errors import WeightsError
from speechloom_hubert.kmeans import KMeans, read_kmeans, write_kmeans
from speechloom_hubert.units import nearest

CENTROIDS = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def sklearn_like(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Make an object that pickles like scikit-learn's k-means does; the class is gone later."""
    module = ModuleType("sklearn.cluster._kmeans")

    class MiniBatchKMeans:
        pass

    MiniBatchKMeans.__module__ = module.__name__
    MiniBatchKMeans.__qualname__ = "MiniBatchKMeans"
    module.MiniBatchKMeans = MiniBatchKMeans  # type: ignore[attr-defined]
    names = ("sklearn", "sklearn.cluster", "sklearn.cluster._kmeans")
    with monkeypatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, module)

        def make(**state: Any) -> Any:
            estimator = MiniBatchKMeans()
            estimator.__dict__.update(state)
            return estimator

        yield make


class Runs:
    """Unpickling this makes a folder, if it is let."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    units = KMeans(CENTROIDS, Fraction(25), 6, "wavlm", "lab/model")
    write_kmeans(tmp_path / "km.safetensors", units)
    back = read_kmeans(tmp_path / "km.safetensors")
    assert np.array_equal(back.centroids, CENTROIDS)
    assert back.centroids.dtype == np.float32
    assert (back.frame_rate, back.layer, back.family, back.encoder) == (25, 6, "wavlm", "lab/model")


def test_arrays_know_only_the_centroids(tmp_path: Path) -> None:
    np.save(tmp_path / "km.npy", CENTROIDS.astype(np.float64))
    units = read_kmeans(tmp_path / "km.npy")
    assert np.array_equal(units.centroids, CENTROIDS)
    assert units.centroids.dtype == np.float32
    assert (units.frame_rate, units.layer, units.family, units.encoder) == (50, None, None, None)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_read_when_named(
    tmp_path: Path, sklearn_like: Callable[..., Any], protocol: int
) -> None:
    state = {
        "cluster_centers_": CENTROIDS.astype(np.float64),
        "labels_": np.zeros(7, np.int32),
        "inertia_": np.float64(3.0),
        "random_state": None,
        "_random_state": np.random.RandomState(0),
        "_tol": 0.0,
    }
    path = tmp_path / "km.bin"
    path.write_bytes(pickle.dumps(sklearn_like(**state), protocol=protocol))
    assert np.array_equal(read_kmeans(path, allow_pickle=True).centroids, CENTROIDS)
    with pytest.raises(WeightsError, match="neither .safetensors nor .npy.*--sklearn-pickle"):
        read_kmeans(path)


def test_code_in_a_pickle_is_not_run(tmp_path: Path, sklearn_like: Callable[..., Any]) -> None:
    path = tmp_path / "km.bin"
    for number, content in enumerate(
        (
            Runs(tmp_path / "ran"),
            sklearn_like(cluster_centers_=CENTROIDS, extra=Runs(tmp_path / "ran")),
            np.array([Runs(tmp_path / "ran")], dtype=object),
        )
    ):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(WeightsError, match="refused, for it could run code: it names .*mkdir"):
            read_kmeans(path, allow_pickle=True)
        assert not (tmp_path / "ran").exists(), number


@pytest.mark.parametrize("name", ["builtins.eval", "os.system", "sklearn.cluster._kmeans.os"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    path = tmp_path / "km.pkl"
    path.write_bytes(f"c{module}\n{attribute}\n(S'1+1'\ntR.".encode())
    with pytest.raises(WeightsError, match=f"it names {name}, which k-means do not need"):
        read_kmeans(path, allow_pickle=True)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_pickles_are_one_clear_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = pickle.dumps({"cluster_centers_": CENTROIDS})
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "km.bin"
    path.write_bytes(damaged)
    with pytest.raises(WeightsError, match="km.bin"):
        read_kmeans(path, allow_pickle=True)


@pytest.mark.parametrize("content", [{"cluster_centers_": CENTROIDS}, [1, 2], CENTROIDS])
def test_other_pickles_are_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "km.bin"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match="holds no fitted scikit-learn k-means"):
        read_kmeans(path, allow_pickle=True)


@pytest.mark.parametrize(
    ("centroids", "message"),
    [
        (np.zeros((1, 3)), r"V of at least 2, but are float64 \[1, 3\]"),
        (np.zeros(3), r"\[V, D\] with V of at least 2, but are float64 \[3\]"),
        (np.zeros((4, 3), np.int64), "must be floating point"),
        (np.full((4, 3), np.nan), "must be finite"),
        (np.full((4, 3), 1e300), "must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_centroids_that_are_none_are_refused(tmp_path: Path, centroids: Any, message: str) -> None:
    np.save(tmp_path / "km.npy", centroids)
    with pytest.raises(WeightsError, match=message):
        read_kmeans(tmp_path / "km.npy")


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    write_kmeans(tmp_path / "km.safetensors", KMeans(CENTROIDS))
    np.save(tmp_path / "km.npy", CENTROIDS)
    for name in ("km.safetensors", "km.npy"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-5])
        with pytest.raises(WeightsError, match=f"{name} is no whole"):
            read_kmeans(path)
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(WeightsError, match="objects.npy is no whole array of numbers"):
        read_kmeans(tmp_path / "objects.npy")


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": CENTROIDS}, path)
    with pytest.raises(WeightsError, match="holds weight, but k-means hold a tensor named centro"):
        read_kmeans(path)
    save_file({"centroids": CENTROIDS}, path, {"layer": "six"})
    with pytest.raises(WeightsError, match="metadata that make no sense"):
        read_kmeans(path)


def test_paths_are_checked(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_kmeans(tmp_path / "none.npy")
    with pytest.raises(WeightsError, match="written as .safetensors"):
        write_kmeans(tmp_path / "km.npy", KMeans(CENTROIDS))


# Nearest ----------------------------------------------------------------------------------


def test_the_nearest_centroid_wins_and_the_first_of_equals() -> None:
    centroids = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    features = torch.tensor([[0.4, 9.0], [1.6, -9.0], [1.0, 0.0]])
    assert nearest(features, centroids).tolist() == [0, 1, 0]


@given(st.integers(1, 9), st.integers(2, 9), st.integers(0, 99))
@settings(deadline=None)
def test_nearest_is_what_distances_say(frames: int, clusters: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    features = torch.randn(frames, 5, generator=draw)
    centroids = torch.randn(clusters, 5, generator=draw)
    expected = torch.cdist(features.double(), centroids.double()).argmin(1)
    assert torch.equal(nearest(features, centroids), expected)
