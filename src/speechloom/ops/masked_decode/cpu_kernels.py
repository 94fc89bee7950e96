"""The compiled loops of `cpu.py`: plain functions over the scores of one row, and over rows.

They release the interpreter lock, start no threads and keep no state. All are in this file, as
numba's cache on disk sees changes of a function's own file only.

Scores are compared as `ranks`: int32 that sort like the float32 they are made of. Maxima, counts
and ties are then exact integer operations, which the compiler turns into vector instructions
without leave to reorder anything. Leave to reorder additions is given to the sums alone.
"""
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, no-untyped-call"
# mypy: disable-error-code="attr-defined"
# The types of compiled functions are numba's; their docstrings say them.

from __future__ import annotations

import math

import numpy as np
from numba import carray, types

from speechloom.ops.native import Kernel, compiled, next_piece, own_memory, pointer_to

BLOCK = 64
"""Ids that are summed together; a row of scores is a whole number of blocks long."""
SPAN = 16 * BLOCK
"""Exponentials that are summed in float32; enough of them for a loop to be worth its start."""
PROBES = 6
"""Probes of a threshold between two looks at the scores that are left."""
HALVINGS = 24
"""Probes after which the search halves the interval of ranks, not of scores: it ends for sure."""

_FLOAT, _INT, _WORD = np.float32, np.int32, np.uint64
_NEVER, _LARGEST = _FLOAT(-np.inf), np.finfo(np.float32).max
_SIGN, _EXPONENT = _INT(31), _INT(23)
_MAGNITUDE = _INT(0x7FFFFFFF)
_BEST_RANK = _INT(0x7F7FFFFF)  # of the largest finite score
_WORST_RANK = _INT(-0x7F800000)  # of the smallest finite score; minus infinity is one below
_LOG2_E, _ROUND = _FLOAT(1.4426950408889634), _FLOAT(1.5 * 2.0**23)
_LN2_HIGH, _LN2_LOW = _FLOAT(0.693359375), _FLOAT(-2.12194440e-4)
_BIAS = _INT(127)
_UNDERFLOW = _FLOAT(-87.0)
_TAYLOR = tuple(_FLOAT(1.0 / math.factorial(n)) for n in (7, 6, 5, 4, 3, 2))

_MASK = _WORD(0xFFFFFFFF)
_MULTIPLIER_0, _MULTIPLIER_1 = _WORD(0xD2511F53), _WORD(0xCD9E8D57)
_WEYL_0, _WEYL_1 = _WORD(0x9E3779B9), _WORD(0xBB67AE85)
_HALF = _WORD(32)

_floats, _ints = pointer_to(types.float32), pointer_to(types.int32)
_longs = pointer_to(types.int64)


_exactly = compiled()
_fused = compiled(("contract",))
_summed = compiled(("contract", "nsz", "reassoc"))


