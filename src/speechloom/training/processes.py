"""The processes that train together, by Hugging Face accelerate; mostly there is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor

from speechloom.errors import BackendUnavailable

__all__ = ["Processes"]

T = TypeVar("T")
BUCKET_BYTES = 1 << 26
"""Gradients travel in pieces of about that size: large enough to be fast, small beside a model."""


class Processes:
    """Where this process stands among those that train together, and what they do in common.

    The gradients are averaged here rather than by wrapping the network in DDP: a learner may then
    call its network in whatever way it likes, in several phases and with weights that a step leaves
    out, and one process computes exactly what it would without any of this.

    Args:
        cpu: stay on the CPU although there is a GPU.

    Raises:
        BackendUnavailable: accelerate is not installed.
    """

    def __init__(self, *, cpu: bool = False) -> None:
        try:
            from accelerate import Accelerator, InitProcessGroupKwargs
        except ModuleNotFoundError as error:
            raise BackendUnavailable(
                "training needs accelerate, which is not installed; run "
                "`pip install 'speechloom[train]'`",
                plugin="speechloom:train",
            ) from error
        # Preparing a large corpus takes hours, in which the processes wait for each other.
        patience = InitProcessGroupKwargs(timeout=timedelta(days=2))
        # Precision is the recipe's to say, see `mixed_precision`.
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[patience])

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        device = self._accelerator.device
        assert isinstance(device, torch.device)
        return device

    @property
    def rank(self) -> int:
        """Number of this process."""
        return int(self._accelerator.process_index)

    @property
    def count(self) -> int:
        """Processes on all machines."""
        return int(self._accelerator.num_processes)

    @property
    def is_first(self) -> bool:
        """Whether this one writes, prints and saves."""
        return self.rank == 0

    def gathered(self, values: Sequence[T]) -> list[T]:
        """The values of all processes in one list."""
        from accelerate.utils import gather_object

        return list(values) if self.count == 1 else list(gather_object(list(values)))

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        if self.count == 1:
            return flag
        return bool(self._reduced(torch.tensor([float(flag)], device=self.device))[0] > 0)

    def mean_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The mean of each number over the processes that have it."""
        pairs = self.gathered(list(numbers.items()))
        names = dict.fromkeys(name for name, _ in pairs)
        values = {name: [value for n, value in pairs if n == name] for name in names}
        return {name: sum(each) / len(each) for name, each in values.items()}

    def average_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Give every process the mean gradient, of any shape; what none of them has stays None."""
        if self.count == 1:
            return
        has = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        used = [p for p, n in zip(parameters, self._reduced(has).tolist(), strict=True) if n > 0]
        for parameter in used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in used if p.grad is not None]
        for bucket in _buckets(gradients):
            flat = self._reduced(torch.cat([one.reshape(-1) for one in bucket])) / self.count
            means = torch.split(flat, [one.numel() for one in bucket])
            for one, mean in zip(bucket, means, strict=True):
                one.copy_(mean.view_as(one))

    @torch.no_grad()
    def share_buffers(self, network: torch.nn.Module) -> None:
        """Give every process the first one's buffers: running means, codebooks."""
        if self.count == 1:
            return
        from accelerate.utils import broadcast

        for buffer in network.buffers():
            buffer.copy_(broadcast(buffer.detach().clone(), from_process=0))

    def _reduced(self, tensor: Tensor) -> Tensor:
        total = self._accelerator.reduce(tensor, reduction="sum")
        assert isinstance(total, Tensor)
        return total

    def end(self) -> None:
        """Wait for the other processes, and take leave of them."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()
            self._accelerator.end_training()


def _buckets(gradients: Sequence[Tensor]) -> list[list[Tensor]]:
    """Split into runs of one dtype and about `BUCKET_BYTES`."""
    buckets: list[list[Tensor]] = []
    size = 0
    for gradient in gradients:
        size += gradient.numel() * gradient.element_size()
        if not buckets or size > BUCKET_BYTES or buckets[-1][0].dtype != gradient.dtype:
            buckets.append([])
            size = gradient.numel() * gradient.element_size()
        buckets[-1].append(gradient)
    return buckets
