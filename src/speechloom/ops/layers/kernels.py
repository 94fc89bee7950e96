"""The compiled loops of `cpu.py`: products with fused ends, norms, convolution, attention.

A product runs over panels: a panel is PANEL outputs of a layer, its weights in the order in which
they are read. ROWS rows of inputs meet a panel in a tile whose sums all stay in vector registers.
The tile is written in LLVM's vector instructions, since a loop of numba keeps its sums in memory;
all around it is numba. A sum is formed in one order, whatever rows are beside it and whatever
thread makes it: a row gives the same bits alone and in any batch.

All kernels are in this file, as numba's cache on disk sees changes of a function's own file only.
Addresses are int64, strides are in bytes.
"""
# mypy: disable-error-code="import-untyped, untyped-decorator, no-untyped-def, no-untyped-call"
# mypy: disable-error-code="call-arg, attr-defined, misc"
# The types of compiled functions are numba's; their docstrings say them.

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from speechloom.ops.native import (
    Kernel,
    address_of,
    compiled,
    next_piece,
    own_memory,
    pointer_to,
)


def features() -> frozenset[str]:
    """Names of the instruction sets that the loops are compiled for, as LLVM calls them.

    They are numba's: its settings (NUMBA_CPU_FEATURES, NUMBA_ENABLE_AVX) may leave out some of the
    processor's, and code that needs them would not compile.
    """
    _, _, named = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(name[1:] for name in named.split(",") if name.startswith("+"))


LANES = 16 if "avx512f" in features() else 8
"""Numbers of a vector register."""
VECTORS = 4 if LANES == 16 else 2
"""Registers of a row of a tile: with ROWS rows, as many sums as the processor has room for."""
HAS_HALF = {"avx512f", "avx512bf16"} <= features()
"""Whether the processor rounds to bfloat16 and multiplies it."""
ROWS = 6
"""Rows of a tile."""
PANEL = LANES * VECTORS
"""Outputs of a panel."""
CHUNK = 21 * ROWS
"""Rows that go through a panel before the next one, so that both stay in a core's cache."""
LINE = 64
"""Bytes of a line of the cache."""

PLAIN, SILU, GLU, SWIGLU, ADD = range(5)
"""What is done to a product: nothing, x sigmoid(x), a sigmoid(b), a b sigmoid(b), or the product
is scaled and added to what is there."""

_FLOAT, _INT, _SHORT = np.float32, np.int32, np.uint16
_SIGN, _EXPONENT, _HALF = _INT(31), _INT(23), _INT(16)
_LOG2_E, _ROUND = _FLOAT(1.4426950408889634), _FLOAT(1.5 * 2.0**23)
_LN2_HIGH, _LN2_LOW = _FLOAT(0.693359375), _FLOAT(-2.12194440e-4)
_BIAS = _INT(127)
_LOWEST, _HIGHEST = _FLOAT(-87.0), _FLOAT(89.0)
_SERIES = tuple(map(_FLOAT, (0.008312501, 0.04189033, 0.16667116, 0.49999231)))
"""Coefficients of x^5 .. x^2 that make the smallest relative error, 1.05e-7, within log(2) / 2."""
_ZERO, _ONE = _FLOAT(0), _FLOAT(1)


_exactly = compiled()
_fused = compiled(("contract",))
_summed = compiled(("contract", "nsz", "reassoc"))


# Instructions that numba has no words for.


_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)


class _BFloat(ir.Type):
    """LLVM's bfloat, for which llvmlite has no class."""

    intrinsic_name = "bf16"

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_FLOATS = ir.VectorType(_F32, LANES)
_WORDS = ir.VectorType(_I32, LANES)
_PAIRS = ir.VectorType(_BFloat(), 2 * LANES)


def _declared(builder: ir.IRBuilder, name: str, result: ir.Type, *arguments: ir.Type) -> Any:
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def _at(builder: ir.IRBuilder, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: ir.IRBuilder, address: Any, kind: ir.Type) -> Any:
    value = builder.load(_at(builder, address, kind))
    value.align = 4  # of rows that begin anywhere
    return value


