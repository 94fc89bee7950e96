"""Fit k-means on the features of one layer, from audio files.

Mini-batch k-means (Sculley 2010, "Web-scale k-means clustering"; as scikit-learn does it, we start
from k-means++, Arthur and Vassilvitskii 2007, and move centres that hardly any frame belongs to).
We differ in that files are encoded as they are needed, so that neither disk nor memory holds the
features of a corpus.

**The result depends on the plan only**: files, encoder, layer, clusters, batch size, passes and
seed. Workers encode files one by one, each on one core; their features are taken in the order of
the plan. The state after a step is written to disk from time to time, and holds everything that
the next steps depend on, so that a run that was killed ends with the same bytes as one that was
not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechloom.container import audio_suffix, load_audio, write_atomically
from speechloom.errors import UsageError, WeightsError
from speechloom_hubert.encoder import SpeechEncoder
from speechloom_hubert.kmeans import KMeans, write_kmeans
from speechloom_hubert.units import nearest

__all__ = ["FitPlan", "FitStep", "audio_files", "fit_kmeans"]

HARDLY_USED = 0.01
"""A centre with fewer frames than this share of the most used one is moved."""
MOVES_UNTIL = 0.5
"""Centres are moved in the first half of the files only, so that they can settle."""


@dataclass(frozen=True)
class FitPlan:
    """Everything that the result depends on, beside the files and the weights.

    Attributes:
        clusters: V.
        layer: the hidden layer whose features are clustered.
        batch_frames: frames of one step; at least `clusters`.
        passes: how often each file is taken.
        seed: of the order of files, the first centres and the moves.

    Raises:
        UsageError: a number is out of range.
    """

    clusters: int
    layer: int
    batch_frames: int = 10_000
    passes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clusters < 2 or self.passes < 1 or self.layer < 0:
            raise UsageError(
                "k-means need at least 2 clusters, 1 pass and a layer of 0 or more, but got "
                f"{self.clusters} clusters, {self.passes} passes and layer {self.layer}"
            )
        if self.batch_frames < self.clusters:
            raise UsageError(
                f"batch_frames must be at least clusters ({self.clusters}), but is "
                f"{self.batch_frames}"
            )


@dataclass(frozen=True)
class FitStep:
    """How far a fit is.

    Attributes:
        step: steps done.
        files: files taken.
        total_files: files to take in all, passes counted.
        distance: mean squared distance of the last batch to its centres, before the step.
    """

    step: int
    files: int
    total_files: int
    distance: float


def audio_files(folder: Path) -> list[Path]:
    """Audio files in a folder and below, sorted by their path.

    Raises:
        UsageError: there is no such folder, or no audio in it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the folder of the audio files")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and _is_audio(path))
    if not files:
        raise UsageError(f"{folder} holds no audio files (wav, flac, ogg, opus or mp3)")
    return files


def fit_kmeans(
    files: Sequence[Path],
    encoder: SpeechEncoder,
    plan: FitPlan,
    output: Path,
    *,
    workers: int = 1,
    save_seconds: float = 60.0,
    progress: Callable[[FitStep], None] | None = None,
) -> KMeans:
    """Fit centroids and write them; go on where a killed run of the same plan was.

    Args:
        files: recordings.
        encoder: gives the features.
        plan: what is fitted.
        output: a ``.safetensors`` file; beside it ``<output>.partial`` holds the state until the
            end.
        workers: threads that encode, each on one core.
        save_seconds: how often the state is written.
        progress: called after each step.

    Returns:
        What was written.

    Raises:
        UsageError: there are fewer frames than clusters, or the state is of another plan.
        AudioError: a file cannot be read.
    """
    state_path = output.with_name(output.name + ".partial")
    identity = _identity(files, encoder, plan)
    fit = _Fit.resumed(state_path, identity, plan) or _Fit(plan, encoder.width)
    order = _order(len(files), plan)
    rest = [files[i] for i in order[fit.files :]]
    saved = time.monotonic()
    with _one_core_each():
        for features in _encoded(rest, encoder, plan.layer, workers):
            for distance in fit.take(features, len(order)):
                if progress:
                    progress(FitStep(fit.steps, fit.files, len(order), distance))
            if time.monotonic() - saved >= save_seconds:
                fit.save(state_path, identity)
                saved = time.monotonic()
        fit.finish(len(order))
    facts = encoder.architecture
    result = KMeans(
        fit.centroids.float().numpy(), encoder.frame_rate, plan.layer, facts.family, encoder.name
    )
    write_kmeans(output, result)
    state_path.unlink(missing_ok=True)
    return result