def row_size(size: int) -> int:
    """Length of the row of scores for a vocabulary: whole blocks; the rest holds -inf."""
    return -(-size // BLOCK) * BLOCK


_row_size = _exactly(row_size)


# Noise.


@_exactly
def uniforms(seed, item, position, packed):
    """Two uniform numbers float32 of a key of four int64; as `noise.uniforms` makes them."""
    c0, c1 = _WORD(position) & _MASK, _WORD(packed) & _MASK
    c2, c3 = _WORD(item) & _MASK, _WORD(0)
    k0, k1 = _WORD(seed) & _MASK, _WORD(seed) >> _HALF
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c2 = (p1 >> _HALF) ^ c1 ^ k0, (p0 >> _HALF) ^ c3 ^ k1
        c1, c3 = p1 & _MASK, p0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return _unit(c0), _unit(c1)


@_exactly
def _unit(word):
    """The upper 23 bits as the middle of one of 2**23 cells."""
    return _FLOAT((word >> _WORD(9)) * _WORD(2) + _WORD(1)) * _FLOAT(2.0**-24)


# Scores as ranks.


@_exactly
def _rank_of_bits(bits):
    rank = _INT(bits ^ _INT(_INT(bits >> _SIGN) & _MAGNITUDE))
    return _INT(0) if rank == _INT(-1) else rank  # the two zeros are equals


@_exactly
def _rank(score):
    return _rank_of_bits(_FLOAT(score).view(_INT))


@_exactly
def _score(rank):
    rank = _INT(rank)
    return _INT(rank ^ _INT(_INT(rank >> _SIGN) & _MAGNITUDE)).view(_FLOAT)


@_exactly
def _rank_all(scores, ranks):
    """Fill the ranks of a row; return its lowest, its lowest finite and its highest one."""
    bits = scores.view(_INT)
    low, high, finite = _MAGNITUDE, _INT(-_MAGNITUDE), _MAGNITUDE
    for i in range(ranks.size):
        rank = _rank_of_bits(bits[i])
        ranks[i] = rank
        low, high = min(low, rank), max(high, rank)
        finite = min(finite, rank if rank >= _WORST_RANK else _MAGNITUDE)
    return low, finite, high


@_exactly
def _first_at(ranks, rank):
    for i in range(ranks.size):
        if ranks[i] == rank:
            return i
    return -1


# Filters.


@_exactly
def _count_from(ranks, floor):
    count = _INT(0)
    for i in range(ranks.size):
        count += _INT(1) if ranks[i] >= floor else _INT(0)
    return count


@_summed
def _mass_from(ranks, weights, floor):
    mass = _FLOAT(0)
    for i in range(ranks.size):
        mass += weights[i] if ranks[i] >= floor else _FLOAT(0)
    return mass


@_exactly
def _neighbours(ranks, low, high):
    """The lowest rank from `low` on, and the highest one below `high`."""
    above, below = _MAGNITUDE, _INT(-_MAGNITUDE)
    for i in range(ranks.size):
        rank = ranks[i]
        above = min(above, rank if rank >= low else _MAGNITUDE)
        below = max(below, rank if rank < high else _INT(-_MAGNITUDE))
    return above, below


@_exactly
def _between(low, high, lean):
    """A rank between two, at the score that lies the part `lean` of the way; else the middle."""
    bottom = np.float64(_score(low))
    rank = _rank(_FLOAT(bottom + lean * (np.float64(_score(high)) - bottom)))
    if low < rank < high:
        return rank
    return _INT((np.int64(low) + np.int64(high)) >> 1)


@_exactly
def _lean(probe, goal, more, less):
    """Where to probe next, of the way up: where a straight line would have the goal."""
    return -1.0 if probe >= HALVINGS else (more - goal) / (more - less)


@_exactly
def _threshold(ranks, weights, low, best, share, goal, by_mass):
    """The highest rank from `low` on such that the ids from it on have a share of `goal`.

    A share is a number of ids, or a mass of weights; the ids from `low` on have `share` > `goal`.
    Any rank that divides the ids in the same way may be returned. A search of the interval from
    `low` up to and without `high`; every few probes it shrinks to the ranks that exist in it, so
    that ties and outliers cannot stall it.

    Source: the Illinois rule (Dowell and Jarratt 1971, doi 10.1007/BF01934364): an end that stays
    where it is counts for half as much, so that both ends come nearer.
    """
    high, more, less, probe = _INT(best + _INT(1)), np.float64(share), 0.0, 0
    last_side = 0
    while np.int64(high) - np.int64(low) > 1:
        rank = _between(low, high, _lean(probe, goal, more, less))
        share = np.float64(
            _mass_from(ranks, weights, rank) if by_mass else _count_from(ranks, rank)
        )
        if share == goal:
            return rank
        side = 1 if share > goal else -1
        if side > 0:
            low, more = rank, share
            less = goal - 0.5 * (goal - less) if side == last_side else less
        else:
            high, less = rank, share
            more = goal + 0.5 * (more - goal) if side == last_side else more
        last_side = side
        probe += 1
        if probe % PROBES == 0:
            low, below = _neighbours(ranks, low, high)
            high = _INT(below + _INT(1))
    return low


# Weights.


@_fused
def _exp(x):
    """Exponential function of a float32 x <= 0, to 1.5 units of the last place; 0 below -87."""
    shifted = x * _LOG2_E + _ROUND  # the sum's last bits are the exponent
    power = shifted - _ROUND
    rest = x - power * _LN2_HIGH
    rest = rest - power * _LN2_LOW
    series = _TAYLOR[0]
    series = series * rest + _TAYLOR[1]
    series = series * rest + _TAYLOR[2]
    series = series * rest + _TAYLOR[3]
    series = series * rest + _TAYLOR[4]
    series = series * rest + _TAYLOR[5]
    series = series * rest * rest + rest + _FLOAT(1)
    scale = _INT(_INT(_FLOAT(shifted).view(_INT) + _BIAS) << _EXPONENT).view(_FLOAT)
    return series * scale if x >= _UNDERFLOW else _FLOAT(0)


@_fused
def _weigh(scores, best, rate, weights):
    """Fill the weights of a row."""
    for i in range(scores.size):
        weights[i] = _exp((scores[i] - best) * rate)


@_exactly
def _drop_below(ranks, floor, weights):
    """Ids below `floor` weigh nothing."""
    for i in range(ranks.size):
        weights[i] = weights[i] if ranks[i] >= floor else _FLOAT(0)


@_summed
def _mass(weights):
    mass = _FLOAT(0)
    for i in range(weights.size):
        mass += weights[i]
    return mass


@_exactly
def _add_up(weights, sums):
    """Fill the sums of a row's weights by blocks; return the sum of all."""
    # A sum is a function of a slice: inside of this loop the compiler would not make it a vector's.
    total = 0.0
    for block in range(sums.size):
        sums[block] = _mass(weights[block * BLOCK : (block + 1) * BLOCK])
        total += sums[block]
    return total


@_summed
def _mass_of_scores(scores, best):
    mass = _FLOAT(0)
    for i in range(scores.size):
        mass += _exp(scores[i] - best)
    return mass


@_exactly
def _partition(scores, best):
    """Sum of exp(score - best) over a row; in float64 over long ones."""
    total = 0.0
    for start in range(0, scores.size, SPAN):
        total += _mass_of_scores(scores[start : start + SPAN], best)
    return total


@_exactly
def _invert(weights, sums, goal):
    """The first id whose running sum of weights exceeds the goal.

    Sums made in two orders may differ by rounding: where none exceeds it in its block, the last
    id of the block with a weight.
    """
    before, block = 0.0, 0
    while block < sums.size - 1 and before + sums[block] <= goal:
        before += sums[block]
        block += 1
    token = -1
    for i in range(block * BLOCK, (block + 1) * BLOCK):
        if weights[i] > _FLOAT(0):
            token = i
            before += weights[i]
            if before > goal:
                break
    return token


# Rows.


@_exactly
def draw_row(scores, uniform, temperature, top_k, top_p, scratch):
    """Draw an id from the scores of a row.

    Args:
        scores: float32 [W], W = `row_size(V)`; -inf at ids that are never drawn and past V.
        uniform: float32 in (0, 1), the first of `uniforms`.
        temperature: 0 takes the best id, the lowest of equals.
        top_k: as in `SampleConfig`; 0 keeps all ids.
        top_p: as in `SampleConfig`; 1 keeps all ids.
        scratch: int32 [3 W], overwritten.

    Returns:
        The id; -1 where a score is NaN or +inf, or none is finite. Then the best score, and the
        sum of exp(score - best) over all ids where it came about on the way, else 0.
    """
    width = scores.size
    ranks, weights = scratch[:width], scratch[width : 2 * width].view(_FLOAT)
    sums = scratch[2 * width : 2 * width + width // BLOCK].view(_FLOAT)
    low, finite, high = _rank_all(scores, ranks)
    if low < _WORST_RANK - _INT(1) or high > _BEST_RANK or high < _WORST_RANK:
        return -1, _NEVER, 0.0
    best = _score(high)
    if temperature == 0.0:
        return _first_at(ranks, high), best, 0.0
    _weigh(scores, best, min(_FLOAT(1.0 / temperature), _LARGEST), weights)
    total = _add_up(weights, sums)
    whole = total if temperature == 1.0 else 0.0
    floor, count = finite, _count_from(ranks, finite)
    if 0 < top_k < count:
        floor = _threshold(ranks, weights, floor, high, count, top_k, False)
    if top_p < 1.0:
        mass = _mass_from(ranks, weights, floor)
        floor = _threshold(ranks, weights, floor, high, mass, top_p * mass, True)
    if floor > finite:
        _drop_below(ranks, floor, weights)
        total = _add_up(weights, sums)
    token = _invert(weights, sums, uniform * total)
    return token, best, whole


@_exactly
def _confidence(scores, token, best, total, uniform, choice_temperature):
    """Log-probability of a token plus noise; NaN for the token -1."""
    if token < 0:
        return _FLOAT(np.nan)
    if total == 0.0:
        total = _partition(scores, best)
    noise = -math.log(-math.log(np.float64(uniform))) if choice_temperature != 0.0 else 0.0
    return _FLOAT(scores[token] - best - math.log(total) + choice_temperature * noise)


@_exactly
def _read_row(logits, size, forbidden, used, penalty, scores):
    """Copy a row; penalise the ids that it has used; take out the forbidden ones."""
    for i in range(size):
        scores[i] = logits[i]
    for i in range(size, scores.size):
        scores[i] = _NEVER
    for i in used:
        if i >= 0:  # from the original, as an id may be there twice
            score = logits[i]
            scores[i] = score / penalty if score > _FLOAT(0) else score * penalty
    for i in forbidden:
        scores[i] = _NEVER


def _draw(record):
    a = carray(record, 1)[0]
    width = _row_size(a.size)
    memory = carray(_ints(own_memory(record, a)), 4 * width)
    scores, rest = memory[:width].view(_FLOAT), memory[width:]
    forbidden = carray(_longs(a.forbidden), a.forbids)
    while True:
        first = next_piece(record) * a.piece
        if first >= a.rows:
            return
        for row in range(first, min(a.rows, first + a.piece)):
            _draw_one(a, row, forbidden, scores, rest)


@_exactly
def _draw_one(a, row, forbidden, scores, memory):
    """Draw a row of the block, and rate it where that is wanted."""
    n = a.offset + row
    used = carray(_longs(a.history + 8 * a.used * n), a.used)
    logits = carray(_floats(a.logits + 4 * a.stride * row), a.size)
    _read_row(logits, a.size, forbidden, used, _FLOAT(a.penalty), scores)
    seed, item, position = _longs(a.seed)[n], _longs(a.item)[n], _longs(a.position)[n]
    for_token, for_choice = uniforms(seed, item, position, a.packed)
    token, best, total = draw_row(scores, for_token, a.temperature, a.top_k, a.top_p, memory)
    _longs(a.tokens)[n] = token
    if a.confidence != 0:
        choice = a.choice_temperature
        _floats(a.confidence)[n] = _confidence(scores, token, best, total, for_choice, choice)


DRAW = Kernel(
    _draw,
    ("logits", "stride", "size", "rows", "piece", "offset", "seed", "item", "position", "packed")
    + ("top_k", "forbidden", "forbids", "history", "used", "tokens", "confidence"),
    ("temperature", "top_p", "choice_temperature", "penalty"),
)
"""Draw the rows of a block, and rate them.

`logits` is float32, rows of `size` = V that begin every `stride` elements; `rows` of them, of which
a thread takes `piece` at a time. Its row 0 is row `offset` of `seed`, `item`, `position`, `tokens`
(int64 [N]), `confidence` (float32 [N], or address 0) and `history` (int64 [N, used], ids that are
penalised, negative for none). `forbidden` is int64 [forbids]. A thread has int32 [4 W] of memory,
W = `row_size(size)`. The rest is as in `draw_row`.
"""


# Closing.


@_exactly
def close_rows(confidence, counts, closing, ranks, closes):
    """Close the most confident rows of each item; of equals the first, NaN last.

    Args:
        confidence: float32 [N].
        counts: int64 [I], rows of each item.
        closing: int64 [I], how many of them close.
        ranks: int32 [N], overwritten.
        closes: bool [N], written.
    """
    for i in range(confidence.size):
        ranks[i] = _rank(_NEVER if np.isnan(confidence[i]) else confidence[i])
    start = 0
    for i in range(counts.size):
        end = start + counts[i]
        _close_item(ranks[start:end], closing[i], closes[start:end])
        start = end


@_exactly
def _close_item(ranks, closing, closes):
    low, high = _MAGNITUDE, _INT(-_MAGNITUDE)
    for rank in ranks:
        low, high = min(low, rank), max(high, rank)
    floor = low
    if 0 < closing < ranks.size:
        floor = _threshold(ranks, ranks.view(_FLOAT), low, high, ranks.size, closing, False)
    above = _count_from(ranks, _INT(floor + _INT(1))) if closing else 0
    missing = closing - above
    for i in range(ranks.size):
        is_equal = ranks[i] == floor
        closes[i] = closing > 0 and (ranks[i] > floor or (is_equal and missing > 0))
        missing -= is_equal
