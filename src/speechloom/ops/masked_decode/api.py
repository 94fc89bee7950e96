"""Check, choose an implementation, call it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom.ops.masked_decode.implementations import choose
from speechloom.ops.masked_decode.inputs import (
    HeadScores,
    LogitScores,
    SampleConfig,
    Scores,
    StepResult,
)
from speechloom.ops.masked_decode.noise import NoiseKeys


def decode_step(
    scores: Scores,
    keys: NoiseKeys,
    *,
    counts: Sequence[int],
    keep_open: Sequence[int],
    config: SampleConfig,
    choice_temperature: float = 0.0,
    impl: str = "auto",
) -> StepResult:
    """Draw a token for every open row and close the most confident ones of each item.

    The rows of all items lie one after the other, each item's in the order of their positions;
    nothing is padded. A row's token and confidence depend on its scores and its keys only, and
    which rows close on its own item only.

    Confidence is the log-probability of the token under the guided scores (temperature 1,
    nothing filtered but forbidden ids) plus `choice_temperature` times Gumbel noise.

    Args:
        scores: of the N open rows of one level.
        keys: what the draws are for.
        counts: open rows of each item; their sum is N.
        keep_open: rows of each item that stay open, 0 .. count.
        config: temperature, filters, guidance, forbidden ids.
        choice_temperature: weight of the noise in the ranking, 0 for none.
        impl: "auto" or the name of an implementation; a name never falls back to another.

    Returns:
        Tokens, confidence and closing rows.

    Raises:
        UsageError: shapes, types, counts or options do not fit each other; on a CPU also where a
            row has a score that is NaN or +inf, or no finite one. Other devices are not asked:
            there the confidence of such a row is NaN, and it ranks below all others.
        BackendUnavailable: the named implementation cannot be used here.

    Source: Chang et al. 2022, MaskGIT, arXiv:2202.04200, section 3.2. We differ: the ranking is
    per item over the rows of one level, and the noise is counter-based.
    """
    rows, size = _check_scores(scores, config)
    main = scores.hidden if isinstance(scores, HeadScores) else scores.logits
    device = main.device
    _check_keys(keys, rows, device)
    _check_forbidden(config.forbidden, size)
    _check_counts(counts, keep_open, rows)
    chosen = choose(impl, device)
    with torch.autocast(device.type, enabled=False):  # sums are float32 in any context
        result = chosen.decode_step(
            scores,
            keys,
            counts=counts,
            keep_open=keep_open,
            config=config,
            choice_temperature=choice_temperature,
        )
    _check_distributions(result.confidence.isnan())
    return result


def sample_rows(
    logits: Tensor,
    keys: NoiseKeys,
    *,
    config: SampleConfig,
    history: Tensor | None = None,
    repetition_penalty: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Draw one token per row: the draw of `decode_step` alone, for autoregressive models.

    Args:
        logits: float [N, V].
        keys: what the draws are for.
        config: temperature and filters; guidance must be 1.
        history: int64 [N, H], ids that each row has used, negative for none.
        repetition_penalty: divides (negative scores: multiplies) the scores of used ids.
        impl: as in `decode_step`.

    Returns:
        int64 [N].

    Raises:
        UsageError: shapes, types or options do not fit each other; on a CPU also where a row
            has a score that is NaN or +inf, or no finite one.
        BackendUnavailable: the named implementation cannot be used here.
    """
    size = _check_matrix("logits", logits, logits.shape[0])
    _check_keys(keys, logits.shape[0], logits.device)
    _check_forbidden(config.forbidden, size)
    if config.guidance != 1.0:
        raise UsageError("`sample_rows` takes one set of scores: mix guidance in before it.")
    if history is not None:
        _check_history(history, logits.shape[0], size)
    if not 0.0 < repetition_penalty < float("inf"):
        raise UsageError(f"`repetition_penalty` must be above 0, but is {repetition_penalty}.")
    tokens = choose(impl, logits.device).sample_rows(
        logits, keys, config=config, history=history, repetition_penalty=repetition_penalty
    )
    _check_distributions(tokens < 0)
    return tokens


