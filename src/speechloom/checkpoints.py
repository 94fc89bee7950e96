"""Checkpoints of public models: find their files, check them, read them safely.

A checkpoint is a local folder, a local file, a folder or file inside an installed package
(``package:speechloom_mine/weights``) or a hub id (``owner/name``). Files of the hub come from the
local cache first and are downloaded only when they are not in it. Pickles are read with
``weights_only=True``; whatever needs more is refused with the way out.

Importing this imports no torch, so that a plugin's light modules can use it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechloom.errors import WeightsError
from speechloom.protocols import WeightFile

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "find_checkpoint",
    "fold_weight_norm",
    "is_at_hand",
    "lasting_location",
    "load_exactly",
    "local_path",
    "pinned_files",
    "read_checkpoint",
    "read_tensors",
    "sha256_of",
    "tensors_in",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_IN_PACKAGE = "package:"
_SHOWN = 5
"""Names that a message lists before it only counts."""


# Finding ----------------------------------------------------------------------------------


def find_checkpoint(
    location: str | os.PathLike[str],
    names: Sequence[str | tuple[str, ...]],
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Find the files of a checkpoint, and check those whose hash is pinned.

    Args:
        location: a folder that holds them; or one file, which stands for the first of `names`
            whatever it is called, while the others are looked for beside it; or either of them in
            an installed package, as ``package:speechloom_mine/weights``; or a hub id.
        names: one entry per wanted file; a tuple names alternatives, and the first that exists is
            taken.
        revision: branch, tag or commit of a hub id; None for its default branch.
        sha256: promised hash by file name; files that are not named are not hashed.

    Returns:
        The path of each wanted file by its own name, in the order of `names`.

    Raises:
        WeightsError: a file is missing, cannot be had without a network, or has another hash; a
            revision was given for local files.
        ModuleNotFoundError: `location` is a hub id and ``huggingface_hub`` is not installed; the
            registry reports it as `BackendUnavailable`.
    """
    wanted = [(entry,) if isinstance(entry, str) else entry for entry in names]
    local = local_path(location)
    if local is None:
        found = [_from_hub(str(location), entry, revision) for entry in wanted]
    elif revision is not None:
        raise WeightsError(
            f"revision {revision!r} was given for the local checkpoint {local}, which has none; "
            "leave it out, or, where a hub id is meant, work in a folder without one of that name"
        )
    else:
        found = _from_disk(local, wanted)
    _check_hashes(found, sha256 or {})
    return {path.name: path for path in found}


def pinned_files(
    location: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
) -> dict[str, WeightFile]:
    """The files of a checkpoint whose hash is pinned, without opening or downloading them.

    This is what a component returns from ``weight_files`` (see `HasWeightFiles`).

    Args:
        location: as `find_checkpoint` takes it.
        revision: as `find_checkpoint` takes it.
        sha256: promised hash by file name.

    Returns:
        Where each is, or would be, by file name.
    """
    local = local_path(location)
    files = {}
    for name, digest in (sha256 or {}).items():
        if local is None:
            path = _cached(str(location), name, revision) or _cache_folder(str(location)) / name
        else:
            path = local if local.name == name else _folder(local) / name
        files[name] = WeightFile(path, digest)
    return files


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def local_path(location: str | os.PathLike[str]) -> Path | None:
    """The local path that a location names; None when it can only be a hub id.

    What exists here goes first: a hub id whose name a file or a folder bears is that.

    Raises:
        WeightsError: it is neither.
    """
    if isinstance(location, str) and location.startswith(_IN_PACKAGE):
        return _from_package(location)
    path = _expanded(location)
    if path.exists():
        return path
    if _is_hub_id(location):
        return None
    raise WeightsError(
        f"the checkpoint {os.fspath(location)} does not exist; give a folder, a file or a hub id "
        "such as owner/name"
    )


def lasting_location(location: str | os.PathLike[str]) -> str:
    """A location that holds from any working directory: what is here with its whole path."""
    path = _expanded(location)
    return str(path.resolve()) if path.exists() else os.fspath(location)


def is_at_hand(location: object) -> bool:
    """Whether a checkpoint can be had without a network, as far as its location tells.

    Args:
        location: as `find_checkpoint` takes it. Anything else, an address or a number, is
            something that only its component understands: it counts as not at hand.
    """
    if not isinstance(location, (str, os.PathLike)):
        return False
    if isinstance(location, str) and location.startswith(_IN_PACKAGE):
        return True
    return _expanded(location).exists() or (_is_hub_id(location) and _is_cached(str(location)))


def _expanded(location: str | os.PathLike[str]) -> Path:
    # Unlike Path.expanduser this leaves a user who does not exist as it is.
    return Path(os.path.expanduser(location))


