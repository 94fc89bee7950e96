"""What is wrong with this installation, and what cures it.

Everything that could crash or that takes long to import is tried in a process of its own, so the
doctor itself imports no torch and survives whatever it examines.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from speechloom.discovery import installed_entry_points
from speechloom.hooks import GROUP as HOOKS_GROUP
from speechloom.hooks import Hooks
from speechloom.probe import Probe, Run, run_python
from speechloom.records import GROUPS, PluginRecord, Status
from speechloom.registry import Registry
from speechloom.spec import API_VERSION, Kind
from speechloom.suggestions import did_you_mean
from speechloom.training.spec import GROUP as LEARNERS_GROUP

__all__ = ["Finding", "Level", "examine"]

WANTED_FORMATS = ("WAV", "FLAC", "OGG", "MP3")
OFFLINE_FLAGS = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class Level(str, Enum):
    """How much a finding matters."""

    ok = "ok"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        level: how much it matters.
        detail: what was found.
        cure: what to do; None where there is nothing to do.
    """

    name: str
    level: Level
    detail: str
    cure: str | None = None


def examine(
    registry: Registry,
    hooks: Hooks,
    environ: Mapping[str, str] | None = None,
    *,
    run: Run = run_python,
) -> list[Finding]:
    """Look at Python, torch, audio libraries, plugins and caches.

    Args:
        registry: whose plugins are examined.
        hooks: whose plugins are examined.
        environ: the environment; None is the process's own.
        run: how code is run in a process of its own.

    Returns:
        Findings in the order of the examination; none of them is raised.
    """
    environ = os.environ if environ is None else environ
    slow = (_torch, _torchaudio, _soundfile, _soxr)
    with ThreadPoolExecutor(len(slow) + 1) as pool:
        pending = [pool.submit(check, run) for check in slow]
        heavy = pool.submit(_heavy_specs, registry.records(), run)
        findings = [_python(), _speechloom(), *(one.result() for one in pending)]
        findings += _plugins(registry)
        findings += heavy.result()
    findings += _hook_plugins(hooks)
    findings += _strange_groups(point.group for point in installed_entry_points())
    findings += [_cache(environ), _offline(environ)]
    return findings


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Finding:
    level = Level.ok if sys.version_info >= (3, 10) else Level.problem
    return Finding("python", level, f"{platform.python_version()} at {sys.executable}")


def _speechloom() -> Finding:
    version = _version("speechloom") or "not installed, imported from a folder"
    return Finding("speechloom", Level.ok, f"{version}, component api {API_VERSION}")


def _torch(run: Run) -> Finding:
    version = _version("torch")
    if version is None:
        return Finding("torch", Level.problem, "not installed", "pip install torch")
    probe = run(
        "import torch; n = torch.cuda.device_count(); "
        "print(f'{n} CUDA device(s)' if n else 'no CUDA device, runs on the CPU')"
    )
    if probe.worked:
        return Finding("torch", Level.ok, f"{version}; {probe.text}")
    return Finding(
        "torch",
        Level.problem,
        f"{version} cannot be imported: {probe.text}",
        "install a build of torch for this machine, see https://pytorch.org/get-started/locally",
    )


def _torchaudio(run: Run) -> Finding:
    """The CUDA build raises OSError on CPU torch, and transformers imports it when it is there."""
    version = _version("torchaudio")
    if version is None:
        return Finding("torchaudio", Level.ok, "not installed; speechloom does not need it")
    probe = run("import torchaudio")
    if probe.worked:
        return Finding("torchaudio", Level.ok, f"{version} can be imported; nothing here needs it")
    return Finding(
        "torchaudio",
        Level.problem,
        f"{version} cannot be imported ({probe.text}), and as long as it is installed it breaks "
        "transformers, and with it every plugin that needs HuBERT, WavLM or VITS",
        "pip uninstall torchaudio",
    )


def _soundfile(run: Run) -> Finding:
    version = _version("soundfile")
    if version is None:
        return Finding("soundfile", Level.problem, "not installed", "pip install soundfile")
    probe = run(
        "import soundfile as s; print(s.__libsndfile_version__, *s.available_formats(), sep=',')"
    )
    if not probe.worked:
        return Finding(
            "soundfile",
            Level.problem,
            f"{version} cannot be imported: {probe.text}",
            "install libsndfile (Debian: apt install libsndfile1; macOS: brew install libsndfile), "
            "or `pip install --force-reinstall soundfile` for the wheel that brings its own",
        )
    library, *formats = probe.text.split(",")
    missing = [name for name in WANTED_FORMATS if name not in formats]
    detail = f"{version} with libsndfile {library}; formats {', '.join(formats)}"
    if missing:
        return Finding(
            "soundfile",
            Level.warning,
            f"{detail}; {', '.join(missing)} cannot be read or written",
            "install libsndfile 1.1 or newer",
        )
    return Finding("soundfile", Level.ok, detail)