def warm_up(device: torch.device | str = "cpu", *, impl: str = "auto") -> None:
    """Make the first decoding step as fast as the later ones: compile now what they need.

    The code for a CPU is compiled once per machine and installation, in some seconds, and read
    from disk in each process after that. Triton's is compiled for each combination of options.

    Args:
        device: where the steps will be.
        impl: as in `decode_step`.

    Raises:
        UsageError, BackendUnavailable: as `decode_step`.
    """
    row = torch.zeros(1, dtype=torch.int64, device=device)
    logits = torch.zeros(1, 2, device=device)
    keys = NoiseKeys(seed=row, item=row, position=row)
    config = SampleConfig()
    decode_step(
        LogitScores(logits=logits), keys, counts=(1,), keep_open=(0,), config=config, impl=impl
    )
    sample_rows(logits, keys, config=config, impl=impl)


def _check_scores(scores: Scores, config: SampleConfig) -> tuple[int, int]:
    """Rows N and vocabulary V."""
    if isinstance(scores, HeadScores):
        name, main = "hidden", scores.hidden
        size, width = scores.weight.shape
    else:
        name, main = "logits", scores.logits
        size = width = main.shape[-1]
    if _check_matrix(name, main, main.shape[0]) != width:
        raise UsageError(f"`hidden` must be [N, {width}] to fit the head, but is {_shape(main)}.")
    if isinstance(scores, HeadScores) and scores.bias is not None and scores.bias.shape != (size,):
        raise UsageError(f"`bias` must be [{size}] to fit the head, but is {_shape(scores.bias)}.")
    if scores.unconditional is not None:
        if scores.unconditional.shape != main.shape:
            raise UsageError(
                f"`unconditional` must be {_shape(main)} like `{name}`, "
                f"but is {_shape(scores.unconditional)}."
            )
    elif config.guidance != 1.0:
        raise UsageError("`guidance` other than 1 needs `unconditional` scores; give them.")
    return main.shape[0], size


def _check_matrix(name: str, x: Tensor, rows: int) -> int:
    if x.dim() != 2 or x.shape[0] != rows or not x.is_floating_point():
        raise UsageError(f"`{name}` must be float [N, ...], but is {x.dtype} {_shape(x)}.")
    return x.shape[1]


def _check_keys(keys: NoiseKeys, rows: int, device: torch.device) -> None:
    for name in ("seed", "item", "position"):
        value: Tensor = getattr(keys, name)
        if value.shape != (rows,) or value.dtype != torch.int64 or value.device != device:
            raise UsageError(
                f"`keys.{name}` must be int64 [{rows}] on {device}, "
                f"but is {value.dtype} {_shape(value)} on {value.device}."
            )


def _check_forbidden(forbidden: Sequence[int], size: int) -> None:
    ids = set(forbidden)
    if any(not 0 <= i < size for i in ids) or len(ids) >= size:
        raise UsageError(
            f"`forbidden` must name some of the ids 0 .. {size - 1} and not all of them, "
            f"but is {sorted(ids)}."
        )


def _check_history(history: Tensor, rows: int, size: int) -> None:
    if history.dim() != 2 or history.shape[0] != rows or history.dtype != torch.int64:
        raise UsageError(
            f"`history` must be int64 [{rows}, H], but is {history.dtype} {_shape(history)}."
        )
    if history.device.type == "cpu" and (history >= size).any():
        raise UsageError(
            f"`history` must hold ids below {size}, or negative ones for none, "
            f"but holds {int(history.max())}."
        )


def _check_counts(counts: Sequence[int], keep_open: Sequence[int], rows: int) -> None:
    if sum(counts) != rows or min(counts, default=0) < 0:
        raise UsageError(f"`counts` must sum to the {rows} rows, but are {list(counts)}.")
    if len(keep_open) != len(counts) or any(
        not 0 <= keep <= count for keep, count in zip(keep_open, counts, strict=False)
    ):
        raise UsageError(
            f"`keep_open` must lie in 0 .. count for each item of {list(counts)}, "
            f"but is {list(keep_open)}."
        )


def _check_distributions(missing: Tensor) -> None:
    """Raise where a row has none; only on a CPU, since a device would have to be waited for."""
    if missing.device.type == "cpu" and missing.any():
        rows = missing.nonzero()[:, 0].tolist()
        raise UsageError(
            f"Scores must be numbers or -inf, with a finite one per row, but {len(rows)} of "
            f"{len(missing)} rows have NaN, +inf or nothing but -inf, row {rows[0]} first; "
            "look for the overflow in the network or its weights."
        )


def _shape(x: Tensor) -> str:
    return str(list(x.shape))
