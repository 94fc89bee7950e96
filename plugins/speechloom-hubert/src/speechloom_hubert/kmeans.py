"""K-means files: read, check, write. Light: numpy only, no torch.

Ours is a safetensors file with one tensor ``centroids``, float32 [V, D], and metadata that says
what was clustered. A ``.npy`` array and the scikit-learn pickles of the field hold only centroids.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speechloom.checkpoints import sha256_of
from speechloom.container import write_atomically
from speechloom.errors import WeightsError

__all__ = ["KMeans", "read_kmeans", "write_kmeans"]

FORMAT = "speechloom-kmeans-1"
DEFAULT_RATE = Fraction(50)


@dataclass(frozen=True, eq=False)
class KMeans:
    """The centres of the units.

    Attributes:
        centroids: float32 [V, D]; row i is unit i.
        frame_rate: of the features that were clustered, Hz.
        layer: the hidden layer that was clustered; None when the file does not say.
        family: ``hubert`` or ``wavlm``; None when the file does not say.
        encoder: the checkpoint that was clustered, for people; None when the file does not say.

    Raises:
        WeightsError: the centroids are not at least two finite vectors of one size.
    """

    centroids: NDArray[np.float32]
    frame_rate: Fraction = DEFAULT_RATE
    layer: int | None = None
    family: str | None = None
    encoder: str | None = None

    def __post_init__(self) -> None:
        values = np.asarray(self.centroids)
        if values.ndim != 2 or values.shape[0] < 2 or not np.issubdtype(values.dtype, np.floating):
            raise WeightsError(
                f"k-means centroids must be floating point [V, D] with V of at least 2, but are "
                f"{values.dtype} {list(values.shape)}"
            )
        values = np.array(values, dtype=np.float32, order="C")
        if not np.isfinite(values).all():
            raise WeightsError("k-means centroids must be finite, but hold NaN or infinite values")
        object.__setattr__(self, "centroids", values)


def read_kmeans(
    path: Path, *, allow_pickle: bool = False, sha256: Mapping[str, str] | None = None
) -> KMeans:
    """Read k-means of any of the three kinds.

    Args:
        path: ``.safetensors``, ``.npy``, or else a scikit-learn pickle.
        allow_pickle: whether a pickle is wanted; no code in it is run either way.
        sha256: promised hash by file name; a file that is not named is not hashed.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, of another hash, or a pickle
            that was not allowed or holds more than centroids.
    """
    if not path.is_file():
        raise WeightsError(f"the k-means {path} does not exist; give the path of a file")
    promised = (sha256 or {}).get(path.name)
    if promised is not None and sha256_of(path) != promised.lower():
        raise WeightsError(
            f"the k-means {path} should have SHA-256 {promised}, but has {sha256_of(path)}; it is "
            "damaged or of another version"
        )
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npy":
        return _read_npy(path)
    if not allow_pickle:
        raise WeightsError(
            f"the k-means {path} is neither .safetensors nor .npy; if it is a scikit-learn pickle, "
            f"say so: `speechloom hubert convert {path.name} km.safetensors --sklearn-pickle`, or "
            "allow_pickle=True"
        )
    from speechloom_hubert.sklearn_pickle import read_centroids

    return KMeans(read_centroids(path))


def write_kmeans(path: Path, units: KMeans) -> None:
    """Write a safetensors file, whole or not at all.

    Args:
        path: ends in ``.safetensors``.
        units: what is written.

    Raises:
        WeightsError: the path has another ending.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"k-means are written as .safetensors, but the path is {path}")
    facts = {"layer": units.layer, "family": units.family, "encoder": units.encoder}
    metadata = {"format": FORMAT, "frame_rate": str(units.frame_rate)}
    metadata |= {name: str(value) for name, value in facts.items() if value is not None}
    data = _as_safetensors(units.centroids, metadata)
    write_atomically(path, lambda file: file.write(data))


def _as_safetensors(centroids: NDArray[np.float32], metadata: Mapping[str, str]) -> bytes:
    """The file, always the same bytes for the same content: the library shuffles the metadata."""
    data = centroids.astype("<f4").tobytes()
    entry = {"dtype": "F32", "shape": list(centroids.shape), "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": metadata, "centroids": entry}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def _read_safetensors(path: Path) -> KMeans:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names, metadata = list(file.keys()), file.metadata() or {}
            centroids = file.get_tensor("centroids") if "centroids" in names else None
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is no whole safetensors file ({error}); get it again"
        ) from error
    if centroids is None:
        raise WeightsError(
            f"{path} holds {', '.join(names[:5]) or 'nothing'}, but k-means hold a tensor named "
            "centroids"
        )
    try:
        return KMeans(
            centroids,
            Fraction(metadata.get("frame_rate", DEFAULT_RATE)),
            int(metadata["layer"]) if "layer" in metadata else None,
            metadata.get("family"),
            metadata.get("encoder"),
        )
    except ValueError as error:
        raise WeightsError(f"{path} has metadata that make no sense: {error}") from error


def _read_npy(path: Path) -> KMeans:
    try:
        return KMeans(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"{path} is no whole array of numbers ({error}); get it again"
        ) from error
