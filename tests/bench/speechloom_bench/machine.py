"""The machine: what it is, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F

from speechloom.decoding import has_bfloat16_units
from speechloom.ops.layers import make, unavailable


def facts() -> dict[str, object]:
    """Processor, versions and threads, for the record."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bfloat16_units": has_bfloat16_units("cpu"),
    }


def _processor() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    named = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in named.items()}
    family = ", ".join(
        f"{key.split()[-1]} {named[key]}" for key in ("cpu family", "model") if key in named
    )
    return f"{named.get('model name', platform.machine())} ({family})"


def ceilings(frames: int = 500) -> dict[str, float]:
    """GFLOP/s of a linear layer [frames, 1024] to 4096, the best of many runs, by path."""
    x, weight, bias = torch.randn(frames, 1024), torch.randn(4096, 1024), torch.randn(4096)
    paths: dict[str, Callable[[], object]] = {
        "linear float32": lambda: F.linear(x, weight, bias),
    }
    mkldnn = torch.ops.mkldnn
    packed = mkldnn._reorder_linear_weight(weight)
    paths["oneDNN prepacked float32"] = lambda: mkldnn._linear_pointwise(
        x, packed, bias, "none", [], ""
    )
    if has_bfloat16_units("cpu"):
        half = [tensor.bfloat16() for tensor in (x, weight, bias)]
        paths["linear bfloat16"] = lambda: F.linear(*half)
    for dtype in (torch.float32, torch.bfloat16):
        if unavailable("compiled", dtype, "cpu") is None:
            rows = x.to(dtype)
            layer = make("compiled", dtype, "cpu").linear(weight, bias)
            name = f"compiled layers {str(dtype).removeprefix('torch.')}"
            paths[name] = partial(layer, rows)
    work = 2 * x.numel() * weight.shape[0] / 1e9
    with torch.inference_mode():
        return {name: round(work / _best_seconds(path), 1) for name, path in paths.items()}


def _best_seconds(run: Callable[[], object], rounds: int = 30) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times[3:])


def busy_ticks() -> tuple[float, float]:
    """Seconds of processor time used on this machine, and by this process."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0, 0.0
    user, nice, system, _, _, irq, soft, *_ = (int(field) for field in fields)
    own = os.times()
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK"), own.user + own.system


def spread(times: list[float]) -> tuple[float, float]:
    """Median, and half the distance between the slowest and the fastest."""
    return statistics.median(times), (max(times) - min(times)) / 2
