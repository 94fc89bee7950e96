"""The kernels of `triton.py`. `README.md` says what they do for which V, and why they end.

A program of the draw owns a block of rows. Every step of the definition is a pass over tiles of
their scores. Where a tile holds whole rows it is made once and a pass has one tile; else each pass
makes its tiles anew, from memory or with the head. Scores are never written.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# The types of a kernel's arguments are Triton's, not Python's.

from __future__ import annotations

import os
from typing import Any, NamedTuple

import triton
import triton.language as tl

NEVER = tl.constexpr(float("-inf"))
BEYOND = tl.constexpr(float("inf"))
CELL = tl.constexpr(2.0**-24)
PROBES = tl.constexpr(6)
INTERPRETED = tl.constexpr(
    os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")
)


class Source(NamedTuple):
    """What the scores of a launch are made of; None where there is none.

    Attributes:
        main: logits [N, V], or hidden states [N, D].
        twin: the second set for guidance.
        weight: head [V, D]; None if `main` are logits.
        bias: float [V].
        forbidden: uint8 [V], 1 at ids that are never drawn.
        used: uint8 [N, V], 1 at ids that the repetition penalty is for.
        size: V.
        width: D.
        main_stride: elements from row to row, and so on.
        guidance: weight of the conditional scores; never 0 with a head.
        penalty: of used ids.
    """

    main: Any
    twin: Any
    weight: Any
    bias: Any
    forbidden: Any
    used: Any
    size: int
    width: int
    main_stride: int
    twin_stride: int
    weight_stride: int
    guidance: float
    penalty: float


class Tiling(NamedTuple):
    """How a launch is cut up.

    Attributes:
        rows: R, of a block.
        columns: C, ids of a tile.
        depth: features of a step of the head's product.
        resident: a tile holds whole rows.
    """

    rows: int
    columns: int
    depth: int
    resident: bool


class Block(NamedTuple):
    """The rows of a program.

    Attributes:
        source: of the scores.
        row: int64 [R], their numbers.
        live: bool [R], False past the last row.
        whole: float32 [R, C], all their scores; not used where tiles are streamed.
    """

    source: Any
    row: Any
    live: Any
    whole: Any


@triton.jit
def _unit(word):
    """The upper 23 bits as the middle of one of 2**23 cells; see `noise.py`."""
    return ((word >> 9) * 2 + 1).to(tl.float32) * CELL


@triton.jit
def _uniforms(seed, item, position, packed):
    """Two uniform numbers per row, float32 [R]; see `noise.py`."""
    zero = (item * 0).to(tl.uint32)
    steps = zero + packed.to(tl.uint32)
    words = tl.philox(seed, position.to(tl.uint32), steps, item.to(tl.uint32), zero)
    return _unit(words[0]), _unit(words[1])


@triton.jit
def _product(x, x_stride, block, ids, sums, T: tl.constexpr):
    """Add rows of `x` times the head's rows `ids` to `sums`, float32 [R, C]."""
    source = block.source
    for start in range(0, source.width, T.depth):
        d = start + tl.arange(0, T.depth)
        inside = d < source.width
        left = tl.load(  # [R, depth]
            x + block.row[:, None] * x_stride + d[None, :],
            mask=block.live[:, None] & inside[None, :],
            other=0.0,
        )
        right = tl.load(  # [depth, C]
            source.weight + ids.to(tl.int64)[None, :] * source.weight_stride + d[:, None],
            mask=(ids < source.size)[None, :] & inside[:, None],
            other=0.0,
        )
        if x.dtype != source.weight.dtype or INTERPRETED:  # the interpreter has no bfloat16 product
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        sums = tl.dot(left, right, sums, input_precision="ieee")
    return sums


@triton.jit
def _head_scores(block, ids, T: tl.constexpr):
    """Scores [R, C] as products of hidden states with the head."""
    source = block.source
    sums = tl.zeros([T.rows, T.columns], tl.float32)
    if source.twin is not None:  # m + g (l - m) = g (l + m (1 - g) / g): one set of sums for both
        sums = _product(source.twin, source.twin_stride, block, ids, sums, T)
        sums = sums * ((1.0 - source.guidance) / source.guidance)
    sums = _product(source.main, source.main_stride, block, ids, sums, T)
    if source.twin is not None:
        sums = sums * source.guidance
    if source.bias is not None:
        bias = tl.load(source.bias + ids, mask=ids < source.size, other=0.0)
        sums = sums + bias.to(tl.float32)[None, :]
    return sums


