"""The implementations of the operation: which there are, which one a call gets."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

import torch
from torch import Tensor

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.masked_decode.inputs import SampleConfig, Scores, StepResult
from speechloom.ops.masked_decode.noise import NoiseKeys

logger = logging.getLogger(__name__)

AUTO = "auto"
PACKAGE = "speechloom.ops.masked_decode"


class Implementation(Protocol):
    """What the module of an implementation offers."""

    def available(self, device: torch.device) -> str | None:
        """Why it cannot be used on a device and what to do about it; None where it can."""

    def decode_step(
        self,
        scores: Scores,
        keys: NoiseKeys,
        *,
        counts: Sequence[int],
        keep_open: Sequence[int],
        config: SampleConfig,
        choice_temperature: float,
    ) -> StepResult:
        """Draw, rate and close; see `api.decode_step`."""

    def sample_rows(
        self,
        logits: Tensor,
        keys: NoiseKeys,
        *,
        config: SampleConfig,
        history: Tensor | None,
        repetition_penalty: float,
    ) -> Tensor:
        """Draw one token per row; see `api.sample_rows`."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where an implementation is and what it needs.

    Attributes:
        module: its module in this package.
        needs: package that it cannot be imported without, or None.
        remedy: how to get that package.
    """

    module: str
    needs: str | None = None
    remedy: str = ""


TABLE = {
    "reference": Entry(module="reference"),
    "cpu": Entry(module="cpu", needs="numba", remedy="pip install speechloom[fast]"),
    "triton": Entry(module="triton", needs="triton", remedy="pip install triton"),
}
IMPLEMENTATIONS: tuple[str, ...] = (AUTO, *TABLE)


def choose(impl: str, device: torch.device) -> Implementation:
    """The implementation that a call on a device gets.

    "auto" takes the fast one of the device's kind where it can be used, and the reference else.

    Raises:
        UsageError: no implementation has that name.
        BackendUnavailable: the named one cannot be used here.
    """
    if impl not in IMPLEMENTATIONS:
        raise UsageError(f"`impl` must be one of {', '.join(IMPLEMENTATIONS)}, but is {impl!r}.")
    if impl == AUTO:
        return _automatic(device)
    reason = unavailable(impl, device)
    if reason is not None:
        raise BackendUnavailable(
            f"The implementation {impl!r} of the decoding step cannot be used on "
            f"{device.type!r}: {reason} Or leave the choice to impl={AUTO!r}.",
            plugin=f"speechloom:masked_decode/{impl}",
        )
    return _load(impl)


def unavailable(impl: str, device: torch.device) -> str | None:
    """Why an implementation cannot be used on a device; None where it can."""
    entry = TABLE[impl]
    if entry.needs is not None and not _is_installed(entry.needs):
        return f"it needs the package {entry.needs}, which is not installed: {entry.remedy}."
    try:
        module = _load(impl)
    except ImportError as error:
        return f"its import fails ({error}); repair the package {entry.needs}: {entry.remedy}."
    return module.available(device)


def _automatic(device: torch.device) -> Implementation:
    impl = {"cpu": "cpu", "cuda": "triton"}.get(device.type, "reference")
    if _automatic_reason(impl, device.type) is None:
        return _load(impl)
    return _load("reference")


@cache
def _automatic_reason(impl: str, device_type: str) -> str | None:
    """As `unavailable`, asked once; the log tells why the fast implementation is not taken."""
    reason = unavailable(impl, torch.device(device_type))
    if reason is not None:
        logger.info("decoding steps on %s use the reference: %s", device_type, reason)
    return reason


@cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _load(impl: str) -> Implementation:
    if TABLE[impl].needs is not None:
        logger.info("loading the decoding step %r; its first call may compile it", impl)
    return cast(Implementation, importlib.import_module(f"{PACKAGE}.{TABLE[impl].module}"))
