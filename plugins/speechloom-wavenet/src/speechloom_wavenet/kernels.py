"""The compiled inner loop of the sampler: one call makes a block of samples for some items.

The cost is reading the weights: a network of 3 million reads 12 MB for every sample. They lie
in panels of 64 outputs in the order of use, so that they stream from the cache, and eight vector
registers hold a panel's sums while it is read. That inner product is written in LLVM's vector
instructions, as numba's own loops keep sums in memory. A sum is formed in one order whatever the
batch is, so that an item's samples do not depend on its neighbours.

All are in this file, as numba's cache on disk sees changes of a function's own file only.
"""
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, no-untyped-call"
# mypy: disable-error-code="call-arg"
# The types of compiled functions are numba's; their docstrings say them.

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from speechloom.ops.masked_decode.cpu_kernels import draw_row, row_size, uniforms
from speechloom.ops.native import compiled

PANEL = 64
"""Outputs that are summed together: eight registers of eight."""
LANES = 8
TILE = 64
"""Inputs after which the next item takes its turn: a tile of 16 kB stays in the first cache."""
MULAW, LOGISTIC, GAUSSIAN = 0, 1, 2

_FLOAT, _INT = np.float32, np.int32
_ROOT_HALF = _FLOAT(math.sqrt(0.5))
_LOG2_E, _ROUND = _FLOAT(1.4426950408889634), _FLOAT(1.5 * 2.0**23)
_LN2_HIGH, _LN2_LOW = _FLOAT(0.693359375), _FLOAT(-2.12194440e-4)
_TAYLOR = tuple(_FLOAT(1.0 / math.factorial(n)) for n in (6, 5, 4, 3, 2))
_BIAS, _EXPONENT = _INT(127), _INT(23)
_STEEPEST = _FLOAT(40.0)


_exactly = compiled()
_fused = compiled(("contract",))


def padded(outputs: int) -> int:
    """Outputs in whole panels."""
    return -(-outputs // PANEL) * PANEL


_whole = _exactly(padded)
_row_width = _exactly(row_size)


# The inner product.


@intrinsic
def _add_products(typing_context, sums, at, weights, first, inputs, start, count):
    """sums[at : at + 64] += weights[first + 64 i + j] * inputs[start + i], for i < count.

    All three are float32 [N], weights aligned to 32 bytes at `first`; or weights are bfloat16 as
    `sampler` packs them, uint16 [N].
    """
    signature = types.void(sums, types.intp, weights, types.intp, inputs, types.intp, types.intp)
    read = _read_halves if weights.dtype == types.uint16 else _read_floats

    def generate(context, builder, signature, arguments):
        def pointer(index):
            array = context.make_array(signature.args[index])(context, builder, arguments[index])
            return builder.gep(array.data, [arguments[index + 1]])

        total, weight, value = pointer(0), pointer(2), pointer(4)
        registers = range(PANEL // LANES)
        held = [cgutils.alloca_once(builder, _VECTOR) for _ in registers]
        for register in registers:
            place = _lanes(builder, total, register * LANES, _VECTOR)
            builder.store(builder.load(place, align=4), held[register])
        with cgutils.for_range(builder, arguments[6]) as loop:
            spread = _spread(builder, builder.load(builder.gep(value, [loop.index])))
            size = context.get_constant(types.intp, PANEL)
            row = builder.gep(weight, [builder.mul(loop.index, size)])
            for register, factor in enumerate(read(builder, row)):
                product = builder.fmul(factor, spread, flags=["contract"])
                added = builder.fadd(builder.load(held[register]), product, flags=["contract"])
                builder.store(added, held[register])
        for register in registers:
            place = _lanes(builder, total, register * LANES, _VECTOR)
            builder.store(builder.load(held[register]), place, align=4)
        return context.get_dummy_value()

    return signature, generate


_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)


def _lanes(builder, base, offset, vector):
    """A pointer to a vector, `offset` elements behind a pointer to elements."""
    place = builder.gep(base, [ir.Constant(ir.IntType(64), offset)])
    return builder.bitcast(place, vector.as_pointer())


def _spread(builder, scalar):
    """A vector of one value."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    lane = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(lane, nothing, ir.Constant(_WORDS, [0] * LANES))


def _read_floats(builder, row):
    """The vectors of a panel's row, one after the other."""
    for offset in range(0, PANEL, LANES):
        yield builder.load(_lanes(builder, row, offset, _VECTOR), align=4)


def _read_halves(builder, row):
    """The same of bfloat16: a word holds a lane of one vector low and of the next one high."""
    half, high = (ir.Constant(_WORDS, [n] * LANES) for n in (16, 0xFFFF0000))
    for offset in range(0, PANEL, 2 * LANES):
        words = builder.load(_lanes(builder, row, offset, _WORDS), align=4)
        yield builder.bitcast(builder.shl(words, half), _VECTOR)
        yield builder.bitcast(builder.and_(words, high), _VECTOR)


@_exactly
def _accumulate(sums, weights, first, inputs, start, count, outputs, items, width, stride):
    """sums[b] += weights @ inputs[b] for all items; weights are panels of `count` rows.

    Tile by tile in the order of memory; every item adds the products of a sum in the same order.
    """
    height = TILE if items > 1 else count
    for panel in range(0, outputs, PANEL):
        for tile in range(0, count, height):
            size = min(height, count - tile)
            for item in range(items):
                _add_products(
                    sums,
                    item * width + panel,
                    weights,
                    first + panel * count + tile * PANEL,
                    inputs,
                    item * stride + start + tile,
                    size,
                )


# The nonlinearities.


@_fused
def _exp(x):
    """Exponential function of a float32 in [-40, 40], to 2 units of the last place."""
    shifted = x * _LOG2_E + _ROUND  # the sum's last bits are the exponent
    power = shifted - _ROUND
    rest = x - power * _LN2_HIGH
    rest = rest - power * _LN2_LOW
    series = _TAYLOR[0]
    series = series * rest + _TAYLOR[1]
    series = series * rest + _TAYLOR[2]
    series = series * rest + _TAYLOR[3]
    series = series * rest + _TAYLOR[4]
    series = series * rest * rest + rest + _FLOAT(1)
    scale = _INT(_INT(_FLOAT(shifted).view(_INT) + _BIAS) << _EXPONENT).view(_FLOAT)
    return series * scale


@_fused
def gate(sums, half, gated):
    """gated[i] = tanh(sums[i]) * sigmoid(sums[half + i]), each to 3e-7.

    Args:
        sums: float32 [>= 2 half].
        half: how many.
        gated: float32 [>= half], written.
    """
    for i in range(half):
        value = min(max(_FLOAT(2) * sums[i], -_STEEPEST), _STEEPEST)
        opening = min(max(sums[half + i], -_STEEPEST), _STEEPEST)
        rising = _exp(value)
        # tanh(x) sigmoid(y) with one division
        gated[i] = (rising - _FLOAT(1)) / ((rising + _FLOAT(1)) * (_FLOAT(1) + _exp(-opening)))


# Draws.


@_exactly
def _draw(kind, outputs, mixtures, seed, item, position, stage, temperature, floor, row, scratch):
    """Draw one sample from a distribution; see `distribution.draw`, which it follows.

    Returns:
        The class, or the value; NaN where the distribution is not one.
    """
    first, second = uniforms(seed, item, position, stage)
    if kind == GAUSSIAN:
        away = math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)
        return _around(outputs[0], outputs[1], away, temperature, floor)
    for i in range(mixtures):
        row[i] = outputs[i]
    chosen, _, _ = draw_row(row, first, temperature, 0, 1.0, scratch)
    if kind == MULAW or chosen < 0:
        return _FLOAT(chosen) if chosen >= 0 else _FLOAT(np.nan)
    away = math.log(np.float64(second)) - math.log1p(-np.float64(second))
    mean, log_scale = outputs[mixtures + chosen], outputs[2 * mixtures + chosen]
    return _around(mean, log_scale, away, temperature, floor)


