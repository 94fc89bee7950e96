"""A decoding step on CUDA in Triton: one kernel draws and rates, one closes. See `README.md`.

Nothing here waits for the device. Under `TRITON_INTERPRET=1` the same code runs on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton
from packaging.version import Version
from torch import Tensor

from speechloom.ops.masked_decode.inputs import (
    HeadScores,
    LogitScores,
    SampleConfig,
    Scores,
    StepResult,
)
from speechloom.ops.masked_decode.noise import NoiseKeys
from speechloom.ops.masked_decode.triton_kernels import (
    INTERPRETED,
    Source,
    Tiling,
    close_fwd_kernel,
    draw_fwd_kernel,
)

OLDEST = Version("3.9")
"""The first Triton whose compiler takes the kernels."""
RESIDENT_LOGITS = 16_384
"""Longest row of logits that a program keeps in its registers."""
RESIDENT_HEAD = 2_048
"""Largest head whose scores of `HEAD_ROWS` rows a program keeps in its registers."""
HEAD_ROWS = 16
RESIDENT_RANKS = 4_096
"""Most rows of an item that the closing kernel keeps in its registers."""


class Launch(NamedTuple):
    """How the draw is cut up; it follows from V and the types, so that no row sees its batch.

    Attributes:
        tiling: of a program.
        warps: of a program.
        stages: of the pipeline that loads the head.
    """

    tiling: Tiling
    warps: int
    stages: int


def available(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device: they want CUDA, or the interpreter and a CPU."""
    if Version(triton.__version__) < OLDEST:
        return f"it needs Triton {OLDEST} or later, but {triton.__version__} is installed."
    if device.type == ("cpu" if INTERPRETED.value else "cuda"):
        return None
    if INTERPRETED.value:
        return "TRITON_INTERPRET=1 runs it on a CPU; unset the variable to run on the device."
    return (
        "it needs a CUDA device, or TRITON_INTERPRET=1 in the environment to run slowly on a CPU."
    )


def decode_step(
    scores: Scores,
    keys: NoiseKeys,
    *,
    counts: Sequence[int],
    keep_open: Sequence[int],
    config: SampleConfig,
    choice_temperature: float,
) -> StepResult:
    """Draw, rate and close the open rows of a batch; see `api.decode_step`."""
    tokens, confidence = draw_rows(
        scores, keys, config=config, choice_temperature=choice_temperature
    )
    table = _to_device(_close_table(counts, keep_open), tokens.device)
    closes = close_rows(confidence, *table, longest=max(counts, default=0))
    return StepResult(tokens=tokens, confidence=confidence, closes=closes)


def sample_rows(
    logits: Tensor,
    keys: NoiseKeys,
    *,
    config: SampleConfig,
    history: Tensor | None,
    repetition_penalty: float,
) -> Tensor:
    """Draw one token per row; see `api.sample_rows`."""
    used = None if history is None else _used_ids(history, logits.shape[-1])
    return _draw(
        LogitScores(logits=logits),
        keys,
        config=config,
        used=used,
        repetition_penalty=repetition_penalty,
    )[0]


def draw_rows(
    scores: Scores, keys: NoiseKeys, *, config: SampleConfig, choice_temperature: float
) -> tuple[Tensor, Tensor]:
    """Draw and rate without closing: tokens int64 [N] and confidence float32 [N].

    For loops that keep the counts of open rows on the device; see `close_rows`.
    """
    tokens, confidence = _draw(scores, keys, config=config, choice_temperature=choice_temperature)
    assert confidence is not None
    return tokens, confidence


