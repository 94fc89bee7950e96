"""Files of acoustic codes: what ``speechloom codec encode`` writes and ``codec decode`` plays.

A numpy archive (``.npz``) of ``ids`` int32 [K, F], of ``scales`` float32 [F] where the codec
normalises loudness, and of a ``header`` in JSON that names the codec's code set and the length.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from speechloom.container import write_atomically
from speechloom.errors import UsageError
from speechloom.values import Codes

__all__ = ["load_codes", "save_codes"]

FORMAT = 1


def save_codes(path: str | os.PathLike[str], codes: Codes, seconds: Fraction) -> None:
    """Write the codes of one recording.

    Args:
        path: of the file; its folder must exist.
        codes: of a single item.
        seconds: how long the recording is, which its frames cover.

    Raises:
        UsageError: there is not exactly one item.
        OutputError: it cannot be written; nothing is left behind.
    """
    if len(codes.lengths) != 1:
        raise UsageError(f"a file holds the codes of one item, but there are {len(codes.lengths)}")
    header = {
        "format": FORMAT,
        "codes": codes.codec,
        "frame_rate": str(codes.frame_rate),
        "codebook_size": codes.codebook_size,
        "seconds": str(seconds),
    }
    arrays = {"ids": codes.item(0).cpu().numpy().astype(np.int32)}
    if codes.scales is not None:
        scales = codes.scales[0, : int(codes.lengths[0])]
        arrays["scales"] = scales.cpu().numpy().astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    write_atomically(Path(path), lambda file: file.write(buffer.getvalue()))


def load_codes(path: str | os.PathLike[str]) -> tuple[Codes, Fraction]:
    """Read the codes of one recording, and how many seconds it lasts.

    Args:
        path: of a file that `save_codes` wrote.

    Raises:
        UsageError: it does not exist, or is something else or damaged.
    """
    try:
        # Opened here, since numpy leaves a file open that turns out to be damaged.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, Any] = dict(archive)
        header = json.loads(str(arrays["header"]))
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']}, not {FORMAT}")
        return _codes(arrays, header), Fraction(header["seconds"])
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; give a file that `codec encode` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is not a whole codes file ({error}); give one that `codec encode` wrote"
        ) from None


def _codes(arrays: dict[str, Any], header: dict[str, Any]) -> Codes:
    import torch

    scales = arrays.get("scales")
    return Codes(
        torch.from_numpy(arrays["ids"].astype(np.int64))[None],
        header["codes"],
        header["codebook_size"],
        Fraction(header["frame_rate"]),
        scales=None if scales is None else torch.from_numpy(scales)[None],
    )