def _everywhere(builder: ir.IRBuilder, value: Any, kind: ir.VectorType) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, value, _I32(0))
    zeros = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    return builder.shuffle_vector(one, undefined, zeros)


def _multiply_add(builder: ir.IRBuilder, half: bool) -> Callable[[Any, Any, Any], Any]:
    """A function of (sums, one input everywhere, weights)."""
    if half:
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * LANES}"
        dot = _declared(builder, name, _FLOATS, _FLOATS, _PAIRS, _PAIRS)
        return lambda sums, x, weights: builder.call(dot, [sums, x, weights])
    name = f"llvm.fma.v{LANES}f32"
    fma = _declared(builder, name, _FLOATS, _FLOATS, _FLOATS, _FLOATS)
    return lambda sums, x, weights: builder.call(fma, [x, weights, sums])


def _tile_code(builder: ir.IRBuilder, arguments: Any, half: bool) -> None:
    """See `_tile`; `half` for pairs of bfloat16, each pair in the place of one float32."""
    x, x_stride, last, panel, start, out, out_stride, steps = arguments
    rows = []
    for row in range(ROWS):
        real = builder.select(builder.icmp_signed("<", _I64(row), last), _I64(row), last)
        rows.append(builder.add(x, builder.mul(real, x_stride)))
    first = [
        _load(builder, builder.add(start, _I64(4 * LANES * vector)), _FLOATS)
        for vector in range(VECTORS)
    ]
    before = builder.block
    loop = builder.function.append_basic_block("products")
    done = builder.function.append_basic_block("made")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_I64)
    sums = [[builder.phi(_FLOATS) for _ in range(VECTORS)] for _ in range(ROWS)]
    weights = []
    place = builder.add(panel, builder.mul(step, _I64(4 * PANEL)))
    for vector in range(VECTORS):
        address = builder.add(place, _I64(4 * LANES * vector))
        weights.append(_load(builder, address, _PAIRS if half else _FLOATS))
    multiply_add, offset = _multiply_add(builder, half), builder.mul(step, _I64(4))
    new = []
    for row in range(ROWS):
        value = _load(builder, builder.add(rows[row], offset), _I32 if half else _F32)
        spread = _everywhere(builder, value, _WORDS if half else _FLOATS)
        spread = builder.bitcast(spread, _PAIRS) if half else spread
        new.append([multiply_add(sums[row][v], spread, weights[v]) for v in range(VECTORS)])
    following = builder.add(step, _I64(1))
    step.add_incoming(_I64(0), before)
    step.add_incoming(following, loop)
    for row in range(ROWS):
        for vector in range(VECTORS):
            sums[row][vector].add_incoming(first[vector], before)
            sums[row][vector].add_incoming(new[row][vector], loop)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, done)
    builder.position_at_end(done)
    for row in range(ROWS):
        place = builder.add(out, builder.mul(out_stride, _I64(row)))
        for vector in range(VECTORS):
            address = builder.add(place, _I64(4 * LANES * vector))
            builder.store(new[row][vector], _at(builder, address, _FLOATS)).align = 4


_TILE = types.void(*[types.int64] * 8)


@intrinsic
def _tile(typing_context, x, x_stride, last, panel, start, out, out_stride, steps):
    """out[r, n] = start[n] + sum over s of x[r, s] panel[s, n], for ROWS rows and PANEL outputs.

    All are addresses and strides in bytes; `x` is float32 [last + 1, steps] (rows past the last
    repeat it), `panel` float32 [steps, PANEL], `start` [PANEL] and `out` [ROWS, PANEL] float32.
    """

    def code(context, builder, signature, arguments):
        _tile_code(builder, arguments, half=False)
        return context.get_dummy_value()

    return _TILE, code


