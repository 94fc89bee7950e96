"""What the starter's components share: their weights, and long audio in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec
from speechloom.values import Audio
from speechloom.weighted import Weighted
from speechloom.windows import over_windows, plan_windows
from speechloom_starter.mel import HOP, SAMPLE_RATE, frame_count
from speechloom_starter.weights import SHIPPED, manifest

__all__ = ["WINDOW_FRAMES", "StarterComponent", "coded", "samples_of", "shipped_files"]

WINDOW_FRAMES = 1500
"""Half a minute: longer recordings are coded in windows, so that memory stays bounded."""


class StarterComponent(Weighted):
    """A component whose weights come with the package.

    Attributes:
        uses: weight files that it reads, without suffix.
    """

    uses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: ComponentSpec, *, trained: bool) -> None:
        files = self.weight_files(spec) if trained else {}
        super().__init__(spec, {name: file.sha256 for name, file in files.items()})

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """Weight files by name, with the hashes of the manifest; nothing is loaded."""
        return shipped_files(cls.uses)


def shipped_files(names: Sequence[str]) -> Mapping[str, WeightFile]:
    """Shipped weight files by file name, with the hashes of the manifest; nothing is loaded."""
    hashes = manifest()
    files = [f"{name}.safetensors" for name in names]
    return {name: WeightFile(SHIPPED / name, hashes[name]) for name in files}


def samples_of(audio: Sequence[Audio], device: torch.device) -> Iterator[Tensor]:
    """Each recording as float32 [1, T], 16 kHz mono, on a device."""
    for one in audio:
        yield torch.from_numpy(one.mono().resampled(SAMPLE_RATE).samples.copy()).to(device)


def coded(run: Callable[[Tensor], Tensor], samples: Tensor, reach_frames: int) -> Tensor:
    """Frames [1, D, F] of a recording of any length, window by window.

    Args:
        run: samples [1, T] to frames [1, D, F].
        samples: float32 [1, T].
        reach_frames: frames on either side that one frame depends on.
    """
    windows = plan_windows(frame_count(samples.shape[-1]), WINDOW_FRAMES, reach_frames)
    return torch.cat(list(over_windows(run, samples, windows, takes=HOP)), -1)
