"""The loop: one step after the other, logged, measured and saved, until the last."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechloom.decoding import keep_freed_memory
from speechloom.errors import PluginError, SpeechloomError, WeightsError
from speechloom.training.ahead import BatchesAhead
from speechloom.training.average import MovingAverage
from speechloom.training.batches import Position
from speechloom.training.checkpoints import Checkpoints
from speechloom.training.dataset import Dataset
from speechloom.training.device import moved
from speechloom.training.draws import Purpose, seeded, torch_generator
from speechloom.training.interruption import Interruption
from speechloom.training.learner import Batch, Learner
from speechloom.training.log import RunLog
from speechloom.training.phases import PhaseOptimizer, freeze, phase_optimizers
from speechloom.training.precision import mixed_precision
from speechloom.training.processes import Processes
from speechloom.training.progress import Display
from speechloom.training.recipe import Recipe
from speechloom.training.validation import measure

__all__ = ["Job", "Loop"]

LOST_STEPS = 20
"""So many steps in a row without a finite gradient end a run."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a loop needs to run.

    Attributes:
        recipe: what the user wrote.
        record: the same as plain data, for checkpoints.
        learner: what is trained; its network is on its device.
        training: what is learnt from.
        validation: what is measured on, or None.
        run: folder of the run.
        about: what else the checkpoints hold: who trained what on which data.
    """

    recipe: Recipe
    record: Mapping[str, Any]
    learner: Learner
    training: Dataset
    validation: Dataset | None
    run: Path
    about: Mapping[str, Any] = field(default_factory=dict)


class Loop:
    """Trains, from the first step or from a checkpoint.

    Args:
        job: what to do.
        processes: that train together.
        display: shows how it goes.
        interruption: is asked behind every step.
    """

    def __init__(
        self, job: Job, processes: Processes, display: Display, interruption: Interruption
    ) -> None:
        self._job, self._recipe, self._learner = job, job.recipe, job.learner
        self._processes, self._display, self._interruption = processes, display, interruption
        self._checkpoints = Checkpoints(job.run, job.recipe.checkpoint.keep)
        self._resting = freeze(self._learner.network, self._recipe.freeze)
        self._optimizers = phase_optimizers(
            self._learner, self._recipe.optimizer, self._recipe.steps
        )
        decay = self._recipe.ema
        self._average = None if decay is None else MovingAverage(self._learner.network, decay)
        self.step = 0
        self._position = Position()
        self._skipped = self._lost = 0
        self._numbers: dict[str, dict[str, float]] = {}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            WeightsError: it does not fit the learner.
        """
        try:
            self._learner.network.load_state_dict(state["network"])
            for optimizer in self._optimizers:
                optimizer.load(state["optimizers"][optimizer.phase.name])
            if self._average is not None:
                self._average.load(state["average"])
            self._learner.load_extra(state["extra"])
        except SpeechloomError:
            raise
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise WeightsError(
                f"the newest checkpoint in {self._checkpoints.folder} does not fit this version of "
                f"the learner ({type(error).__name__}: {error}); go on with the version that wrote "
                "it, or train anew"
            ) from error
        self.step = state["step"]
        self._position = Position(**state["position"])
        self._skipped, self._lost = state["skipped"], state["lost"]
        self._numbers = {kind: dict(numbers) for kind, numbers in state["numbers"].items()}

    def run(self) -> None:
        """Train to the last step, or until somebody interrupts; save in the end.

        Raises:
            OutputError: the disk is full; the checkpoints stay.
            PluginError: the loss is not finite any more, or depends on no weight.
        """
        keep_freed_memory()
        batches = BatchesAhead(
            self._job.training,
            self._recipe,
            self._processes,
            step=self.step,
            position=self._position,
        )
        log = RunLog(self._job.run, self.step) if self._processes.is_first else None
        self._display.begin("train", self._recipe.steps, self.step)
        try:
            self._run(batches, log)
        finally:
            batches.close()
            if log is not None:
                log.close()

    def _run(self, batches: BatchesAhead, log: RunLog | None) -> None:
        self._set_training()
        saved = time.monotonic()
        stopped = False
        while self.step < self._recipe.steps and not stopped:
            self._step(batches, log)
            stopped = self._processes.any(self._interruption.signal != 0)
            last = self.step == self._recipe.steps
            if self._job.validation and (last or self.step % self._recipe.validate_.every == 0):
                self._validate(self._job.validation, log)
            if last or stopped or time.monotonic() - saved > self._recipe.checkpoint.seconds:
                self._save()
                saved = time.monotonic()

    # One step ---------------------------------------------------------------------------------

    def _step(self, batches: BatchesAhead, log: RunLog | None) -> None:
        made = [moved(batch, self._processes.device) for batch in batches.next()]
        logged = (self.step + 1) % self._recipe.log_every == 0
        finite = True
        numbers: dict[str, float] = {}
        for optimizer in self._optimizers:
            if self.step < optimizer.phase.start:
                continue
            results, own_finite = self._phase(optimizer, made)
            finite &= own_finite
            if logged:
                prefix = f"{optimizer.phase.name}/" if len(self._learner.phases) > 1 else ""
                numbers |= {f"{prefix}{name}": value for name, value in _means(results).items()}
        self._processes.share_buffers(self._learner.network)
        if self._average is not None:
            self._average.update(self.step)
        self._count(finite)
        self.step += 1
        self._position = batches.position
        if logged:
            self._log(self._processes.mean_numbers(numbers), log)

    def _phase(
        self, optimizer: PhaseOptimizer, batches: Sequence[Batch]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Run one phase; returns its numbers for each batch, and whether all was finite."""
        optimizer.clear()
        results = []
        for turn, batch in enumerate(batches):
            results.append(self._backward(optimizer, batch, turn))
        self._processes.average_gradients(optimizer.parameters)
        norm = optimizer.clip()
        broken = any(not math.isfinite(float(result["loss"])) for result in results)
        finite = math.isfinite(norm) and not self._processes.any(broken)
        rate = optimizer.step(self.step) if finite else math.nan
        optimizer.clear()
        results[0] |= {"norm": norm, "learning_rate": rate}
        return results, finite

    def _backward(self, optimizer: PhaseOptimizer, batch: Batch, turn: int) -> dict[str, Any]:
        phase = optimizer.phase.name
        names = [one.name for one in self._learner.phases]
        draws = (self._recipe.seed, self.step, turn, self._processes.rank, names.index(phase))
        device = self._processes.device
        with seeded(device, Purpose.layers, *draws):
            with mixed_precision(device, self._recipe.precision):
                rng = torch_generator(Purpose.loss, *draws)
                loss, numbers = self._learner.loss(phase, batch, rng, self.step)
        if not loss.requires_grad:
            raise PluginError(
                f"the loss of phase {phase!r} of {type(self._learner).__name__} depends on no "
                "weight that learns",
                plugin=f"learner/{self._recipe.learner}",
            )
        # Another phase's weights in the graph get no gradient from this loss.
        torch.autograd.backward(loss / self._recipe.accumulate, inputs=list(optimizer.parameters))
        return {"loss": loss.detach(), **numbers}

    def _count(self, finite: bool) -> None:
        self._lost = 0 if finite else self._lost + 1
        self._skipped += not finite
        if self._lost >= LOST_STEPS:
            raise PluginError(
                f"the loss or its gradient was not finite in {LOST_STEPS} steps in a row, up to "
                f"step {self.step + 1}; lower optimizer.learning_rate, clip, or look at the data; "
                f"the checkpoints in {self._checkpoints.folder} are from before the end",
                plugin=f"learner/{self._recipe.learner}",
            )

    # Around the steps -------------------------------------------------------------------------

    def _set_training(self) -> None:
        self._learner.network.train()
        for module in self._resting:
            module.eval()

    def _log(self, numbers: Mapping[str, float], log: RunLog | None) -> None:
        line = {**numbers, "epoch": self._position.epoch, "skipped": self._skipped}
        self._numbers["train"] = line
        if log is not None:
            log.write(self.step, "train", line)
        shown = [*self._learner.watch] or [name for name in numbers if name.endswith("loss")]
        text = "  ".join(f"{name} {numbers[name]:.4g}" for name in shown if name in numbers)
        self._display.advance("train", self.step, self._recipe.steps, text)

    def _validate(self, dataset: Dataset, log: RunLog | None) -> None:
        network = self._learner.network
        network.eval()
        with self._weights_to_show():
            numbers = measure(self._learner, dataset, self._recipe, self._processes, self.step)
        self._set_training()
        self._numbers["validation"] = numbers
        if log is not None:
            log.write(self.step, "validation", numbers)
        text = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self._display.say(f"validation at step {self.step}: {text}")

    def _weights_to_show(self) -> AbstractContextManager[None]:
        return nullcontext() if self._average is None else self._average.applied()

    def _save(self) -> None:
        if not self._processes.is_first:
            return
        self._checkpoints.save(
            self.step,
            {
                "recipe": dict(self._job.record),
                "about": dict(self._job.about),
                "position": {"epoch": self._position.epoch, "batch": self._position.batch},
                "network": self._learner.network.state_dict(),
                "optimizers": {one.phase.name: one.state() for one in self._optimizers},
                "average": None if self._average is None else self._average.state(),
                "extra": self._learner.extra_state(),
                "skipped": self._skipped,
                "lost": self._lost,
                "numbers": self._numbers,
            },
        )


def _means(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each number over the batches of a step that have it."""
    names = dict.fromkeys(name for result in results for name in result)
    values = {name: [float(r[name]) for r in results if name in r] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}