@intrinsic
def _half_tile(typing_context, x, x_stride, last, panel, start, out, out_stride, steps):
    """As `_tile`, with bfloat16: `x` [last + 1, steps, 2], `panel` [steps, PANEL, 2]."""

    def code(context, builder, signature, arguments):
        if HAS_HALF:  # else it is never reached, and could not be compiled
            _tile_code(builder, arguments, half=True)
        return context.get_dummy_value()

    return _TILE, code


@intrinsic
def _halve(typing_context, source, target):
    """Round LANES float32 at an address to bfloat16 at another."""

    def code(context, builder, signature, arguments):
        if HAS_HALF:  # as above
            halves = ir.VectorType(_BFloat(), LANES)
            values = builder.fptrunc(_load(builder, arguments[0], _FLOATS), halves)
            builder.store(values, _at(builder, arguments[1], halves)).align = 2
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@intrinsic
def _fetch(typing_context, address):
    """Ask for a line of memory to be brought near, without waiting for it."""

    def code(context, builder, signature, arguments):
        byte = ir.IntType(8).as_pointer()
        call = _declared(builder, "llvm.prefetch.p0", ir.VoidType(), byte, _I32, _I32, _I32)
        to_read, second_level, data = _I32(0), _I32(2), _I32(1)
        place = builder.inttoptr(arguments[0], byte)
        builder.call(call, [place, to_read, second_level, data])
        return context.get_dummy_value()

    return types.void(types.int64), code


_floats, _words = pointer_to(types.float32), pointer_to(types.int32)
_shorts = pointer_to(types.uint16)


# Numbers.