class _Fit:
    """The state: everything that the next steps depend on."""

    def __init__(self, plan: FitPlan, width: int) -> None:
        self.plan = plan
        self.files = 0
        self.steps = 0
        self.waiting = torch.zeros(0, width)
        self.centroids = torch.zeros(0, width, dtype=torch.float64)
        self.counts = torch.zeros(0, dtype=torch.float64)

    def take(self, features: Tensor, total_files: int) -> Iterator[float]:
        """Take the features of the next file; yields the distance of each step that this makes."""
        self.files += 1
        self.waiting = torch.cat([self.waiting, features])
        size = self.plan.batch_frames
        while len(self.waiting) >= size:
            batch, self.waiting = self.waiting[:size], self.waiting[size:]
            yield self._step(batch, self.files / total_files)

    def finish(self, total_files: int) -> None:
        """Use what waits for a full batch; all there is, where that is less than one."""
        if not len(self.centroids) and len(self.waiting) < self.plan.clusters:
            raise UsageError(
                f"the files have {len(self.waiting)} frames, but {self.plan.clusters} clusters "
                "need at least as many; give more audio or ask for fewer clusters"
            )
        if len(self.waiting):
            self._step(self.waiting, self.files / total_files)
            self.waiting = self.waiting[:0]

    def _step(self, batch: Tensor, share_done: float) -> float:
        """One step: assign, and move each centre towards the mean of all that it ever got."""
        draw = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.steps)
        if not len(self.centroids):
            self.centroids = _plus_plus(batch, self.plan.clusters, draw).double()
            self.counts = torch.zeros(self.plan.clusters, dtype=torch.float64)
        ids = nearest(batch, self.centroids.float())
        batch64 = batch.double()
        distance = float((batch64 - self.centroids[ids]).square().sum(1).mean())
        new = torch.bincount(ids, minlength=self.plan.clusters).double()
        sums = torch.zeros_like(self.centroids).index_add_(0, ids, batch64)
        self.counts += new
        towards = (sums - new[:, None] * self.centroids) / self.counts.clamp_min(1)[:, None]
        self.centroids += towards
        if share_done <= MOVES_UNTIL:
            self._move_idle(batch64, draw)
        self.steps += 1
        return distance

    def _move_idle(self, batch: Tensor, draw: torch.Generator) -> None:
        """Put centres that hardly any frame belongs to on frames of this batch."""
        idle = self.counts < HARDLY_USED * self.counts.max()
        chosen = torch.randperm(len(batch), generator=draw)[: int(idle.sum())]
        idle = idle.nonzero()[: len(chosen), 0]
        self.centroids[idle] = batch[chosen]
        self.counts[idle] = self.counts[self.counts > 0].min()

    def save(self, path: Path, identity: str) -> None:
        """Write the state, whole or not at all."""
        from safetensors.torch import save

        tensors = {
            "waiting": self.waiting.contiguous(),
            "centroids": self.centroids,
            "counts": self.counts,
        }
        facts = {"identity": identity, "files": str(self.files), "steps": str(self.steps)}
        data = save(tensors, facts)
        write_atomically(path, lambda file: file.write(data))

    @classmethod
    def resumed(cls, path: Path, identity: str, plan: FitPlan) -> _Fit | None:
        """The state of a killed run; None where there is none."""
        if not path.is_file():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"the state {path} is damaged ({error}); delete it") from error
        if facts.get("identity") != identity:
            raise UsageError(
                f"{path} is the state of another fit (other files, encoder or options); delete it, "
                "or write to another output"
            )
        fit = cls(plan, tensors["waiting"].shape[1])
        fit.files, fit.steps = int(facts["files"]), int(facts["steps"])
        fit.waiting, fit.centroids = tensors["waiting"], tensors["centroids"]
        fit.counts = tensors["counts"]
        return fit


def _plus_plus(batch: Tensor, clusters: int, draw: torch.Generator) -> Tensor:
    """First centres: frames of the batch, each drawn by its distance to those before it."""
    first = int(torch.randint(len(batch), (), generator=draw))
    chosen = [first]
    closest = (batch - batch[first]).square().sum(1)
    for _ in range(clusters - 1):
        # Where all frames are centres already, any frame will do.
        weights = closest if bool(closest.any()) else torch.ones_like(closest)
        index = int(torch.multinomial(weights, 1, generator=draw))
        chosen.append(index)
        closest = torch.minimum(closest, (batch - batch[index]).square().sum(1))
    return batch[chosen]


def _order(files: int, plan: FitPlan) -> list[int]:
    """The files in the order in which they are taken; each pass has its own."""
    draw = np.random.default_rng(plan.seed)
    passes: list[NDArray[np.int64]] = [draw.permutation(files) for _ in range(plan.passes)]
    return [int(i) for one in passes for i in one]


def _identity(files: Sequence[Path], encoder: SpeechEncoder, plan: FitPlan) -> str:
    """A hash of all that the result depends on; of the files their names and sizes."""
    facts = {
        "files": [(str(path.resolve()), path.stat().st_size) for path in files],
        "encoder": [encoder.name, dict(encoder.weights)],
        "plan": asdict(plan),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _encoded(
    files: Sequence[Path], encoder: SpeechEncoder, layer: int, workers: int
) -> Iterator[Tensor]:
    """Features float32 [F, D] of each file in order, a few files ahead of their use."""

    def encode(path: Path) -> Tensor:
        return torch.cat([part.cpu() for part in encoder.parts(load_audio(path), layer)])

    pending: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(workers, initializer=_one_core) as pool:
        try:
            for path in files:
                pending.append(pool.submit(encode, path))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _one_core() -> None:
    """Threads of a worker: more of them would round differently on other machines."""
    torch.set_num_threads(1)


@contextmanager
def _one_core_each() -> Iterator[None]:
    before = torch.get_num_threads()
    _one_core()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _is_audio(path: Path) -> bool:
    try:
        audio_suffix(path)
    except UsageError:
        return False
    return True
