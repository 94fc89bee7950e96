"""The k-means that fairseq and textlesslib publish: where they are, and where we look for them.

They are scikit-learn pickles, and their server is no hub, so nothing is downloaded here. One
command turns the downloaded pickle into a file that is found by its name from then on::

    speechloom hubert convert km.bin --sklearn-pickle --for hubert-base-ls960-l6-km50
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from speechloom.errors import WeightsError

__all__ = ["FOLDER_VARIABLE", "PUBLISHED", "PublishedKMeans", "kmeans_folder", "published_path"]

FOLDER_VARIABLE = "SPEECHLOOM_KMEANS"
"""Environment variable that names the folder of converted k-means."""

_SERVER = "https://dl.fbaipublicfiles.com"


@dataclass(frozen=True)
class PublishedKMeans:
    """A published scikit-learn pickle.

    Attributes:
        url: where it is published.
        sha256: hash of that file, as textlesslib pins it.
    """

    url: str
    sha256: str


PUBLISHED: Mapping[str, PublishedKMeans] = {
    "hubert-base-ls960-l6-km50": PublishedKMeans(
        f"{_SERVER}/textless_nlp/gslm/hubert/km50/km.bin",
        "d01a7d5bc2c54b7b5f25f321ba525b4d230b06e3927f90bad0394198bc89f494",
    ),
    "hubert-base-ls960-l6-km100": PublishedKMeans(
        f"{_SERVER}/textless_nlp/gslm/hubert/km100/km.bin",
        "f14a3104615485381fc489701d6761c9abbdbb0d43607cf55518a1e2891023fe",
    ),
    "hubert-base-ls960-l6-km200": PublishedKMeans(
        f"{_SERVER}/textless_nlp/gslm/hubert/km200/km.bin",
        "b3c46c9cdd1707ad852dd53c359aa73942e79d53c432a9a8a419ed046408024b",
    ),
    "hubert-base-ls960-l6-km500": PublishedKMeans(
        f"{_SERVER}/textless_nlp/gslm/hubert/km500/km.bin",
        "411c8668e1314751404f58636f935fc73540a6793890435da4a8ffadf157398e",
    ),
    "hubert-base-ls960-l9-km500": PublishedKMeans(
        f"{_SERVER}/hubert/hubert_base_ls960_L9_km500.bin",
        "4450dcbc90aa7d0553306a4b0fafef35c9b3c840468f02969273dfbb9db89a23",
    ),
}
"""Published pickles by the id of the tokenizer that needs them."""


def kmeans_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where converted k-means lie: ``$SPEECHLOOM_KMEANS``, or the user's cache."""
    environ = os.environ if environ is None else environ
    if environ.get(FOLDER_VARIABLE):
        return Path(environ[FOLDER_VARIABLE]).expanduser()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "speechloom" / "kmeans"


def published_path(id_: str) -> Path:
    """The converted k-means of a published tokenizer.

    Args:
        id_: of the tokenizer.

    Raises:
        WeightsError: it is not there; the message says how to get it.
    """
    path = kmeans_folder() / f"{id_}.safetensors"
    if path.is_file():
        return path
    known = PUBLISHED.get(id_)
    how = (
        f"download {known.url} and run "
        f"`speechloom hubert convert {known.url.rpartition('/')[2]} --sklearn-pickle --for {id_}`"
        if known
        else "make the spec with `spec_for(..., kmeans=...)`, which names its k-means"
    )
    raise WeightsError(
        f"the k-means of {id_} is missing: there is no {path} ({FOLDER_VARIABLE} names the "
        f"folder); {how}"
    )