def _is_hub_id(location: str | os.PathLike[str]) -> bool:
    return isinstance(location, str) and _HUB_ID.fullmatch(location) is not None


def _is_cached(repository: str) -> bool:
    """Whether weights of a hub repository are in the cache, of whatever revision."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    files = _cache_folder(repository).glob("snapshots/*/**/*")
    return any(path.is_file() and path.suffix != ".json" for path in files)


def _from_package(location: str) -> Path:
    """The path inside a package, which is not imported."""
    name, _, inside = location.removeprefix(_IN_PACKAGE).partition("/")
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise WeightsError(
            f"the checkpoint {location} lies in the package {name!r}, which is not installed; "
            "install the distribution that provides it"
        )
    paths = [Path(folder) / inside for folder in folders]
    here = [path for path in paths if path.exists()]
    if not here:
        raise WeightsError(
            f"the checkpoint {location} does not exist: there is no {paths[0]}; install the "
            "distribution that provides it again"
        )
    return here[0]


def _folder(local: Path) -> Path:
    return local.parent if local.is_file() else local


def _from_disk(local: Path, wanted: Sequence[tuple[str, ...]]) -> list[Path]:
    folder = _folder(local)
    found = [local] if local.is_file() else []
    for entry in wanted[len(found) :]:
        here = [folder / name for name in entry if (folder / name).is_file()]
        if not here:
            raise WeightsError(
                f"{folder} holds no {' or '.join(entry)}; give the folder or the file of a whole "
                "checkpoint"
            )
        found.append(here[0])
    return found


def _from_hub(repository: str, entry: tuple[str, ...], revision: str | None) -> Path:
    for name in entry:
        cached = _cached(repository, name, revision)
        if cached is not None:
            return cached
    for name in entry:
        path = _downloaded(repository, name, revision)
        if path is not None:
            return path
    raise WeightsError(
        f"the hub's {_named(repository, revision)} holds no {' or '.join(entry)}; check that it is "
        "a checkpoint of this model"
    )


def _named(repository: str, revision: str | None) -> str:
    return repository if revision is None else f"{repository} at revision {revision}"


def _cached(repository: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(repository, name, revision=revision)
    except HFValidationError as error:
        raise WeightsError(
            f"the checkpoint {repository} does not exist here, and the hub has no such ids "
            f"({error}); give a folder, a file or a hub id such as owner/name"
        ) from error
    return Path(path) if isinstance(path, str) else None


def _cache_folder(repository: str) -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def _downloaded(repository: str, name: str, revision: str | None) -> Path | None:
    """Fetch one file; None when the repository does not have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:  # comes before its base class EntryNotFoundError
        raise WeightsError(
            f"{name} of {_named(repository, revision)} is not in the cache "
            f"({_cache_folder(repository)}), and the hub cannot be reached; run once with a "
            "network and without HF_HUB_OFFLINE, or give the path of a local copy"
        ) from error
    except EntryNotFoundError:
        return None
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise WeightsError(
            f"the hub has no {_named(repository, revision)}, or not for you; check the name, or "
            "log in with `hf auth login` where it is gated"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{name} of {_named(repository, revision)} could not be downloaded "
            f"({type(error).__name__}: {error}); try again, or give the path of a local copy"
        ) from error


def _check_hashes(found: Sequence[Path], promised: Mapping[str, str]) -> None:
    for path in found:
        expected = promised.get(path.name)
        if expected is None:
            continue
        digest = sha256_of(path)
        if digest != expected.lower():
            raise WeightsError(
                f"{path} should have SHA-256 {expected}, but has {digest}; it is damaged or of "
                "another version: get it again, or correct the pinned hash"
            )


# Reading ----------------------------------------------------------------------------------


def read_checkpoint(path: Path, *, allow_pickle: bool = False) -> Any:
    """The whole content of a checkpoint file.

    Args:
        path: ``.safetensors``, or anything that ``torch.save`` wrote.
        allow_pickle: also read pickles that can run code. Only for files that you trust as much
            as a program.

    Returns:
        What was saved: for safetensors a dict of tensors, else whatever nesting of dicts, lists,
        numbers, strings and tensors it is. Tensors are on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, of another format, or a pickle that needs more
            than ``weights_only``.
    """
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is no file; give the path of a checkpoint")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path, allow_pickle)


