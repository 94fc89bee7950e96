"""The centroids of a scikit-learn k-means pickle, read without scikit-learn and without its code.

fairseq and textlesslib publish ``joblib`` dumps of `MiniBatchKMeans`. Unpickling may call anything
that a file names, so this reader knows a fixed list of names. Classes of scikit-learn become inert
boxes that only hold what is put into them; numpy's arrays and numbers are numpy's own. Any other
name is refused before anything is called.

``joblib`` writes the bytes of an array right behind a small object that describes it; that layout
is in its documentation of persistence, and is read here as far as plain numbers need it.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from speechloom.errors import WeightsError

__all__ = ["read_centroids"]


class _Inert:
    """Stands for an object of another package: holds its state, runs nothing of it."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.__dict__["state"] = state


class _KMeans(_Inert):
    """The estimator."""


class _StoredArray(_Inert):
    """The description of an array whose bytes follow in the file."""


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of protocol 2 spell them."""
    return text.encode("latin1")


def _from_buffer(data: Any, dtype: Any, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    """An array, as pickles of protocol 5 spell it."""
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")


_RANDOM_STATE = ("__randomstate_ctor", "__bit_generator_ctor", "__generator_ctor")
_NAMES: dict[tuple[str, str], Any] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _StoredArray,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{("numpy.random._pickle", name): _Inert for name in _RANDOM_STATE},
    ("numpy.random._mt19937", "MT19937"): _Inert,
    ("numpy.random", "__RandomState_ctor"): _Inert,
}
for _module in ("numpy.core", "numpy._core"):
    _NAMES[(f"{_module}.multiarray", "_reconstruct")] = np.zeros(1).__reduce__()[0]
    _NAMES[(f"{_module}.multiarray", "scalar")] = np.float64(0).__reduce__()[0]
    _NAMES[(f"{_module}.numeric", "_frombuffer")] = _from_buffer
for _module in ("sklearn.cluster._kmeans", "sklearn.cluster.k_means_", "sklearn.cluster"):
    for _name in ("KMeans", "MiniBatchKMeans"):
        _NAMES[(_module, _name)] = _KMeans


# The pure Python unpickler: the one in C reads ahead and would swallow the bytes of the arrays.
_PurePython: Any = vars(pickle)["_Unpickler"]


class _Unpickler(_PurePython):  # type: ignore[misc]  # the standard library's types leave it out
    dispatch = dict(_PurePython.dispatch)

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.stream = file

    def find_class(self, module: str, name: str) -> Any:
        """Look a name up in the list, and nowhere else."""
        try:
            return _NAMES[(module, name)]
        except KeyError:
            raise WeightsError(f"it names {module}.{name}, which k-means do not need") from None

    def load_build(self) -> None:
        """Give an object its state; put an array in the place of its description."""
        super().load_build()
        if isinstance(self.stack[-1], _StoredArray):
            self.stack[-1] = _array_behind(self.stack[-1], self.stream)

    dispatch[pickle.BUILD[0]] = load_build


def read_centroids(path: Path) -> NDArray[np.floating[Any]]:
    """The centroids [V, D] of a pickled scikit-learn `KMeans` or `MiniBatchKMeans`.

    Args:
        path: written by ``joblib.dump`` (not compressed) or by ``pickle.dump``.

    Raises:
        WeightsError: the file names anything but numpy arrays and k-means, is damaged, or is no
            k-means.
    """
    try:
        with path.open("rb") as file:
            found = _Unpickler(file).load()
    except WeightsError as error:
        raise WeightsError(
            f"{path} is refused, for it could run code: {error}; get another file, or save its "
            "cluster_centers_ with numpy.save"
        ) from None
    except Exception as error:  # a damaged pickle can raise almost anything
        raise WeightsError(
            f"{path} cannot be read as a scikit-learn pickle ({type(error).__name__}: {error}); it "
            "is truncated, compressed or something else"
        ) from error
    state = getattr(found, "state", None)
    centroids = state.get("cluster_centers_") if isinstance(state, dict) else None
    if not (isinstance(found, _KMeans) and isinstance(centroids, np.ndarray)):
        raise WeightsError(
            f"{path} holds no fitted scikit-learn k-means; give a file with cluster_centers_"
        )
    return centroids


def _array_behind(description: _StoredArray, stream: IO[bytes]) -> NDArray[Any]:
    """Read the array that follows its description in the stream."""
    facts = description.__dict__["state"]
    dtype, shape = facts["dtype"], tuple(facts["shape"])
    if dtype.hasobject:
        raise WeightsError("it holds an array of objects, which k-means do not need")
    if facts.get("numpy_array_alignment_bytes") is not None:
        padding = stream.read(1)
        stream.read(padding[0])
    size = math.prod(shape) * dtype.itemsize
    data = stream.read(size)
    if len(data) < size:
        raise EOFError(f"an array of {size} bytes ends after {len(data)}")
    # joblib writes in the order of memory, so that a transposed array comes back by transposing.
    array = np.frombuffer(data, dtype)
    return array.reshape(shape[::-1]).T if facts["order"] == "F" else array.reshape(shape)
