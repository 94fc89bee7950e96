"""Forced alignment: where each phone of a known text lies in a recording."""

from __future__ import annotations

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom_starter.phones import PAUSE


def align(
    log_probabilities: Tensor, phones: Tensor, optional_pause: Tensor | None = None
) -> Tensor:
    """The most probable way through ``phones`` in order, every phone at least one frame.

    Viterbi over the frame posteriors of the content network; the step over phones is one tensor
    operation, so the cost is F small steps.

    Args:
        log_probabilities: float [F, P] of the phones of the alphabet per frame.
        phones: int64 [N], at least one.
        optional_pause: bool [N]; True allows a pause of any length, also none, before that phone.
            An extra last entry [N + 1] speaks of a pause after the last phone. None allows no
            pause but those among ``phones``.

    Returns:
        int64 [N, 2]: first frame and end frame (exclusive) of each phone, in order. Frames between
        the end of a phone and the start of the next are pause.

    Raises:
        UsageError: there are no phones, or more phones than frames.
    """
    frames, count = log_probabilities.shape[0], len(phones)
    if not 1 <= count <= frames:
        raise UsageError(
            f"cannot align {count} phones with {frames} frames: at least one phone, and at least "
            "one frame for each, is needed; check that the text belongs to the recording"
        )
    states, is_phone = _states(phones, optional_pause)
    scores = log_probabilities.float()[:, states]
    path = _best_path(scores, is_phone)
    position = torch.cumsum(is_phone, 0) - 1
    spoken = is_phone[path]
    ids = position[path][spoken]
    at = torch.nonzero(spoken)[:, 0]
    starts = torch.full((count,), frames).scatter_reduce(0, ids, at, "amin")
    ends = torch.zeros(count, dtype=torch.int64).scatter_reduce(0, ids, at + 1, "amax")
    return torch.stack((starts, ends), 1)


def _states(phones: Tensor, optional_pause: Tensor | None) -> tuple[Tensor, Tensor]:
    """Phone of each state and whether it must be visited; pauses stand before their phone."""
    if optional_pause is None:
        return phones, torch.ones(len(phones), dtype=torch.bool)
    pauses = torch.zeros(len(phones) + 1, dtype=torch.bool)
    pauses[: len(optional_pause)] = optional_pause
    pairs = torch.stack((torch.full((len(phones) + 1,), PAUSE), torch.cat((phones, phones[:1]))), 1)
    kept = torch.stack((pauses, torch.ones_like(pauses)), 1)
    kept[-1, 1] = False
    must = torch.tensor([False, True]).expand_as(kept)
    return pairs[kept], must[kept]


def _best_path(scores: Tensor, is_phone: Tensor) -> Tensor:
    """State int64 [F] of each frame on the best monotonic path; only pauses may be skipped."""
    frames, states = scores.shape
    lowest = torch.tensor(float("-inf"))
    # From state s one stays, goes to s + 1, or to s + 2 over an optional pause.
    over = torch.zeros(states, dtype=torch.bool)
    over[2:] = ~is_phone[1:-1]
    best = torch.full((states,), float("-inf"))
    best[0] = scores[0, 0]
    if not is_phone[0] and states > 1:
        best[1] = scores[0, 1]
    steps = torch.zeros(frames, states, dtype=torch.int64)
    for frame in range(1, frames):
        one = torch.cat((lowest[None], best[:-1]))
        two = torch.cat((lowest.expand(min(2, states)), best[:-2]))[:states]
        options = torch.stack((best, one, torch.where(over, two, lowest)))
        best, steps[frame] = options.max(0)
        best = best + scores[frame]
    last = states - 1
    if not is_phone[last] and states > 1 and best[last - 1] > best[last]:
        last -= 1
    path = torch.empty(frames, dtype=torch.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = last
        last -= int(steps[frame, last])
    return path