@_exactly
def _whole(count, unit):
    return -(-count // unit) * unit


@_fused
def _exp(x):
    """Exponential function of a float32, to 3 units of the last place between -87 and 88.

    Below it stays what it is there, above 88.4 it is infinite; NaN stays NaN.
    """
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    shifted = x * _LOG2_E + _ROUND  # the sum's last bits are the exponent
    power = shifted - _ROUND
    rest = x - power * _LN2_HIGH
    rest = rest - power * _LN2_LOW
    series = _SERIES[0]
    series = series * rest + _SERIES[1]
    series = series * rest + _SERIES[2]
    series = series * rest + _SERIES[3]
    series = series * rest * rest + rest + _ONE
    return series * _INT(_INT(_FLOAT(shifted).view(_INT) + _BIAS) << _EXPONENT).view(_FLOAT)


@_exactly
def _to_half(x):
    """The bits of the bfloat16 that is nearest, of two the even one."""
    bits = _FLOAT(x).view(_INT)
    odd = _INT(_INT(bits >> _HALF) & _INT(1))
    near = _INT(_INT(bits + _INT(0x7FFF)) + odd)
    near = near if x == x else _INT(0x7FC00000)
    return _SHORT(near >> _HALF)


@_exactly
def _from_half(bits):
    return _INT(_INT(bits) << _HALF).view(_FLOAT)


# Rows. Addresses are int64; `half` says that what is there is bfloat16.


@_exactly
def _read(address, count, half, row):
    """Read a row into float32."""
    if half:
        shorts = _shorts(address)
        for i in range(count):
            row[i] = _from_half(shorts[i])
    else:
        floats = _floats(address)
        for i in range(count):
            row[i] = floats[i]


@_exactly
def _write(row, count, half, address):
    """Write a row of float32."""
    if half:
        whole = count // LANES * LANES if HAS_HALF else 0
        for i in range(0, whole, LANES):
            _halve(address_of(row) + 4 * i, address + 2 * i)
        shorts = _shorts(address)
        for i in range(whole, count):
            shorts[i] = _to_half(row[i])
    else:
        floats = _floats(address)
        for i in range(count):
            floats[i] = row[i]


@_fused
def _add_row(row, other, count, scale):
    for i in range(count):
        row[i] = row[i] + scale * other[i]


@_fused
def _silu_row(row, count):
    for i in range(count):
        row[i] = row[i] / (_ONE + _exp(-row[i]))


@_summed
def _mean(row, count):
    total = _ZERO
    for i in range(count):
        total += row[i]
    return total / _FLOAT(count)


@_summed
def _mean_square(row, count, centre):
    total = _ZERO
    for i in range(count):
        total += (row[i] - centre) * (row[i] - centre)
    return total / _FLOAT(count)


@_fused
def _scale_row(row, count, centre, rate, gain, bias, result):
    for i in range(count):
        result[i] = (row[i] - centre) * rate * gain[i] + bias[i]


@_exactly
def _normalise(row, count, centred, epsilon, gain, bias, result):
    centre = _mean(row, count) if centred else _ZERO
    rate = _ONE / _FLOAT(math.sqrt(_mean_square(row, count, centre) + _FLOAT(epsilon)))
    _scale_row(row, count, centre, rate, gain, bias, result)


# Kernels.


@_fused
def _gate_row(row, swish):
    """Multiply the first half of a panel by the sigmoid of the second; `swish` by that, too."""
    for i in range(PANEL // 2):
        gate = row[PANEL // 2 + i]
        row[i] = row[i] * (gate if swish else _ONE) / (_ONE + _exp(-gate))


@_exactly
def _finish_tile(tile, rows, columns, end, scale, half_out, out, out_stride):
    """What comes after a product: of the PANEL sums of each row `columns` outputs are wanted."""
    if end == SILU:
        _silu_row(_floats(tile), rows * PANEL)
    for row in range(rows):
        sums = _floats(tile + 4 * PANEL * row)
        if end == ADD:
            _add_row(_floats(out), sums, columns, scale)
        else:
            if end == GLU or end == SWIGLU:
                _gate_row(sums, end == SWIGLU)
            _write(sums, columns, half_out, out)
        out += out_stride


@_exactly
def _chunk_of_linear(a, first, last, panel, tile):
    """Send some rows through a panel, and have the next panel brought near on the way."""
    half, steps, end, half_out = a.half, a.steps, a.end, a.half_out
    x_stride, out_stride, scale = a.x_stride, a.out_stride, _FLOAT(a.scale)
    size = steps * 4 * PANEL
    weight, bias = a.weight + panel * size, a.bias + 4 * PANEL * panel
    width = PANEL // 2 if end == GLU or end == SWIGLU else PANEL
    columns = min(width, a.columns - panel * width)
    x, out = a.x + first * x_stride, a.out + first * out_stride
    out += panel * width * (2 if half_out else 4)
    fetches = size // LINE // -(-(last - first) // ROWS) + 1
    ahead = weight + size if panel + 1 < a.panels else weight
    for start in range(first, last, ROWS):
        for _ in range(fetches):
            _fetch(ahead)
            ahead += LINE
        rows = min(ROWS, last - start)
        if half:
            _half_tile(x, x_stride, rows - 1, weight, bias, tile, 4 * PANEL, steps)
        else:
            _tile(x, x_stride, rows - 1, weight, bias, tile, 4 * PANEL, steps)
        _finish_tile(tile, rows, columns, end, scale, half_out, out, out_stride)
        x += ROWS * x_stride
        out += ROWS * out_stride


def _linear(record):
    a = carray(record, 1)[0]
    tile = own_memory(record, a)
    chunks = -(-a.rows // CHUNK)
    while True:
        piece = next_piece(record)
        if piece >= chunks * a.panels:
            return
        first = piece % chunks * CHUNK
        _chunk_of_linear(a, first, min(a.rows, first + CHUNK), piece // chunks, tile)


def _norm(record):
    a = carray(record, 1)[0]
    result = _floats(own_memory(record, a))
    while True:
        first = next_piece(record) * CHUNK
        if first >= a.rows:
            return
        for row in range(first, min(a.rows, first + CHUNK)):
            x = _floats(a.x + 4 * a.columns * row)
            gain, bias = _floats(a.gain), _floats(a.bias)
            _normalise(x, a.columns, a.centred, a.epsilon, gain, bias, result)
            out = a.out + a.columns * row * (2 if a.half_out else 4)
            _write(result, a.columns, a.half_out, out)


# Each of these is vector code where no two rows are the same memory.


@_fused
def _begin_sum(row, start, x, taps, count):
    for i in range(count):
        row[i] = start[i] + x[i] * taps[i]


@_fused
def _add_product(row, x, taps, count):
    for i in range(count):
        row[i] = row[i] + x[i] * taps[i]


@_fused
def _add_products(row, x, taps, y, more, count):
    for i in range(count):
        row[i] = row[i] + x[i] * taps[i] + y[i] * more[i]


@_exactly
def _mix_frames(a, frame, row):
    """The depthwise convolution at a frame; frames outside are zero. Two taps go at once."""
    columns, size = a.columns, 4 * a.columns
    first = frame - a.kernel // 2
    low, high = max(0, -first), min(a.kernel, a.rows - first)
    x, taps = a.x + first * size, a.taps
    own, tap = _floats(x + low * size), _floats(taps + low * size)
    _begin_sum(row, _floats(a.tap_bias), own, tap, columns)
    low += 1
    if (high - low) % 2:
        _add_product(row, _floats(x + low * size), _floats(taps + low * size), columns)
        low += 1
    for t in range(low, high, 2):
        here, weight = x + t * size, taps + t * size
        own, other = _floats(here), _floats(here + size)
        _add_products(row, own, _floats(weight), other, _floats(weight + size), columns)


def _convolve(record):
    a = carray(record, 1)[0]
    scratch = own_memory(record, a)
    row, result = _floats(scratch), _floats(scratch + 4 * _whole(a.columns, PANEL))
    gain, bias = _floats(a.gain), _floats(a.bias)
    while True:
        first = next_piece(record) * CHUNK
        if first >= a.rows:
            return
        for frame in range(first, min(a.rows, first + CHUNK)):
            _mix_frames(a, frame, row)
            if a.silu_first:
                _silu_row(row, a.columns)
            _normalise(row, a.columns, a.centred, a.epsilon, gain, bias, result)
            if not a.silu_first:
                _silu_row(result, a.columns)
            out = a.out + a.columns * frame * (2 if a.half_out else 4)
            _write(result, a.columns, a.half_out, out)


# Attention. Keys lie in panels of frames, values in panels of numbers, as weights do.


@_fused
def _turn(row, dim, cos, sin, scale):
    """Turn the halves of a row by its position, and scale it."""
    half = dim // 2
    for i in range(half):
        first, second = row[i], row[half + i]
        row[i] = (first * cos[i] - second * sin[i]) * scale
        row[half + i] = (second * cos[i] + first * sin[i]) * scale


@_fused
def _scale_all(row, dim, scale):
    for i in range(dim):
        row[i] = row[i] * scale


@_exactly
def _read_turned(a, address, frame, scale, row):
    _read(address, a.dim, a.half, row)
    if a.cos == 0:
        _scale_all(row, a.dim, scale)
        return
    table = 4 * (a.dim // 2) * frame
    _turn(row, a.dim, _floats(a.cos + table), _floats(a.sin + table), scale)


@_exactly
def _pair(first, second):
    """Two bfloat16 as one word."""
    return _INT(_INT(_to_half(first)) | _INT(_INT(_to_half(second)) << _HALF))


@_exactly
def _put_key(row, dim, half, column, panel):
    """A frame's key into its panel, where the numbers of a head lie one after the other."""
    if half:
        words = _words(panel)
        for i in range(dim // 2):
            words[i * PANEL + column] = _pair(row[2 * i], row[2 * i + 1])
    else:
        floats = _floats(panel)
        for i in range(dim):
            floats[i * PANEL + column] = row[i]


@_exactly
def _put_values(row, other, dim, half, frame, frames, panels):
    """Values of a frame (`half`: of two) into panels of a head's numbers, frame after frame."""
    for first in range(0, dim, PANEL):
        width, panel = min(PANEL, dim - first), panels + 2 * first * _whole(frames, 2)
        if half:
            words = _words(panel + frame // 2 * 4 * PANEL)
            for i in range(width):
                words[i] = _pair(row[first + i], other[first + i])
        else:
            floats = _floats(panel + 2 * first * _whole(frames, 2) + frame * 4 * PANEL)
            for i in range(width):
                floats[i] = row[first + i]


@_exactly
def _pack_frame(a, head, frame, row):
    half, dim, frames = a.half, a.dim, a.frames
    size = 2 if half else 4
    place = head * a.head_stride + frame * a.row_stride
    keys = a.keys + (head * _whole(frames, PANEL) + frame // PANEL * PANEL) * dim * size
    _read_turned(a, a.q + place, frame, _FLOAT(a.scale), row)
    _write(row, dim, half, a.queries + (head * frames + frame) * dim * size)
    _read_turned(a, a.k + place, frame, _ONE, row)
    _put_key(row, dim, half, frame % PANEL, keys)


@_exactly
def _pack_values(a, head, frame, row, other):
    """Values of one frame, or in bfloat16 of two; nothing is the second of the last pair."""
    half, dim, frames = a.half, a.dim, a.frames
    panels = a.values + head * _whole(frames, 2) * _whole(dim, PANEL) * (2 if half else 4)
    place = a.v + head * a.v_head_stride + frame * a.v_row_stride
    _read(place, dim, half, row)
    if half and frame + 1 < frames:
        _read(place + a.v_row_stride, dim, half, other)
    else:
        for i in range(dim):
            other[i] = _ZERO
    _put_values(row, other, dim, half, frame, frames, panels)


def _pack_heads(record):
    a = carray(record, 1)[0]
    scratch = own_memory(record, a)
    row, other = _floats(scratch), _floats(scratch + 4 * _whole(a.dim, PANEL))
    pieces = -(-a.frames // PANEL)
    while True:
        piece = next_piece(record)
        if piece >= a.heads * pieces:
            return
        head, first = piece // pieces, piece % pieces * PANEL
        last = min(a.frames, first + PANEL)
        for frame in range(first, last):
            _pack_frame(a, head, frame, row)
        for frame in range(first, last, 2 if a.half else 1):
            _pack_values(a, head, frame, row, other)


@_exactly
def _rank(bits):
    """An int32 that sorts like the float32 of these bits; the other way round, too."""
    return _INT(bits ^ _INT(_INT(bits >> _SIGN) & _INT(0x7FFFFFFF)))


@_exactly
def _largest(row, count):
    """The largest number; as integers, whose maximum the compiler turns into a vector's."""
    largest = _INT(-0x80000000)
    for i in range(count):
        largest = max(largest, _INT(_rank(_FLOAT(row[i]).view(_INT))))
    return _INT(_rank(largest)).view(_FLOAT)


@_summed
def _weigh(row, count, best):
    """Turn scores into weights, unscaled; return their sum."""
    total = _ZERO
    for i in range(count):
        weight = _exp(row[i] - best)
        row[i] = weight
        total += weight
    return total


@_exactly
def _weigh_rows(a, rows, scores, stride, weights, sums):
    """Weights of the frames for some rows; what is past the last frame weighs nothing."""
    for r in range(rows):
        row = _floats(scores + r * stride)
        sums[r] = _weigh(row, a.frames, _largest(row, a.frames))
        if a.half:
            row[a.frames] = _ZERO  # the second of the last pair
            _write(row, _whole(a.frames, 2), True, weights + r * stride)


@_exactly
def _attend_rows(a, head, first, scratch):
    """Mix the values for ROWS rows of a head, from row `first` on."""
    size = 2 if a.half else 4
    rows, stride = min(ROWS, a.frames - first), 4 * (_whole(a.frames, PANEL) + PANEL)
    tile = scratch
    sums = tile + 4 * ROWS * PANEL
    scores = sums + 4 * PANEL
    weights = scores + (ROWS * stride if a.half else 0)
    x = a.queries + (head * a.frames + first) * a.dim * size
    keys = a.keys + head * _whole(a.frames, PANEL) * a.dim * size
    for frame in range(0, a.frames, PANEL):
        panel, place = keys + frame * a.dim * size, scores + 4 * frame
        if a.half:
            _half_tile(x, a.dim * 2, rows - 1, panel, a.zeros, place, stride, a.dim // 2)
        else:
            _tile(x, a.dim * 4, rows - 1, panel, a.zeros, place, stride, a.dim)
    _weigh_rows(a, rows, scores, stride, weights, _floats(sums))
    for column in range(0, a.dim, PANEL):
        panel = a.values + (head * _whole(a.dim, PANEL) + column) * _whole(a.frames, 2) * size
        if a.half:
            pairs = (a.frames + 1) // 2
            _half_tile(weights, stride, rows - 1, panel, a.zeros, tile, 4 * PANEL, pairs)
        else:
            _tile(weights, stride, rows - 1, panel, a.zeros, tile, 4 * PANEL, a.frames)
        width = min(PANEL, a.dim - column)
        for r in range(rows):
            row = _floats(tile + 4 * PANEL * r)
            _scale_all(row, width, _ONE / _floats(sums)[r])
            place = ((first + r) * a.heads + head) * a.dim + column
            _write(row, width, a.half, a.out + place * size)


def _attend(record):
    a = carray(record, 1)[0]
    scratch = own_memory(record, a)
    rows = ROWS * 4
    pieces = -(-a.frames // rows)
    while True:
        piece = next_piece(record)
        if piece >= a.heads * pieces:
            return
        first = piece % pieces * rows
        for row in range(first, min(a.frames, first + rows), ROWS):
            _attend_rows(a, piece // pieces, row, scratch)


def scratch_bytes(columns: int, rows: int = 0) -> int:
    """Memory of one thread: a tile, a row of a panel, and some rows of so many numbers."""
    wide: int = _whole.py_func(columns, PANEL) + PANEL
    return 4 * ((ROWS + 1) * PANEL + rows * wide)


LINEAR = Kernel(
    _linear,
    ("half", "x", "x_stride", "weight", "bias", "out", "out_stride", "half_out")
    + ("rows", "columns", "panels", "steps", "end"),
    ("scale",),
)
"""x [rows, 2 or 1 times steps] to out [rows, columns], see `_chunk_of_linear`."""

NORM = Kernel(
    _norm,
    ("x", "gain", "bias", "out", "half_out", "rows", "columns", "centred"),
    ("epsilon",),
)
"""x [rows, columns], float32, to out; a row of scratch."""

CONVOLVE = Kernel(
    _convolve,
    ("x", "taps", "kernel", "tap_bias", "gain", "bias", "silu_first", "out", "half_out")
    + ("rows", "columns", "centred"),
    ("epsilon",),
)
"""x [rows, columns], float32, and taps [kernel, columns] to out; two rows of scratch."""

PACK_HEADS = Kernel(
    _pack_heads,
    ("half", "q", "k", "v", "row_stride", "head_stride", "v_row_stride", "v_head_stride")
    + ("cos", "sin", "queries", "keys", "values", "frames", "heads", "dim"),
    ("scale",),
)
"""q, k, v [heads, frames, dim], turned and scaled, to the order of ATTEND; two rows of scratch."""

ATTEND = Kernel(
    _attend,
    ("half", "queries", "keys", "values", "zeros", "out", "frames", "heads", "dim"),
)
"""What PACK_HEADS made to out [frames, heads, dim]; 2 ROWS rows of scratch, of frames."""