def read_tensors(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """The tensors of a checkpoint file that holds nothing but tensors by name.

    Args:
        path: as `read_checkpoint` takes it.
        allow_pickle: as `read_checkpoint` takes it.

    Raises:
        WeightsError: as `read_checkpoint`, or the file holds something else beside tensors.
    """
    return tensors_in(read_checkpoint(path, allow_pickle=allow_pickle), path)


def tensors_in(content: object, source: object) -> dict[str, Tensor]:
    """The tensors by name that a checkpoint, or an entry of one, consists of.

    Args:
        content: of the file or the entry.
        source: where it comes from, for the message.

    Raises:
        WeightsError: it is something else, or holds something else beside tensors.
    """
    import torch

    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{source} holds a {type(content).__name__}, but tensors by name are expected; give a "
            "state dict"
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise WeightsError(
            f"{source} should hold tensors by name, but holds {_listed(others)} that are none; "
            "give a state dict"
        )
    return {str(key): value for key, value in content.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(_damaged(path, "safetensors", error)) from error
    return tensors


def _read_torch(path: Path, allow_pickle: bool) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # Torch warns of pickle protocols that it did not write; what it cannot read raises.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except pickle.UnpicklingError as error:
        if not _is_pickle(path):
            raise WeightsError(_damaged(path, "torch", error)) from error
        raise WeightsError(
            f"{path} is a pickle that needs more than plain tensors{_global_in(error)}, so that "
            "reading it could run code; get a safetensors file, or, where you trust the file like "
            "a program, allow pickles by name (allow_pickle=True)"
        ) from error
    except Exception as error:  # torch, zip and pickle raise almost anything on broken files
        raise WeightsError(_damaged(path, "torch", error)) from error


def _is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, bare or in torch's zip, rather than something else."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _global_in(error: Exception) -> str:
    """Which class or function a refused pickle asked for, as far as the message tells."""
    named = re.search(r"GLOBAL:? ([\w.]+)", str(error))
    return f" ({named[1]})" if named else ""


def _damaged(path: Path, form: str, error: Exception) -> str:
    why = str(error).strip().splitlines()
    return (
        f"{path} cannot be read as a {form} file ({type(error).__name__}: "
        f"{why[0][:120] if why else 'no reason given'}); it is truncated or something else: get "
        "it again"
    )


# Loading ----------------------------------------------------------------------------------


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put weights that are stored as length and direction together.

    Weight normalisation (arXiv:1602.07868) stores ``x.weight`` as ``x.weight_g`` and
    ``x.weight_v``, or in newer torch as ``x.parametrizations.weight.original0`` and
    ``original1``: weight = g * v / |v|, the norm over the dimensions in which g has one element.

    Args:
        tensors: a state dict; what is not weight-normalised is kept as it is.

    Raises:
        WeightsError: one of a pair is missing.
    """
    folded: dict[str, Tensor] = {}
    for name, value in tensors.items():
        pair = _NORMED.fullmatch(name)
        if pair is None:
            folded[name] = value
            continue
        module, old, new = pair["module"], pair["old"], pair["new"]
        length, direction = (
            (f"{module}weight_g", f"{module}weight_v")
            if old
            else (f"{module}{_PARAMETRIZED}0", f"{module}{_PARAMETRIZED}1")
        )
        if length not in tensors or direction not in tensors:
            missing = length if length not in tensors else direction
            raise WeightsError(f"the checkpoint has {name}, but not {missing}; it is not whole")
        if old == "v" or new == "1":
            folded[f"{module}weight"] = _normed(tensors[length], value)
    return folded


_PARAMETRIZED = "parametrizations.weight.original"
_NORMED = re.compile(
    r"(?P<module>.*\.|)(?:weight_(?P<old>[gv])|parametrizations\.weight\.original(?P<new>[01]))"
)


def _normed(length: Tensor, direction: Tensor) -> Tensor:
    import torch

    dim = next((d for d, size in enumerate(length.shape) if size != 1), 0)
    # Torch's own kernel, so that the weight is what the original network computes, to the bit.
    return torch._weight_norm(direction, length, dim)


def load_exactly(module: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Put tensors into a module whose parameters and buffers they must match one for one.

    Args:
        module: a network, on any device, ``meta`` included; its tensors are replaced, not copied
            into, and keep their dtype.
        tensors: by the names of the module's state dict.
        source: where they come from, for the message.

    Raises:
        WeightsError: names are missing or unknown, or shapes differ; the first few are listed.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unknown = [name for name in tensors if name not in own]
    shapes = [
        f"{name} {list(tensors[name].shape)} instead of {list(value.shape)}"
        for name, value in own.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = [
        f"{what} {_listed(names)}"
        for what, names in (("lacks", missing), ("has unknown", unknown), ("has", shapes))
        if names
    ]
    if problems:
        raise WeightsError(
            f"{source} does not fit {type(module).__name__}: it {'; it '.join(problems)}; give a "
            "checkpoint of this very model"
        )
    typed = {name: tensors[name].to(value.dtype) for name, value in own.items()}
    module.load_state_dict(typed, assign=True)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