@_exactly
def _around(mean, log_scale, away, temperature, floor):
    value = mean + temperature * math.exp(max(log_scale, floor)) * away
    return _FLOAT(min(max(value, -1.0), 1.0))


# The parts of a layer.


@_exactly
def _enter(kind, entry, current, state, at, residual, skip):
    """The first matrix, at the beginning of a state: [residual, skip sum]."""
    bias = entry.shape[0] - 1
    index = _INT(current) if kind == MULAW and current >= _FLOAT(0) else _INT(0)
    factor = _FLOAT(1) if kind == MULAW else current
    for i in range(residual):
        state[at + i] = entry[index, i] * factor + entry[bias, i]
    for i in range(residual, residual + skip):
        state[at + i] = _FLOAT(0)


@_exactly
def _remember(history, place, ring, now, state, count, width, residual):
    """Put the layer's input where its taps will find it."""
    at = place + (now % ring) * count * residual
    for item in range(count):
        for i in range(residual):
            history[at + item * residual + i] = state[item * width + i]


@_exactly
def _condition(conditioning, t, layer, gates, sums, count, width):
    for item in range(count):
        for i in range(gates):
            sums[item * width + i] = conditioning[t, item, layer, i]
        for i in range(gates, width):
            sums[item * width + i] = _FLOAT(0)


@_fused
def _carry(state, at, residual, skip, biases, offset):
    """What goes past the layer: the scaled residual and the skip sum, with the biases."""
    for i in range(residual):
        state[at + i] = state[at + i] * _ROOT_HALF + biases[offset + i]
    for i in range(residual, residual + skip):
        state[at + i] = state[at + i] + biases[offset + i]


@_exactly
def _positive(sums, start, width, relu, size, count):
    for item in range(count):
        for i in range(size):
            relu[item * size + i] = max(sums[item * width + start + i], _FLOAT(0))


@_exactly
def _start(sums, biases, offset, width, count):
    for item in range(count):
        for i in range(width):
            sums[item * width + i] = biases[offset + i]


