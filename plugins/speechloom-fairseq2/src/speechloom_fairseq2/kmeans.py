"""The centroids that make units of features. Needs no fairseq2."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speechloom.errors import WeightsError

__all__ = ["nearest", "read_centroids"]


def read_centroids(
    path: Path, *, size: int, width: int, expected: Mapping[str, str] | None = None
) -> Tensor:
    """Read centroids float32 [V, D].

    Args:
        path: ``.safetensors`` with the tensor ``centroids``, or ``.npy`` with one array.
        size: V, that is promised.
        width: D, that the encoder gives.
        expected: what the metadata of a safetensors file should say, where it says anything:
            ``layer``, ``frame_rate``.

    Raises:
        WeightsError: the file is damaged, of another format, or not for this encoder.
    """
    try:
        centroids, metadata = _read(path)
    except (SafetensorError, OSError, ValueError, TypeError, EOFError) as error:
        raise WeightsError(
            f"{path} holds no centroids that can be read ({type(error).__name__}: {error}); give "
            "a .safetensors file with the tensor `centroids`, or a .npy file with one array [V, D]"
        ) from error
    if list(centroids.shape) != [size, width] or not bool(torch.isfinite(centroids).all()):
        raise WeightsError(
            f"{path} should hold {size} finite centroids of {width} values, one for each unit and "
            f"each feature of the encoder, but holds {list(centroids.shape)}; give the k-means "
            "that was fitted on this encoder's features"
        )
    for name, value in (expected or {}).items():
        if metadata.get(name, value) != value:
            raise WeightsError(
                f"{path} was fitted for {name} {metadata[name]}, but the spec promises {value}; "
                "give the k-means that was fitted on these features"
            )
    return centroids


def _read(path: Path) -> tuple[Tensor, Mapping[str, str]]:
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)), {}
    if path.suffix != ".safetensors":
        raise ValueError(f"the suffix {path.suffix or '(none)'} is not known")
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("centroids").float(), file.metadata() or {}


def nearest(features: Tensor, centroids: Tensor) -> Tensor:
    """The id int64 [F] of the nearest centroid [V, D] to each feature [F, D]."""
    # |f|² is the same for every centroid, and only costs precision.
    return (centroids.pow(2).sum(1) - 2 * features @ centroids.t()).argmin(1)