def close_rows(
    confidence: Tensor, starts: Tensor, counts: Tensor, closing: Tensor, *, longest: int
) -> Tensor:
    """Close the most confident rows of each item; of equals, the first.

    Args:
        confidence: float32 [N].
        starts: int64 [I], first row of each item.
        counts: int64 [I], rows of each item.
        closing: int64 [I], how many of them close.
        longest: a bound of `counts` that the host knows.

    Returns:
        bool [N]; False for rows of no item.
    """
    closes = torch.zeros_like(confidence, dtype=torch.bool)
    if len(starts) and longest:
        columns = min(_power_of_two(longest), RESIDENT_RANKS)
        with _device_of(confidence):
            close_fwd_kernel[(len(starts),)](
                closes,
                confidence.contiguous(),
                starts,
                counts,
                closing,
                C=columns,
                RESIDENT=longest <= columns,
                num_warps=max(1, min(8, columns // 256)),
                enable_fp_fusion=False,
            )
    return closes


def _draw(
    scores: Scores,
    keys: NoiseKeys,
    *,
    config: SampleConfig,
    choice_temperature: float | None = None,
    used: Tensor | None = None,
    repetition_penalty: float = 1.0,
) -> tuple[Tensor, Tensor | None]:
    """Launch the draw; no choice temperature means that nothing is rated."""
    source = _source(scores, config, used, repetition_penalty)
    rows, device = source.main.shape[0], source.main.device
    rated = choice_temperature is not None
    tokens = torch.empty(rows, dtype=torch.int64, device=device)
    confidence = torch.empty(rows, dtype=torch.float32, device=device) if rated else None
    if rows == 0:
        return tokens, confidence
    launch = plan_logits(source.size) if source.weight is None else plan_head(source)
    with _device_of(tokens):
        draw_fwd_kernel[(-(-rows // launch.tiling.rows),)](
            tokens,
            confidence,
            source,
            keys.seed.contiguous(),
            keys.item.contiguous(),
            keys.position.contiguous(),
            rows,
            keys.packed,
            config.temperature,
            config.top_k,
            config.top_p,
            choice_temperature or 0.0,
            GREEDY=config.temperature == 0.0,
            TOP_K=0 < config.top_k < source.size,
            TOP_P=config.top_p < 1.0,
            T=launch.tiling,
            num_warps=launch.warps,
            num_stages=launch.stages,
            enable_fp_fusion=False,
        )
    return tokens, confidence


def _source(
    scores: Scores, config: SampleConfig, used: Tensor | None, repetition_penalty: float
) -> Source:
    """The scores as the kernel takes them."""
    main = scores.hidden if isinstance(scores, HeadScores) else scores.logits
    twin, guidance = scores.unconditional, config.guidance
    if twin is not None and guidance == 0.0:  # the twin alone; the kernel divides by the guidance
        main, guidance = twin, 1.0
    main = _dense_rows(main)
    twin = None if twin is None or guidance == 1.0 else _dense_rows(twin)
    weight = _dense_rows(scores.weight) if isinstance(scores, HeadScores) else None
    bias = scores.bias if isinstance(scores, HeadScores) else None
    size = main.shape[1] if weight is None else weight.shape[0]
    return Source(
        main=main,
        twin=twin,
        weight=weight,
        bias=None if bias is None else bias.contiguous(),
        forbidden=forbidden_mask(config.forbidden, size, main.device),
        used=used,
        size=size,
        width=main.shape[1],
        main_stride=main.stride(0),
        twin_stride=0 if twin is None else twin.stride(0),
        weight_stride=0 if weight is None else weight.stride(0),
        guidance=guidance,
        penalty=repetition_penalty,
    )


def _dense_rows(x: Tensor) -> Tensor:
    """A matrix whose rows have no gaps; the rows themselves may lie anywhere."""
    return x if x.stride(-1) == 1 else x.contiguous()


def plan_logits(size: int) -> Launch:
    """Cut up rows of `size` logits."""
    columns = max(16, _power_of_two(size))
    if columns > RESIDENT_LOGITS:
        return Launch(Tiling(1, 4_096, 16, False), warps=8, stages=1)
    rows = max(1, min(16, 1_024 // columns))
    warps = max(1, min(16, rows * columns // 1_024))
    return Launch(Tiling(rows, columns, 16, True), warps=warps, stages=1)


def plan_head(source: Source) -> Launch:
    """Cut up a product with a head: the scores of all ids at once where the chip has room."""
    columns = max(16, _power_of_two(source.size))
    bytes_each = max(source.main.element_size(), source.weight.element_size())
    room = _shared_memory(source.main.device)
    if columns <= RESIDENT_HEAD:
        for depth, stages in ((64, 3), (32, 3), (32, 2), (16, 3), (16, 2)):
            if stages * depth * (columns + HEAD_ROWS) * bytes_each <= room:
                tiling = Tiling(HEAD_ROWS, columns, depth, True)
                return Launch(tiling, warps=max(4, min(16, columns // 128)), stages=stages)
    return Launch(Tiling(32, 128, 128 // bytes_each, False), warps=4, stages=3)


def _shared_memory(device: torch.device) -> int:
    """Bytes of on-chip memory for a program's operands, less what its sums need."""
    if device.type != "cuda":
        return 96 * 1024
    properties = torch.cuda.get_device_properties(device)
    most = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    return int(most) - 8 * 1024


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Launch where a tensor lies."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def forbidden_mask(forbidden: Sequence[int], size: int, device: torch.device) -> Tensor | None:
    """Uint8 [V], 1 at forbidden ids; made on the device, a launch per run of ids."""
    if not forbidden:
        return None
    mask = torch.zeros(size, dtype=torch.uint8, device=device)
    for first, last in _runs(forbidden):
        mask[first : last + 1].fill_(1)
    return mask


def _runs(ids: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of ids that follow each other."""
    ordered = sorted(set(ids))
    breaks = [i for i in range(1, len(ordered)) if ordered[i] != ordered[i - 1] + 1]
    for first, end in zip([0, *breaks], [*breaks, len(ordered)], strict=True):
        yield ordered[first], ordered[end - 1]


def _used_ids(history: Tensor, size: int) -> Tensor:
    """Uint8 [N, V], 1 where a row has used an id; -1 in the history is none."""
    used = torch.zeros(len(history), size + 1, dtype=torch.uint8, device=history.device)
    return used.scatter_(-1, torch.where(history < 0, size, history), 1)[:, :size].contiguous()


def _close_table(counts: Sequence[int], keep_open: Sequence[int]) -> Tensor:
    """Starts, counts and numbers that close, int64 [3, I] on the host."""
    table = torch.empty(3, len(counts), dtype=torch.int64)
    table[1] = torch.tensor(counts, dtype=torch.int64)
    table[0] = table[1].cumsum(0) - table[1]
    table[2] = table[1] - torch.tensor(keep_open, dtype=torch.int64)
    return table


def _to_device(x: Tensor, device: torch.device) -> Tensor:
    """Copy from pinned memory, which the host does not wait for."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def _power_of_two(x: int) -> int:
    """The smallest power of two that is `x` or more."""
    return 1 << (x - 1).bit_length()