@_exactly
def _layers(
    shape, dilations, places, weights, biases, conditioning, t, now, history, state, sums, gated
):
    """All layers for one sample; where in weights and biases they end. See `make_samples`."""
    _, taps, residual, gates, skip, _, _ = shape
    half, sums_width, state_width = gates // 2, _whole(gates), _whole(residual + skip)
    count = state.size // state_width
    at, offset = 0, 0
    for layer in range(dilations.size):
        dilation, place = dilations[layer], places[layer]
        ring = (taps - 1) * dilation + 1
        _remember(history, place, ring, now, state, count, state_width, residual)
        _condition(conditioning, t, layer, gates, sums, count, sums_width)
        for tap in range(taps):
            when = (now - (taps - 1 - tap) * dilation) % ring
            _accumulate(
                sums, weights, at, history, place + when * count * residual, residual,
                sums_width, count, sums_width, residual,
            )  # fmt: skip
            at += residual * sums_width
        for b in range(count):
            gate(sums[b * sums_width :], half, gated[b * half :])
            _carry(state, b * state_width, residual, skip, biases, offset)
        _accumulate(state, weights, at, gated, 0, half, state_width, count, state_width, half)
        at += half * state_width
        offset += state_width
    return at, offset


@_exactly
def _heads(shape, weights, at, biases, offset, state, hidden, relu, last):
    """The hidden and the last matrix behind the skip sums."""
    _, _, residual, _, skip, channels, _ = shape
    state_width, hidden_width, last_width = _whole(residual + skip), _whole(skip), _whole(channels)
    count = state.size // state_width
    _positive(state, residual, state_width, relu, skip, count)
    _start(hidden, biases, offset, hidden_width, count)
    _accumulate(hidden, weights, at, relu, 0, skip, hidden_width, count, hidden_width, skip)
    _positive(hidden, 0, hidden_width, relu, skip, count)
    _start(last, biases, offset + hidden_width, last_width, count)
    _accumulate(
        last, weights, at + skip * hidden_width, relu, 0, skip, last_width, count, last_width, skip
    )


# The loop.


@_exactly
def make_samples(
    shape,
    dilations,
    weights,
    biases,
    entry,
    conditioning,
    history,
    places,
    current,
    forced,
    position,
    seed,
    items,
    packed,
    temperature,
    floor,
    samples,
    outputs,
):
    """Make the samples `position` .. `position + T` - 1 of some items.

    Args:
        shape: (kind, taps, residual, gate, skip, channels, mixtures): `kind` is MULAW, LOGISTIC or
            GAUSSIAN, `channels` those of a distribution, `mixtures` its logits.
        dilations: int64 [L].
        weights: float32 or packed bfloat16, panels in the order of use: per layer the taps, oldest
            first, and the projections; then the hidden and the last matrix.
        biases: float32, per layer those of the projections, padded; then of hidden and last.
        entry: float32 [classes + 1, R] or [2, R]: the first matrix's rows, its bias last.
        conditioning: float32 [T, B, L, G], with the biases of the dilated convolutions.
        history: float32, per layer [ring, B, R], ring = reach + 1: the layer's inputs; written.
        places: int64 [L], where each layer's part of `history` begins.
        current: float32 [B], what precedes: a class or a value; written.
        forced: float32 [B, T], samples that are fed back instead of the drawn ones; [B, 0] for
            none.
        position: of the first sample.
        seed: int64 [B].
        items: int64 [B], number of each item in its request.
        packed: the stage, as noise keys hold it.
        temperature: see `distribution.draw`.
        floor: least logarithm of a scale.
        samples: float32 [B, T], written: classes or values.
        outputs: float32 [T, B, C], the distributions; written unless T is 0.
    """
    kind, _, residual, gates, skip, channels, mixtures = shape
    count, block = current.size, samples.shape[1]
    state_width, last_width = _whole(residual + skip), _whole(channels)
    sums = np.zeros(count * _whole(gates), _FLOAT)
    gated = np.zeros(count * (gates // 2), _FLOAT)
    state = np.zeros(count * state_width, _FLOAT)
    hidden = np.zeros(count * _whole(skip), _FLOAT)
    relu = np.zeros(count * skip, _FLOAT)
    last = np.zeros(count * last_width, _FLOAT)
    row = np.full(_row_width(mixtures), -np.inf, _FLOAT)
    scratch = np.empty(3 * row.size, _INT)
    for t in range(block):
        now = position + t
        for b in range(count):
            _enter(kind, entry, current[b], state, b * state_width, residual, skip)
        at, offset = _layers(
            shape, dilations, places, weights, biases, conditioning, t, now, history, state, sums,
            gated,
        )  # fmt: skip
        _heads(shape, weights, at, biases, offset, state, hidden, relu, last)
        for b in range(count):
            drawn = last[b * last_width : b * last_width + channels]
            if outputs.size:
                outputs[t, b, :] = drawn
            sample = _draw(
                kind, drawn, mixtures, seed[b], items[b], now, packed, temperature, floor, row,
                scratch,
            )  # fmt: skip
            samples[b, t] = sample
            current[b] = forced[b, t] if forced.shape[1] else sample