@triton.jit
def _memory_scores(block, ids):
    """Scores [R, C] from logits."""
    source, row = block.source, block.row[:, None]
    mask = block.live[:, None] & (ids < source.size)[None, :]
    scores = tl.load(source.main + row * source.main_stride + ids[None, :], mask=mask, other=0.0)
    scores = scores.to(tl.float32)
    if source.twin is not None:
        free = tl.load(source.twin + row * source.twin_stride + ids[None, :], mask=mask, other=0.0)
        free = free.to(tl.float32)
        scores = free + source.guidance * (scores - free)
    if source.used is not None:
        used = tl.load(source.used + row * source.size + ids[None, :], mask=mask, other=0)
        less = tl.where(scores > 0, tl.div_rn(scores, source.penalty), scores * source.penalty)
        scores = tl.where(used != 0, less, scores)
    return scores


@triton.jit
def _make_tile(block, start, T: tl.constexpr):
    """Scores [R, C] of ids from `start` on; minus infinity at forbidden ids and past the end."""
    source = block.source
    ids = start + tl.arange(0, T.columns)
    if source.weight is not None:
        scores = _head_scores(block, ids, T)
    else:
        scores = _memory_scores(block, ids)
    allowed = ids < source.size
    if source.forbidden is not None:
        allowed = allowed & (tl.load(source.forbidden + ids, mask=allowed, other=1) == 0)
    return tl.where(allowed[None, :], scores, NEVER)


@triton.jit
def _tile(block, start, T: tl.constexpr):
    """A tile of a pass: the one that is there already, or a new one."""
    if T.resident:
        return block.whole
    else:
        return _make_tile(block, start, T)


@triton.jit
def _weights(scores, best, temperature):
    """Unnormalised probabilities [R, C]; 1 at the best score."""
    return tl.exp(tl.div_rn(scores - best[:, None], temperature))


@triton.jit
def _survey(block, T: tl.constexpr):
    """Best score, its lowest id, lowest finite score, sum of exp(score - best): all [R].

    The sum is 1 or more for scores that make a distribution, and NaN or 0 for others.
    """
    best = tl.full([T.rows], NEVER, tl.float32)
    lowest = tl.full([T.rows], BEYOND, tl.float32)
    winner = tl.zeros([T.rows], tl.int32)
    total = tl.zeros([T.rows], tl.float32)
    for start in range(0, T.columns if T.resident else block.source.size, T.columns):
        end = start + T.columns
        ids = start + tl.arange(0, T.columns)
        scores = _tile(block, start, T)
        peak = tl.max(scores, 1)
        first = tl.min(tl.where(scores == peak[:, None], ids[None, :], end), 1)
        winner = tl.where(peak > best, first, winner)
        lowest = tl.minimum(lowest, tl.min(tl.where(scores > NEVER, scores, BEYOND), 1))
        top = tl.maximum(best, peak)
        base = tl.where(top == NEVER, 0.0, top)  # a tile may hold nothing but forbidden ids
        total = total * tl.exp(best - base) + tl.sum(tl.exp(scores - base[:, None]), 1)
        best = top
    return best, winner, lowest, total


@triton.jit
def _share(block, floor, best, temperature, MASS: tl.constexpr, T: tl.constexpr):
    """Number, or weight (MASS), of the ids with a score of `floor` or more: float32 [R]."""
    share = tl.zeros([T.rows], tl.float32)
    for start in range(0, T.columns if T.resident else block.source.size, T.columns):
        scores = _tile(block, start, T)
        if MASS:
            each = _weights(scores, best, temperature)
        else:
            each = tl.full([T.rows, T.columns], 1.0, tl.float32)
        share += tl.sum(tl.where(scores >= floor[:, None], each, 0.0), 1)
    return share