def _soxr(run: Run) -> Finding:
    version = _version("soxr")
    probe = run("import soxr") if version else Probe(False, "not installed")
    if probe.worked:
        return Finding("soxr", Level.ok, f"{version}")
    return Finding(
        "soxr", Level.problem, f"cannot be imported: {probe.text}", "pip install --upgrade soxr"
    )


def _plugins(registry: Registry) -> list[Finding]:
    """One finding per plugin with a problem, and one for all that are well."""
    records = registry.records()
    usable = [record for record in records if record.status.usable]
    settled = {(record.kind, record.id) for record in usable}
    findings = [Finding("plugins", Level.ok, f"{len(usable)} of {len(records)} can be used")]
    for record in records:
        if record.status.usable:
            continue
        detail = f"{record.status}: {record.error}"
        findings.append(Finding(f"plugin {record.full_id}", _weight(record, settled), detail))
    if not records:
        findings.append(
            Finding("plugins", Level.warning, "none is installed", "pip install speechloom-starter")
        )
    return findings


def _weight(record: PluginRecord, settled: Container[tuple[Kind, str]]) -> Level:
    """How much it matters that a component cannot be used; `settled` are those that can."""
    if not record.status.problem:
        return Level.ok
    if record.status is Status.shadowed and (record.kind, record.id) in settled:
        return Level.ok
    # One package may hold components whose extras are not all wanted.
    is_extra = record.status is Status.missing_dependency
    return Level.warning if is_extra else Level.problem


def _heavy_specs(records: Iterable[PluginRecord], run: Run) -> list[Finding]:
    """Find the first plugin whose spec module imports torch, which makes listing slow."""
    modules = {record.value.partition(":")[0]: record for record in records if record.spec}
    code = (
        "import importlib, sys\n"
        f"for name in {list(modules)!r}:\n"
        "    importlib.import_module(name)\n"
        "    if 'torch' in sys.modules:\n"
        "        print(name)\n"
        "        break\n"
    )
    probe = run(code) if modules else Probe(True, "")
    record = modules.get(probe.text) if probe.worked else None
    if record is None:
        return []
    return [
        Finding(
            f"plugin {record.full_id}",
            Level.warning,
            "its spec module imports torch, which makes every listing slow",
            f"its author should import torch only in the module of {record.value!r}'s "
            "implementation",
        )
    ]


def _hook_plugins(hooks: Hooks) -> list[Finding]:
    return [
        Finding(f"hook plugin {record.name}", Level.problem, record.error or "broken")
        for record in hooks.records()
        if record.status.problem
    ]


def _strange_groups(groups: Iterable[str]) -> list[Finding]:
    """Entry points in a misspelt group are never seen, which is hard to find out."""
    known = {*GROUPS.values(), HOOKS_GROUP, LEARNERS_GROUP}
    return [
        Finding(
            f"entry-point group {group}",
            Level.warning,
            "is not one that speechloom reads, so what it announces is not found",
            f"rename it to {did_you_mean(group, known) or 'one of ' + ', '.join(sorted(known))}",
        )
        for group in sorted(set(groups) - known)
    ]


def _cache(environ: Mapping[str, str]) -> Finding:
    """Weights that plugins download are kept in the cache of the Hugging Face hub."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    home = environ.get("HF_HOME") or str(Path(base) / "huggingface")
    folder = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        return Finding("cache", Level.ok, f"{folder} can be written")
    return Finding(
        "cache",
        Level.warning,
        f"{folder} cannot be written, so weights cannot be downloaded",
        "set HF_HOME to a folder that can be written",
    )


def _offline(environ: Mapping[str, str]) -> Finding:
    on = [
        flag
        for flag in OFFLINE_FLAGS
        if environ.get(flag, "").upper() in ("1", "ON", "YES", "TRUE")
    ]
    if on:
        detail = f"{', '.join(on)} is set: weights come from the cache only"
        return Finding("offline", Level.ok, detail)
    return Finding("offline", Level.ok, "no flag is set: plugins may download weights")
