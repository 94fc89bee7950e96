"""A checkpoint for which there is no room, wherever in it the disk becomes full."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from speechloom.errors import OutputError
from speechloom.training.checkpoints import save_atomically

FullDisk = Callable[[int], AbstractContextManager[None]]


def test_the_old_checkpoint_stays_and_nothing_else(tmp_path: Path, full_disk: FullDisk) -> None:
    """Torch raises its own error at some sizes, and the system's at others."""
    path = tmp_path / "step-000000001.pt"
    state = {"one": torch.randn(3000), "many": [torch.randn(50) for _ in range(20)]}
    save_atomically(state, path)
    whole = path.read_bytes()
    for size in range(1, len(whole), len(whole) // 40):
        with full_disk(size), pytest.raises(OutputError, match="cannot be written"):
            save_atomically(state, path)
        assert path.read_bytes() == whole
        assert list(tmp_path.iterdir()) == [path]