@triton.jit
def _neighbours(block, low, high, T: tl.constexpr):
    """The lowest score that is `low` or more, and the highest below `high`: both [R]."""
    floor = tl.full([T.rows], BEYOND, tl.float32)
    top = tl.full([T.rows], NEVER, tl.float32)
    for start in range(0, T.columns if T.resident else block.source.size, T.columns):
        scores = _tile(block, start, T)
        floor = tl.minimum(floor, tl.min(tl.where(scores >= low[:, None], scores, BEYOND), 1))
        top = tl.maximum(top, tl.max(tl.where(scores < high[:, None], scores, NEVER), 1))
    return floor, top


@triton.jit
def _threshold(block, goal, low, best, temperature, MASS: tl.constexpr, T: tl.constexpr):
    """The highest score t, from `low` on, such that the ids from t on have a share of `goal`.

    Bisection of the interval from `low` up to and without `high`, which holds t. Every few
    halvings its ends move to scores that exist, and the highest of them is tried itself: ties and
    outliers cannot stall it.
    """
    top = best
    high = tl.full([T.rows], BEYOND, tl.float32)
    searching = low < top
    while tl.max(searching.to(tl.int32), 0) > 0:
        probe = top
        for _ in range(PROBES):
            share = _share(block, probe, best, temperature, MASS, T)
            low = tl.where(searching & (share >= goal), probe, low)
            high = tl.where(searching & (share < goal), probe, high)
            searching = searching & (share != goal)
            probe = 0.5 * low + 0.5 * high
        floor, top = _neighbours(block, low, high, T)
        low = tl.where(searching, floor, low)
        searching = searching & (low < top)
    return low


@triton.jit
def _filter(
    block,
    best,
    lowest,
    temperature,
    top_k,
    top_p,
    K: tl.constexpr,
    P: tl.constexpr,
    T: tl.constexpr,
):
    """The lowest score [R] that top-k and top-p leave."""
    floor = lowest
    if K:
        goal = tl.zeros([T.rows], tl.float32) + top_k
        floor = _threshold(block, goal, floor, best, temperature, False, T)
    if P:
        goal = top_p * _share(block, floor, best, temperature, True, T)
        floor = _threshold(block, goal, floor, best, temperature, True, T)
    return floor


@triton.jit
def _invert(block, uniform, floor, best, temperature, T: tl.constexpr):
    """Draw from the ids with a score of `floor` or more: token int32 [R] and its score [R].

    The first id with a weight whose running sum exceeds the uniform share of the total. Sums made
    in two orders may differ by rounding: where no sum exceeds it, the last id with a weight.
    """
    goal = uniform * _share(block, floor, best, temperature, True, T)
    before = tl.zeros([T.rows], tl.float32)
    token = tl.zeros([T.rows], tl.int32)
    score = best
    found = goal < 0.0
    for start in range(0, T.columns if T.resident else block.source.size, T.columns):
        end = start + T.columns
        ids = start + tl.arange(0, T.columns)
        scores = _tile(block, start, T)
        weights = _weights(scores, best, temperature)
        weights = tl.where(scores >= floor[:, None], weights, 0.0)
        exceeds = before[:, None] + tl.cumsum(weights, 1) > goal[:, None]
        first = tl.min(tl.where(exceeds & (weights > 0.0), ids[None, :], end), 1)
        last = tl.max(tl.where(weights > 0.0, ids[None, :], -1), 1)
        here = tl.where(first < end, first, last)
        take = (here >= 0) & (found == 0)
        chosen = tl.sum(tl.where(ids[None, :] == here[:, None], scores, 0.0), 1)
        token = tl.where(take, here, token)
        score = tl.where(take, chosen, score)
        found = found | (first < end)
        before += tl.sum(weights, 1)
    return token, score


