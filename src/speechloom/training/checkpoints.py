"""Checkpoints of a run: written whole or not at all, the newest few kept, read without pickles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from speechloom.checkpoints import read_checkpoint, read_tensors
from speechloom.container import write_atomically
from speechloom.errors import OutputError, PluginError, UsageError, WeightsError

__all__ = [
    "FREE_KEYS",
    "Checkpoints",
    "check_same_recipe",
    "read_run",
    "save_atomically",
    "weights_to_start_from",
]

FORMAT = 1
FREE_KEYS = ("steps", "checkpoint", "validate", "log_every", "batch.workers", "data.cache")
"""Keys that may change between a checkpoint and the run that goes on from it: they decide how long
a training goes, or how it is watched, but not what a step does (but see the schedule)."""

_NAME = re.compile(r"step-(\d+)\.pt")


def save_atomically(state: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill or a full disk leaves what was there before.

    Args:
        state: tensors, numbers and strings in dicts and lists.
        path: target; its folder must exist.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """

    def write(file: IO[bytes]) -> None:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:  # torch's own words for a disk that takes no more
            raise OSError(str(error).splitlines()[0]) from error

    write_atomically(path, write)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of the run; they lie in ``checkpoints`` in it.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder / "checkpoints"
        self._keep = keep

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, in order."""
        return _steps_in(self.folder)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.folder / f"step-{step:09d}.pt"

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then remove the oldest.

        Raises:
            OutputError: it cannot be written; the old ones stay.
            PluginError: the learner's extra state holds what a checkpoint cannot.
        """
        _check_plain(state.get("extra", {}), "extra_state()")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_atomically({"format": FORMAT, "step": step, **state}, self.path(step))
        except OSError as error:
            last = self.steps()
            kept = f"the checkpoint of step {last[-1]} is safe" if last else "there is none so far"
            raise OutputError(
                f"the checkpoint of step {step} was not saved: {error}; {kept}; make room, then "
                "run the same command to go on from there"
            ) from error
        for old in self.steps()[: -self._keep]:
            self.path(old).unlink(missing_ok=True)

    def newest(self) -> dict[str, Any] | None:
        """The newest checkpoint; None when there is none.

        Raises:
            WeightsError: it is damaged, or of another version.
        """
        steps = self.steps()
        if not steps:
            return None
        path = self.path(steps[-1])
        way_out = f"delete it to go on from step {steps[-2]}" if len(steps) > 1 else "train anew"
        try:
            state = read_checkpoint(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; or {way_out}") from error
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise WeightsError(f"{path} is no checkpoint of this version; {way_out}")
        return state


def read_run(run: Path) -> dict[str, Any]:
    """The newest checkpoint of a run, for export.

    Raises:
        UsageError: the folder holds none.
        WeightsError: it is damaged.
    """
    state = Checkpoints(run, keep=1).newest()
    if state is None:
        raise UsageError(
            f"{run} holds no checkpoint; give the folder of a run of `speechloom train`"
        )
    return state


def weights_to_start_from(path: Path) -> dict[str, Tensor]:
    """Weights by name, of whatever ``start_from`` names.

    Args:
        path: the folder of a run (its averaged weights, where it has them), one of its
            checkpoints, or a safetensors or torch file of tensors by name.

    Raises:
        UsageError: there is no such file or run.
        WeightsError: the file is damaged.
    """
    if path.is_dir():
        return _weights_in(read_run(path))
    if not path.exists():
        raise UsageError(f"start_from: {path} does not exist; give a run, or a file of weights")
    if _NAME.fullmatch(path.name):
        return _weights_in(read_checkpoint(path))
    return read_tensors(path)


def check_same_recipe(then: Mapping[str, Any], now: Mapping[str, Any], run: Path) -> None:
    """Refuse to go on with another recipe than the one that a run began with.

    Args:
        then: the record in the checkpoint.
        now: the record of the recipe that is given.
        run: folder, for the message.

    Raises:
        UsageError: naming the keys that differ, then and now.
    """
    old, new = dict(_flat(then)), dict(_flat(now))
    differ = [
        f"{key} (was {old.get(key)!r}, is {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_free(key)
    ]
    if differ:
        raise UsageError(
            f"the run in {run} was begun with another recipe: {', '.join(differ)}; put it back, "
            "or train into another folder with --run"
        )


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _weights_in(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return dict(state["average"] or state["network"])


def _steps_in(folder: Path) -> list[int]:
    names = [_NAME.fullmatch(path.name) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name[1]) for name in names if name)


def _check_plain(value: object, where: str) -> None:
    """What weights_only cannot read again must not be written."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            _check_plain(child, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            _check_plain(child, f"{where}[{number}]")
    elif value is not None and not isinstance(value, (Tensor, int, float, str, bytes)):
        raise PluginError(
            f"{where} of the learner is a {type(value).__name__}; a checkpoint holds tensors, "
            "numbers and strings",
            plugin="learner",
        )
