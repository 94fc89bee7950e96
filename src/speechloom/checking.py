"""The conformance checks of one component, run in a process of its own.

A plugin under test may crash or hang, and the checks import torch; the command line does neither.
Run as ``python -m speechloom.checking TARGET KIND RESULT_FILE`` this module is that process.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from speechloom.errors import SpeechloomError, UsageError
from speechloom.probe import inherited_path
from speechloom.protocols import Component
from speechloom.records import IMPORT_FAILURES, PluginRecord, Status, first_line
from speechloom.registry import Registry

__all__ = ["CheckRow", "check_component"]

TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class CheckRow:
    """One check and how it went.

    Attributes:
        component: what was checked.
        name: of the check.
        status: ``passed``, ``failed`` or ``skipped``.
        detail: why it failed or was skipped.
    """

    component: str
    name: str
    status: str
    detail: str = ""

    STATUSES: ClassVar[tuple[str, ...]] = ("passed", "failed", "skipped")


def check_component(target: str, record: PluginRecord | None) -> list[CheckRow]:
    """Check one component.

    Args:
        target: its full id, or ``module:Class`` of a class that has a ``spec``.
        record: what discovery found; None for a class.

    Returns:
        One row per check; whatever stops the process is a failed check, too.
    """
    if record is not None and not (record.status.usable or record.status is Status.shadowed):
        return [CheckRow(target, "discovery", "failed", record.error or record.status.value)]
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        kind = record.kind if record else ""
        command = [sys.executable, "-m", "speechloom.checking", target, kind, str(result)]
        try:
            done = subprocess.run(
                command,
                env=inherited_path(),
                stdout=subprocess.DEVNULL,  # what a plugin prints is no part of the report
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            why = f"did not end within {TIMEOUT_SECONDS} s"
            return [CheckRow(target, "process", "failed", why)]
        if not result.exists():
            why = f"the process ended with code {done.returncode} before the checks were done"
            return [CheckRow(target, "process", "failed", why)]
        return [CheckRow(**row) for row in json.loads(result.read_text(encoding="utf-8"))]


def _run(target: str, kind: str) -> list[CheckRow]:
    """The checks themselves, in the process that was made for them."""
    from speechloom.testing import check_plugin

    try:
        # A class is checked as it is, even if its spec names another one: a check finds that.
        subject = f"{kind}/{target}" if kind else _imported(target)
        results = check_plugin(subject, on_fail="return")
    except SpeechloomError as error:
        return [CheckRow(target, "import", "failed", str(error))]
    return [CheckRow(target, one.name, one.status, one.detail) for one in results]


def _imported(target: str) -> Component:
    """A component of a class that need not be installed."""
    module, _, name = target.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except IMPORT_FAILURES as error:
        raise UsageError(
            f"{target} cannot be imported: {type(error).__name__}: {first_line(error)}"
        ) from error
    registry = Registry(entry_points=(), environ={})
    registry.register(cls)  # refuses what has no spec or lacks a method
    component: Component = cls.from_random(cls.spec, seed=0)
    return component


def _main(arguments: list[str]) -> None:
    target, kind, result = arguments
    rows = [asdict(row) for row in _run(target, kind)]
    Path(result).write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1:])