@triton.jit(do_not_specialize=["rows", "packed", "top_k"])
def draw_fwd_kernel(
    p_tokens,  # int64 [N]
    p_confidence,  # float32 [N], or None: then nothing is rated
    source,
    p_seed,  # int64 [N]
    p_item,  # int64 [N]
    p_position,  # int64 [N]
    rows,
    packed,
    temperature,
    top_k,
    top_p,
    choice_temperature,
    GREEDY: tl.constexpr,
    TOP_K: tl.constexpr,
    TOP_P: tl.constexpr,
    T: tl.constexpr,
):
    """Draw a token for each row of a block and rate it."""
    row = tl.program_id(0).to(tl.int64) * T.rows + tl.arange(0, T.rows)
    live = row < rows
    block = Block(source, row, live, live)  # tiles are made from a block that has none yet
    if T.resident:
        block = Block(source, row, live, _make_tile(block, 0, T))
    best, winner, lowest, total = _survey(block, T)
    lowest = tl.where(total > 0.0, lowest, best)  # NaN, +inf or nothing but -inf: no search
    seed = tl.load(p_seed + row, mask=live, other=0)
    item = tl.load(p_item + row, mask=live, other=0)
    position = tl.load(p_position + row, mask=live, other=0)
    for_token, for_choice = _uniforms(seed, item, position, packed)
    if GREEDY:
        token, score = winner, best
    else:
        floor = _filter(block, best, lowest, temperature, top_k, top_p, TOP_K, TOP_P, T)
        token, score = _invert(block, for_token, floor, best, temperature, T)
    tl.store(p_tokens + row, tl.where(total > 0.0, token, -1).to(tl.int64), mask=live)
    if p_confidence is not None:
        sure = score - best - tl.log(total)
        noise = -tl.log(-tl.log(for_choice))
        tl.store(p_confidence + row, sure + choice_temperature * noise, mask=live)


@triton.jit
def _ranks(p_confidence, rows, count):
    """Confidence as int32 that sort alike; the two zeros are one, and NaN is the lowest."""
    confidence = tl.load(p_confidence + rows, mask=rows < count, other=NEVER)
    confidence = tl.where(confidence == 0.0, 0.0, confidence)
    confidence = tl.where(confidence == confidence, confidence, NEVER)
    bits = confidence.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _count_above(p_confidence, whole, count, rank, C: tl.constexpr, RESIDENT: tl.constexpr):
    """Rows of an item that rank above `rank`."""
    found = 0
    for start in range(0, C if RESIDENT else count, C):
        rows = start + tl.arange(0, C)
        ranks = whole if RESIDENT else _ranks(p_confidence, rows, count)
        found += tl.sum(((ranks > rank) & (rows < count)).to(tl.int32), 0)
    return found


@triton.jit
def close_fwd_kernel(
    p_closes,  # bool [N]
    p_confidence,  # float32 [N]
    p_starts,  # int64 [I]
    p_counts,  # int64 [I]
    p_closing,  # int64 [I]
    C: tl.constexpr,
    RESIDENT: tl.constexpr,
):
    """Close the best rows of one item.

    Bisection for the lowest rank that no more rows than wanted lie above; its own rows, which are
    equals, fill what is missing, the first ones first.
    """
    item = tl.program_id(0)
    first = tl.load(p_starts + item)
    count = tl.load(p_counts + item).to(tl.int32)
    closing = tl.load(p_closing + item).to(tl.int32)
    p_confidence += first
    p_closes += first
    whole = _ranks(p_confidence, tl.arange(0, C), count)
    low = tl.full([], -(2**31) - 1, tl.int64)
    high = tl.full([], 2**31 - 1, tl.int64)
    while high - low > 1:
        middle = (low + high) >> 1
        above = _count_above(p_confidence, whole, count, middle.to(tl.int32), C, RESIDENT)
        low = tl.where(above > closing, middle, tl.where(above == closing, middle - 1, low))
        high = tl.where(above > closing, high, middle)
    last = high.to(tl.int32)
    missing = closing - _count_above(p_confidence, whole, count, last, C, RESIDENT)
    for start in range(0, C if RESIDENT else count, C):
        rows = start + tl.arange(0, C)
        ranks = whole if RESIDENT else _ranks(p_confidence, rows, count)
        equal = ((ranks == last) & (rows < count)).to(tl.int32)
        closes = (ranks > last) | ((equal > 0) & (tl.cumsum(equal, 0) <= missing))
        tl.store(p_closes + rows, closes, mask=rows < count)
        missing -= tl.sum(equal, 0)
