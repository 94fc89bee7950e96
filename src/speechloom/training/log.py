"""What a run writes down: ``losses.jsonl`` and tensorboard's files, cut back when it resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechloom.container import write_atomically
from speechloom.errors import BackendUnavailable, OutputError

__all__ = ["RunLog", "read_log"]

FILE = "losses.jsonl"


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; a last line that a kill cut short is left out."""
    path = run / FILE
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


class RunLog:
    """Writes numbers by step.

    Args:
        run: folder of the run.
        step: steps done; what an earlier process wrote beyond them is cut off.

    Raises:
        BackendUnavailable: tensorboard is not installed.
        OutputError: the folder cannot be written.
    """

    def __init__(self, run: Path, step: int) -> None:
        kept = [line for line in read_log(run) if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(run / FILE, lambda file: file.write(text.encode()))
        self._file = (run / FILE).open("a", encoding="utf-8")
        self._board = _board(run / "tensorboard", step)

    def write(self, step: int, kind: str, numbers: Mapping[str, float]) -> None:
        """Write one line.

        Args:
            step: steps done.
            kind: ``train`` or ``validation``.
            numbers: by name; tensorboard shows them as ``kind/name``.

        Raises:
            OutputError: the disk is full.
        """
        line = {"step": step, "kind": kind, **numbers}
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._file.name} cannot be written: {error.strerror}") from error
        for name, value in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._board.close()


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            "training needs tensorboard, which is not installed; run "
            "`pip install 'speechloom[train]'`",
            plugin="speechloom:train",
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
