"""The compiled layers: equal to the definition on every shape, whatever is beside a row."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.layers import ENDS, Layers, make, unavailable
from speechloom.ops.layers.torch_layers import TorchLayers

numba = pytest.importorskip("numba")  # nothing but the compiled layers is tested here
if unavailable("compiled", torch.float32, "cpu") is not None:
    pytest.skip("this processor is without AVX2", allow_module_level=True)
from speechloom.ops import native, team  # noqa: E402
from speechloom.ops.layers import kernels  # noqa: E402

FLOAT, HALF, DOUBLE = torch.float32, torch.bfloat16, torch.float64
NAN, INF = float("nan"), float("inf")
ROWS = [1, 2, 5, 6, 7, 125, 127, 500]  # about a tile, and about a chunk
INPUTS = [1, 2, 3, 17, 64, 513]
OUTPUTS = [1, 2, 31, 32, 33, 63, 64, 65, 130]  # about a panel
DIMS = [2, 16, 48, 64, 80, 128]
FRAMES = [1, 2, 63, 64, 65, 129]
DEFINITION = TorchLayers(DOUBLE)

Threads = Callable[[int], None]
RunAlone = Callable[..., None]


@pytest.fixture(
    params=[
        FLOAT,
        pytest.param(
            HALF,
            marks=pytest.mark.skipif(
                unavailable("compiled", HALF, "cpu") is not None,
                reason="this processor does not multiply bfloat16",
            ),
        ),
    ],
    ids=["float32", "bfloat16"],
)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Every number format that can be used here."""
    assert isinstance(request.param, torch.dtype)
    return request.param


@pytest.fixture
def layers(dtype: torch.dtype) -> Layers:
    return make("compiled", dtype, "cpu")


GUARD = 1024
"""Numbers before and behind what is allocated."""


@pytest.fixture
def guarded_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All that the layers allocate lies between NaN and holds NaN; around it NaN must stay."""
    empty = torch.empty
    edges: list[Tensor] = []

    def guarded(*shape: Any, dtype: torch.dtype = FLOAT, **options: Any) -> Tensor:
        size = torch.Size(shape if isinstance(shape[0], int) else shape[0])
        flat = empty(size.numel() + 2 * GUARD, dtype=dtype, **options)
        flat.fill_(NAN if flat.is_floating_point() else 255)  # bytes of 255 are NaN, too
        inner = flat[GUARD : GUARD + size.numel()]
        edges.extend((flat[:GUARD], flat[GUARD + size.numel() :]))
        return inner.view(size)

    monkeypatch.setattr(torch, "empty", guarded)
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, size: guarded(size, dtype=x.dtype))
    monkeypatch.setattr(native, "_local", native._Local())
    yield
    assert edges
    for edge in edges:
        assert (edge.isnan() if edge.is_floating_point() else edge == 255).all()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def surrounded(x: Tensor) -> Tensor:
    """The same numbers as a view of rows, with NaN before, between and after them."""
    frame = torch.full((x.shape[0] + 2, x.shape[1] + 5), NAN, dtype=x.dtype)
    view = frame[1:-1, 3:-2]
    view.copy_(x)
    return view


def by_columns(x: Tensor) -> Tensor:
    """The same numbers as a view whose columns lie together."""
    return surrounded(x.T).T


def every_second(x: Tensor) -> Tensor:
    """The same numbers with NaN between two of a row."""
    return torch.stack((x, torch.full_like(x, NAN)), -1)[..., 0]


def layer(layers: Layers, inputs: int, outputs: int, end: str = "none", biased: bool = True) -> Any:
    """A linear layer that leaves so many outputs after its end, about as large as its inputs."""
    rows = 2 * outputs if "glu" in end else outputs
    weight, bias = normal(rows, inputs, seed=1) / inputs**0.5, normal(rows, seed=2)
    weight = weight.bfloat16().float()  # the same weights in all formats
    if layers is DEFINITION:
        weight, bias = weight.double(), bias.double()
    return layers.linear(weight, bias if biased else None, end=end)


def assert_near(
    got: Tensor,
    want: Tensor,
    dtype: torch.dtype,
    exact: float = 1e-5,
    half: tuple[float, float] = (2.0**-8, 1e-4),
) -> None:
    """Equal to float32's rounding; in bfloat16 relatively and absolutely to `half`, by default to
    one rounding of the result.
    """
    assert got.dtype == dtype
    rtol, atol = (exact, exact) if dtype == FLOAT else half
    torch.testing.assert_close(got.double(), want, rtol=rtol, atol=atol)


# Equality.


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.usefixtures("guarded_memory")
def test_linear(layers: Layers, dtype: torch.dtype, end: str, inputs: int, outputs: int) -> None:
    x = normal(max(ROWS), inputs).to(dtype)
    linear, biased = layer(layers, inputs, outputs, end, outputs != 33), outputs != 33
    want = layer(DEFINITION, inputs, outputs, end, biased)(x.double())
    for rows in ROWS:
        assert_near(linear(surrounded(x[:rows])), want[:rows], dtype)


@pytest.mark.parametrize("inputs", [3, 64])
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.usefixtures("guarded_memory")
def test_nothing_is_added_outside_of_the_target(
    layers: Layers, dtype: torch.dtype, inputs: int, outputs: int, rows: int
) -> None:
    x, before = normal(rows, inputs).to(dtype), normal(rows, outputs, seed=3)
    frame = torch.full((rows + 2, outputs), NAN)
    frame[1:-1] = before
    layer(layers, inputs, outputs).add_to(frame[1:-1], surrounded(x), 0.5)
    want = before.double() + 0.5 * layer(DEFINITION, inputs, outputs)(x.double())
    torch.testing.assert_close(frame[1:-1].double(), want, rtol=1e-5, atol=1e-5)
    assert frame[[0, -1]].isnan().all()


@pytest.mark.parametrize("view", [surrounded, by_columns, every_second])
@pytest.mark.parametrize("inputs", [1, 17, 64])
@pytest.mark.usefixtures("guarded_memory")
def test_any_view_gives_the_same_bits(
    layers: Layers, dtype: torch.dtype, view: Callable[[Tensor], Tensor], inputs: int
) -> None:
    x = normal(7, inputs)
    for run, own in (
        (layer(layers, inputs, 33), x.to(dtype)),
        (layers.norm(normal(inputs, seed=1), normal(inputs, seed=2)), x),
    ):
        assert torch.equal(run(view(own)), run(own))
        assert torch.equal(run(own[2:3].expand(7, inputs)), run(own[2:3]).expand(7, -1))


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 64, 513])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.usefixtures("guarded_memory")
def test_norm(layers: Layers, dtype: torch.dtype, columns: int, centred: bool) -> None:
    x, gain, bias = 3 * normal(500, columns) + 2, normal(columns, seed=1), normal(columns, seed=2)
    for own in (bias, None):
        norm = layers.norm(gain, own, centred=centred)
        shift = None if own is None else own.double()
        want = DEFINITION.norm(gain.double(), shift, centred=centred)(x.double())
        for rows in (1, 15, 16, 17, 500):
            assert_near(norm(surrounded(x[:rows])), want[:rows], dtype)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 31])
@pytest.mark.parametrize("frames", [1, 2, 16, 17, 50])
@pytest.mark.parametrize("silu_first", [False, True])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.usefixtures("guarded_memory")
def test_convolution(
    layers: Layers, dtype: torch.dtype, kernel: int, frames: int, silu_first: bool, centred: bool
) -> None:
    for columns in (2, 17, 64):
        gain, bias = 1 + normal(2, columns, seed=1)
        taps, shift = normal(kernel, columns, seed=2), normal(columns, seed=3)
        x = surrounded(normal(2 * frames, columns)).view(2, frames, columns)
        for own in (shift, None):
            norm = layers.norm(gain, bias, centred=centred)
            got = layers.convolution(taps, own, norm, silu_first=silu_first)(x)
            want = DEFINITION.convolution(
                taps.double(),
                None if own is None else own.double(),
                DEFINITION.norm(gain.double(), bias.double(), centred=centred),
                silu_first=silu_first,
            )(x.double())
            assert_near(got, want, dtype, exact=1e-4)


def heads(batch: int, count: int, frames: int, dim: int, seed: int = 0) -> list[Tensor]:
    """Queries, keys and values [B, H, F, D] out of one product, with NaN behind each row."""
    made = normal(batch, frames, 3, count, dim, seed=seed)
    frame = torch.full((batch, frames, 3 * count * dim + 5), NAN)
    view = frame[..., 3:-2].view(batch, frames, 3, count, dim)
    view.copy_(made)
    return [x.transpose(1, 2) for x in view.unbind(2)]


def turns(frames: int, dim: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(frames)[:, None] * 0.01 ** (torch.arange(dim // 2) * 2 / dim)
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.usefixtures("guarded_memory")
def test_attention(layers: Layers, dtype: torch.dtype, frames: int, dim: int, turned: bool) -> None:
    q, k, v = (x.to(dtype) for x in heads(2, 3, frames, dim))
    rotary = turns(frames, dim) if turned else None
    got = layers.attend(q, k, v, rotary=rotary)
    want = DEFINITION.attend(q.double(), k.double(), v.double(), rotary=rotary)
    assert_near(got, want, dtype, half=(0.02, 0.02))


def test_attention_takes_any_view(layers: Layers, dtype: torch.dtype) -> None:
    plain = [x.to(dtype).contiguous() for x in heads(2, 3, 65, 16)]
    want = layers.attend(*plain)
    views: tuple[Callable[[Tensor], Tensor], ...] = (
        every_second,
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    )
    for change in range(3):
        for view in views:
            mixed = [view(x) if n == change else x for n, x in enumerate(plain)]
            assert torch.equal(layers.attend(*mixed), want)


def test_attention_that_is_left_to_torch(layers: Layers, dtype: torch.dtype) -> None:
    """With a mask, of fewer queries than keys, of an odd size."""
    q, k, v = (x.to(dtype) for x in heads(2, 3, 9, 16))
    mask = (torch.arange(9) < 5)[None]
    parts: tuple[Callable[[Layers | TorchLayers], Tensor], ...] = (
        lambda which: which.attend(q, k, v, mask=mask),
        lambda which: which.attend(q[..., :15], k[..., :15], v[..., :15]),
        lambda which: which.attend(q[:, :, :4], k, v),
    )
    for part in parts:
        assert torch.equal(part(layers), part(TorchLayers(dtype)))


@settings(max_examples=25)
@given(data=st.data())
def test_float32_is_the_definition_on_any_shape(data: st.DataObject) -> None:
    layers, size = make("compiled", FLOAT, "cpu"), st.integers(1, 150)
    rows, inputs, outputs = (data.draw(size, label=name) for name in ("rows", "inputs", "outputs"))
    end = data.draw(st.sampled_from(ENDS), label="end")
    x = normal(rows, inputs)
    want = layer(DEFINITION, inputs, outputs, end)(x.double())
    assert_near(layer(layers, inputs, outputs, end)(x), want, FLOAT)
    count, dim = data.draw(st.integers(1, 4)), 2 * data.draw(st.integers(1, 50))
    q, k, v = heads(1, count, rows, dim)
    rotary = turns(rows, dim)
    want = DEFINITION.attend(q.double(), k.double(), v.double(), rotary=rotary)
    assert_near(layers.attend(q, k, v, rotary=rotary), want, FLOAT)


# Independence.


@pytest.mark.parametrize("end", [*ENDS, "added"])
@pytest.mark.parametrize("outputs", [33, 130])
def test_a_row_is_the_same_alone_and_in_any_order(
    layers: Layers, dtype: torch.dtype, end: str, outputs: int
) -> None:
    assert layers.rows_alone
    x = normal(500, 65).to(dtype)
    linear = layer(layers, 65, outputs, "none" if end == "added" else end)

    def run(x: Tensor) -> Tensor:
        if end != "added":
            return Tensor(linear(x))
        target = x[..., :1].float().expand(*x.shape[:-1], outputs).contiguous()
        linear.add_to(target, x, 0.7)
        return target

    assert_rows_alone(run, x)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("columns", [3, 65, 512])
def test_a_norm_of_a_row_is_the_same_alone(layers: Layers, centred: bool, columns: int) -> None:
    norm = layers.norm(normal(columns, seed=1), normal(columns, seed=2), centred=centred)
    assert_rows_alone(norm, normal(500, columns))


def assert_rows_alone(run: Callable[[Tensor], Tensor], x: Tensor) -> None:
    whole = run(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    for rows in (order, order[:127], order[:7], torch.arange(1, 500, 3), torch.tensor([3] * 8)):
        assert torch.equal(run(x[rows]), whole[rows])
    for row in (0, 5, 125, 126, 127, 499):
        assert torch.equal(run(x[row : row + 1]), whole[row : row + 1])
    assert torch.equal(run(x.view(2, 250, -1)), whole.view(2, 250, -1))


@pytest.mark.parametrize("silu_first", [False, True])
def test_a_convolved_item_is_the_same_alone(layers: Layers, silu_first: bool) -> None:
    norm = layers.norm(normal(65, seed=1))
    mix = layers.convolution(normal(5, 65, seed=2), None, norm, silu_first=silu_first)
    x = normal(3, 70, 65)
    whole = mix(x)
    assert torch.equal(torch.cat([mix(item[None]) for item in x]), whole)
    # A frame hears two on each side, and no others.
    assert torch.equal(mix(x[:, 20:50])[:, 2:-2], whole[:, 22:48])


def test_a_query_is_the_same_whatever_the_others_are(layers: Layers, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype).contiguous() for x in heads(2, 3, 129, 48))
    whole = layers.attend(q, k, v)
    order = torch.randperm(129, generator=torch.Generator().manual_seed(1))
    assert torch.equal(layers.attend(q[:, :, order], k, v), whole[:, order])
    for row in (0, 5, 6, 63, 128):
        other = normal(2, 3, 129, 48, seed=7).to(dtype)
        other[:, :, row] = q[:, :, row]
        assert torch.equal(layers.attend(other, k, v)[:, row], whole[:, row])
    for item in range(2):
        for head in range(3):
            one = [x[item, head][None, None] for x in (q, k, v)]
            own = whole[item : item + 1, :, 48 * head : 48 * (head + 1)]
            assert torch.equal(layers.attend(*one), own)


def everything(layers: Layers) -> list[Tensor]:
    """Results of all kernels, large enough that all threads have some of the work."""
    x, (q, k, v) = normal(300, 64), heads(1, 3, 300, 32)
    results = [layer(layers, 64, 130, end)(x) for end in ENDS]
    results.append(torch.ones(300, 130))
    layer(layers, 64, 130).add_to(results[-1], x)
    norm = layers.norm(normal(64, seed=1))
    results += [norm(x), layers.convolution(normal(5, 64, seed=2), None, norm)(x[None])]
    return [*results, layers.attend(q, k, v, rotary=turns(300, 32))]


def assert_same(got: list[Tensor], want: list[Tensor]) -> None:
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("number", [2, 3, 7])
def test_number_of_threads_changes_nothing(layers: Layers, threads: Threads, number: int) -> None:
    threads(1)
    want = everything(layers)
    threads(number)
    assert_same(everything(layers), want)


def test_several_threads_may_compute_at_once(layers: Layers, threads: Threads) -> None:
    threads(2)
    want = everything(layers)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: everything(layers), range(12)):
            assert_same(got, want)


def test_a_layer_serves_several_threads(layers: Layers, threads: Threads) -> None:
    threads(2)
    linear, inputs = layer(layers, 64, 130), [normal(40, 64, seed=n) for n in range(60)]
    want = [linear(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        assert_same(list(pool.map(linear, inputs)), want)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_computes_too(run_alone: RunAlone) -> None:
    run_alone(
        """
        import os, signal, torch
        from speechloom.ops.layers import make

        torch.set_num_threads(2)
        layers = make("compiled", torch.float32, "cpu")
        x = torch.arange(400.0 * 8).view(400, 8) % 7
        linear, norm = layers.linear(x[:60]), layers.norm(x[1])

        def compute():  # no parallel operation of torch: those may hang in a forked process
            return [linear(x), norm(x), layers.attend(*[x.view(1, 2, 200, 8)] * 3)]

        want = compute()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os._exit(0 if all(map(torch.equal, compute(), want)) else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        "-Wignore::DeprecationWarning",  # Python warns of forks beside threads: that is the case
    )


# Together.


@pytest.fixture(params=["torch's threads", "a pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to have threads."""
    if request.param == "a pool":
        monkeypatch.setattr(team, "openmp", lambda: None)
    elif team.openmp() is None:
        pytest.skip("this torch has no OpenMP library that is known")
    return str(request.param)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the workers of every run of a team."""
    run, made = team.run, []

    def noted(kernel: int, arguments: int, workers: int) -> None:
        made.append(workers)
        run(kernel, arguments, workers)

    monkeypatch.setattr(team, "run", noted)
    return made


def conformer(layers: Layers, frames: int) -> Callable[[Tensor], list[Tensor]]:
    """A block over float32 [2, F, 32]: what it leaves in place, and a norm of that.

    Nothing inside is read but by layers, and nothing is kept.
    """
    norms = [layers.norm(normal(32, seed=n), normal(32, seed=n + 1)) for n in range(4)]
    last = layers.norm(normal(32, seed=9), centred=False, result=FLOAT)
    up, down = layer(layers, 32, 70, "silu"), layer(layers, 70, 32)
    gated, back = layer(layers, 32, 66, "swiglu"), layer(layers, 66, 32)
    threefold, joined = layer(layers, 32, 96), layer(layers, 32, 32)
    weight = normal(64, 32, seed=3) / 32**0.5
    opened = layers.linear(weight, normal(64, seed=4), end="glu", result=FLOAT)
    mix = layers.convolution(normal(5, 32, seed=5), normal(32, seed=6), norms[3])
    rotary = turns(frames, 16)

    def run(x: Tensor) -> list[Tensor]:
        down.add_to(x, up(norms[0](x)), 0.5)
        q, k, v = threefold(norms[1](x)).view(2, frames, 3, 2, 16).permute(2, 0, 3, 1, 4)
        joined.add_to(x, layers.attend(q, k, v, rotary=rotary))
        joined.add_to(x, mix(opened(norms[2](x))))
        back.add_to(x, gated(norms[3](x)), 0.5)
        return [x, last(x)]

    return run


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("frames", [1, 150])
@pytest.mark.parametrize("guarded", [False, True])
def test_a_block_is_the_same_together(
    layers: Layers,
    threads: Threads,
    way: str,
    runs: list[int],
    request: pytest.FixtureRequest,
    number: int,
    frames: int,
    guarded: bool,
) -> None:
    threads(1)
    run, x = conformer(layers, frames), normal(2, frames, 32, seed=8)
    want = run(x.clone())
    threads(number)
    if guarded:
        request.getfixturevalue("guarded_memory")
    own = x.clone()
    runs.clear()
    with layers.together():
        got = run(own)
        assert not runs
        assert torch.equal(own, x)
    assert len(runs) == 1 if number > 1 and way != "a pool" else len(runs) > 10
    assert_same(got, want)
    assert_same(run(x.clone()), want)  # at once again


def test_all_kernels_are_the_same_together(layers: Layers, threads: Threads, way: str) -> None:
    threads(2)
    want = everything(layers)
    with layers.together():
        got = everything(layers)
    assert_same(got, want)


def test_several_threads_may_have_layers_together(layers: Layers, threads: Threads) -> None:
    threads(2)
    run, inputs = conformer(layers, 40), [normal(2, 40, 32, seed=n) for n in range(12)]
    want = [run(x.clone()) for x in inputs]

    def together(x: Tensor) -> list[Tensor]:
        with layers.together():
            return run(x.clone())

    with ThreadPoolExecutor(3) as pool:
        for got, expected in zip(pool.map(together, inputs), want, strict=True):
            assert_same(got, expected)


def first_of(layers: Layers, x: Tensor, result: torch.dtype | None = None) -> Tensor:
    """What a kernel writes: [9, 16] of [9, 8]."""
    return Tensor(layers.linear(normal(16, 8, seed=1), result=result)(x))


def three_of(layers: Layers, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values [1, 2, 9, 16], out of one product."""
    made = layers.linear(normal(96, 8, seed=1))(x)
    return made.view(1, 9, 3, 2, 16).permute(2, 0, 3, 1, 4).unbind(0)


def of_an_odd_size(layers: Layers, x: Tensor) -> Tensor:
    linear = layers.linear(normal(7, 8, seed=1))
    return Tensor(layers.linear(normal(5, 7, seed=2))(linear(x)))


def of_another_format(layers: Layers, x: Tensor, result: torch.dtype) -> Tensor:
    return Tensor(layers.linear(normal(5, 16, seed=2))(first_of(layers, x, result)))


def of_every_second(layers: Layers, x: Tensor) -> Tensor:
    return Tensor(layers.linear(normal(5, 8, seed=2))(first_of(layers, x)[:, ::2]))


def added_after_a_gate(layers: Layers, x: Tensor) -> Tensor:
    target = torch.ones(9, 16)
    layers.linear(normal(16, 8, seed=1)).add_to(target, x)
    gate = layers.linear(normal(32, 16, seed=2), end="glu")
    gate.add_to(target, first_of(layers, x), 0.5)
    return target


def added_to_a_view(layers: Layers, x: Tensor) -> Tensor:
    target = torch.ones(16, 9)
    layers.linear(normal(9, 8, seed=1)).add_to(target, torch.cat((x, x[:7])))
    layers.linear(normal(16, 16, seed=2)).add_to(target.T, first_of(layers, x), 0.5)
    return target


def norm_of(layers: Layers, x: Tensor) -> Tensor:
    return Tensor(layers.norm(normal(x.shape[-1], seed=2))(x))


def convolution_of(layers: Layers, x: Tensor) -> Tensor:
    norm = layers.norm(normal(x.shape[-1], seed=2))
    return Tensor(layers.convolution(normal(3, x.shape[-1], seed=3), None, norm)(x[None]))


def masked(layers: Layers, x: Tensor) -> Tensor:
    q, k, v = three_of(layers, x)
    return layers.attend(q, k, v, mask=(torch.arange(9) < 5)[None])


def of_fewer_queries(layers: Layers, x: Tensor) -> Tensor:
    q, k, v = three_of(layers, x)
    return layers.attend(q[:, :, :4], k, v)


def of_odd_heads(layers: Layers, x: Tensor) -> Tensor:
    q, k, v = (each[..., :15] for each in three_of(layers, x))
    return layers.attend(q, k, v)


def of_other_strides(layers: Layers, x: Tensor) -> Tensor:
    q, k = (first_of(layers, x) for _ in range(2))
    k = k.view(1, 2, 9, 8)
    return layers.attend(q.view(1, 9, 2, 8).transpose(1, 2), k, k)


@pytest.mark.parametrize(
    "compute",
    [
        of_an_odd_size,
        lambda layers, x: of_another_format(layers, x, FLOAT),
        lambda layers, x: of_another_format(layers, x, HALF),
        of_every_second,
        added_after_a_gate,
        added_to_a_view,
        lambda layers, x: norm_of(layers, first_of(layers, x)[:, ::2]),
        lambda layers, x: norm_of(layers, first_of(layers, x).T),
        lambda layers, x: norm_of(layers, first_of(layers, x, HALF)),
        lambda layers, x: convolution_of(layers, first_of(layers, x)[:, 3:]),
        lambda layers, x: convolution_of(layers, first_of(layers, x, HALF)),
        masked,
        of_fewer_queries,
        of_odd_heads,
        of_other_strides,
    ],
)
@pytest.mark.usefixtures("guarded_memory")
def test_what_torch_reads_is_there(
    layers: Layers,
    dtype: torch.dtype,
    threads: Threads,
    compute: Callable[[Layers, Tensor], Tensor],
) -> None:
    """What is new is NaN: torch must not read it before the kernels wrote it."""
    threads(2)
    x = normal(9, 8).to(dtype)
    want = compute(layers, x)
    assert want.isfinite().all()
    with layers.together():
        got = compute(layers, x)
        after = first_of(layers, x)
    assert torch.equal(got, want)
    assert torch.equal(after, first_of(layers, x))


@pytest.mark.parametrize("guarded", [False, True])
def test_attention_may_need_more_memory_than_what_was_held_back(
    layers: Layers, dtype: torch.dtype, threads: Threads, way: str, request: Any, guarded: bool
) -> None:
    threads(2)
    inputs = [[x.to(dtype) for x in heads(1, 1, frames, 16)] for frames in (3, 3000, 64)]
    want = [layers.attend(*each) for each in inputs]
    if guarded:
        request.getfixturevalue("guarded_memory")
    native._local.memory = None
    with layers.together():
        got = [layers.attend(*each) for each in inputs]
    assert_same(got, want)


def test_what_is_between_layers_is_kept_until_it_was_used(
    layers: Layers, dtype: torch.dtype, threads: Threads
) -> None:
    """Memory that was freed too early would be taken by the next tensors of its size."""
    threads(2)
    norm, linear = layers.norm(normal(64, seed=1)), layer(layers, 64, 64)
    x = normal(300, 64)
    want = linear(linear(norm(x)))
    with layers.together():
        got = linear(linear(norm(x.clone())))
        taken = [torch.full((300, 64), NAN, dtype=kind) for kind in (FLOAT, dtype) * 20]
    assert torch.equal(got, want)
    assert all(each.isnan().all() for each in taken)


def test_layers_may_be_gone_before_they_run(layers: Layers, threads: Threads) -> None:
    """Their weights are kept as long as what they read."""
    threads(2)

    def run() -> list[Tensor]:
        target, (q, k, v) = torch.ones(300, 130), heads(1, 3, 300, 32, seed=1)
        layer(layers, 64, 130).add_to(target, normal(300, 64))
        norm = layers.norm(normal(64, seed=1), normal(64, seed=2))
        mixed = layers.convolution(normal(5, 64, seed=2), normal(64, seed=3), norm)
        made = [target, norm(normal(300, 64)), mixed(normal(1, 300, 64))]
        return [*made, layers.attend(q, k, v, rotary=turns(300, 32))]

    want = run()
    with layers.together():
        got = run()
        sizes = (64, 130, 192, 5 * 64, 300 * 16, 300 * 64, 64 * 64 * 3, 2 * 96 * 300)
        taken = [torch.full((size,), NAN) for size in sizes * 10]
    assert_same(got, want)
    assert all(each.isnan().all() for each in taken)


# What does not fit.


META = torch.device("meta")


def meta(*shape: int) -> Tensor:
    return torch.ones(*shape, device=META)


ONES: list[Tensor] = [torch.ones(1, 2, 5, 4)] * 3
"""Queries, keys and values."""


def mixing(layers: Layers, taps: Tensor | None = None, tap_bias: Tensor | None = None) -> Any:
    norm = layers.norm(torch.ones(3))
    return layers.convolution(torch.ones(5, 3) if taps is None else taps, tap_bias, norm)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("x", lambda layers: layer(layers, 3, 2)(torch.ones(4, 2))),
        ("x", lambda layers: layer(layers, 3, 2)(torch.ones(3, 4))),
        ("x", lambda layers: layer(layers, 1, 2)(torch.tensor(1.0))),
        ("x", lambda layers: layer(layers, 3, 2)(meta(4, 3))),
        ("x", lambda layers: layer(layers, 3, 2).add_to(torch.ones(4, 2), torch.ones(4, 2))),
        ("x", lambda layers: layer(layers, 3, 2).add_to(torch.ones(4, 2), meta(4, 3))),
        ("x", lambda layers: layer(layers, 3, 2, "glu").add_to(torch.ones(4, 2), meta(4, 3))),
        ("x", lambda layers: layers.norm(torch.ones(3))(torch.ones(3, 4))),
        ("x", lambda layers: layers.norm(torch.ones(1))(torch.tensor(1.0))),
        ("x", lambda layers: layers.norm(torch.ones(3))(meta(4, 3))),
        ("x", lambda layers: mixing(layers)(torch.ones(1, 3, 4))),
        ("x", lambda layers: mixing(layers)(torch.ones(4, 3))),
        ("x", lambda layers: mixing(layers)(torch.ones(1, 1, 4, 3))),
        ("x", lambda layers: mixing(layers)(meta(1, 4, 3))),
        ("weight", lambda layers: layers.linear(torch.ones(3))),
        ("weight", lambda layers: layers.linear(torch.tensor(1.0))),
        ("weight", lambda layers: layers.linear(torch.ones(3, 2, 1))),
        ("weight", lambda layers: layers.linear(torch.ones(3, 0))),
        ("weight", lambda layers: layers.linear(meta(3, 2))),
        ("bias", lambda layers: layers.linear(torch.ones(3, 2), torch.ones(2))),
        ("bias", lambda layers: layers.linear(torch.ones(3, 2), torch.ones(1))),
        ("bias", lambda layers: layers.linear(torch.ones(4, 2), torch.ones(2), end="glu")),
        ("bias", lambda layers: layers.linear(torch.ones(3, 2), torch.ones(3, 1))),
        ("bias", lambda layers: layers.linear(torch.ones(3, 2), meta(3))),
        ("gain", lambda layers: layers.norm(torch.ones(3, 1))),
        ("gain", lambda layers: layers.norm(meta(3))),
        ("bias", lambda layers: layers.norm(torch.ones(3), torch.ones(2))),
        ("bias", lambda layers: layers.norm(torch.ones(3), torch.tensor(1.0))),
        ("bias", lambda layers: layers.norm(torch.ones(3), meta(3))),
        ("taps", lambda layers: mixing(layers, torch.ones(5, 2))),
        ("taps", lambda layers: mixing(layers, torch.ones(5, 1))),
        ("taps", lambda layers: mixing(layers, torch.ones(3))),
        ("taps", lambda layers: mixing(layers, torch.ones(0, 3))),
        ("taps", lambda layers: mixing(layers, meta(5, 3))),
        ("tap_bias", lambda layers: mixing(layers, tap_bias=torch.ones(2))),
        ("tap_bias", lambda layers: mixing(layers, tap_bias=torch.ones(1))),
        ("tap_bias", lambda layers: mixing(layers, tap_bias=meta(3))),
        ("rotary", lambda layers: layers.attend(*ONES, rotary=turns(4, 4))),
        ("rotary", lambda layers: layers.attend(*ONES, rotary=turns(5, 6))),
        ("rotary", lambda layers: layers.attend(*ONES, rotary=(turns(5, 4)[0], turns(4, 4)[1]))),
        ("rotary", lambda layers: layers.attend(*ONES, rotary=(meta(5, 2), meta(5, 2)))),
        ("result", lambda layers: layers.linear(torch.ones(3, 2), result=torch.float16)),
        ("result", lambda layers: layers.norm(torch.ones(3), result=DOUBLE)),
    ],
)
def test_what_does_not_fit_is_named(
    layers: Layers, name: str, use: Callable[[Layers], object]
) -> None:
    """Compiled loops would read, or write, what is not theirs."""
    with pytest.raises(UsageError, match=f"^`{name}` .*must .*, but is "):
        use(layers)


def test_rotary_tables_may_be_longer_than_the_frames(layers: Layers, dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in heads(1, 2, 5, 4))
    want = layers.attend(q, k, v, rotary=turns(5, 4))
    assert torch.equal(layers.attend(q, k, v, rotary=turns(9, 4)), want)


@pytest.mark.parametrize("which", range(3))
def test_attention_on_several_devices_is_refused(layers: Layers, which: int) -> None:
    mixed = [x.to(META) if n == which else x for n, x in enumerate(ONES)]
    with pytest.raises(RuntimeError):
        layers.attend(*mixed)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2), (4,), (3, 4)])
def test_a_target_that_does_not_fit_is_refused(layers: Layers, shape: tuple[int, ...]) -> None:
    target = torch.ones(shape)
    with pytest.raises(RuntimeError):
        layer(layers, 2, 3).add_to(target, torch.ones(4, 2))
    assert (target == 1).all()


def test_a_target_may_be_of_more_items(layers: Layers) -> None:
    """As torch adds."""
    x, target, one = normal(4, 2), torch.ones(2, 4, 3), torch.ones(4, 3)
    layer(layers, 2, 3).add_to(target, x, 0.5)
    layer(layers, 2, 3).add_to(one, x, 0.5)
    torch.testing.assert_close(target, one.expand(2, 4, 3), rtol=2.0**-7, atol=2.0**-7)


@pytest.mark.parametrize("kind", [HALF, DOUBLE])
@pytest.mark.parametrize("end", ["none", "glu"])
def test_a_target_of_another_format(
    layers: Layers, dtype: torch.dtype, kind: torch.dtype, end: str
) -> None:
    x = normal(7, 17).to(dtype)
    target, want = (normal(7, 33, seed=5).to(kind) for _ in range(2))
    layer(layers, 17, 33, end).add_to(target, x, 0.5)
    want.add_(layer(layers, 17, 33, end)(x), alpha=0.5)
    assert torch.equal(target, want)
    reference = normal(7, 33, seed=5).to(kind).double()
    reference += 0.5 * layer(DEFINITION, 17, 33, end)(x.double())
    near = 1e-5 if HALF not in (kind, dtype) else 2.0**-6
    torch.testing.assert_close(target.double(), reference, rtol=near, atol=near)


@pytest.mark.parametrize("end", ["none", "glu"])
def test_a_target_without_memory_is_left_to_torch(layers: Layers, end: str) -> None:
    layer(layers, 2, 3, end).add_to(meta(4, 3), torch.ones(4, 2))


# Numbers that are none.


@pytest.mark.parametrize("value", [NAN, -NAN, INF, -INF])
@pytest.mark.parametrize("end", ENDS)
def test_nan_and_inf_stay_in_their_row(
    layers: Layers, dtype: torch.dtype, value: float, end: str
) -> None:
    x = normal(20, 17)
    norm = layers.norm(torch.ones(17))
    for run, own in ((layer(layers, 17, 33, end), x.to(dtype)), (norm, x)):
        bad = own.clone()
        bad[[0, 8], [16, 3]] = value
        got, want, others = run(bad), run(own), [n for n in range(20) if n not in (0, 8)]
        assert torch.equal(got[others], want[others])
        reached = ~got[[0, 8]].isfinite()
        # A gate makes a plain number, zero, of what is infinite.
        assert reached.all() if value != value or end == "none" or run is norm else reached.any()


@pytest.mark.parametrize("value", [NAN, -NAN])
@pytest.mark.parametrize("frame", [0, 64, 69])
def test_nan_reaches_what_hears_it(
    layers: Layers, dtype: torch.dtype, value: float, frame: int
) -> None:
    """A query's its row, a key's all rows of its head, a value's its number in all rows."""
    plain = [x.to(dtype).contiguous() for x in heads(2, 3, 70, 16)]
    want = layers.attend(*plain)
    where = torch.zeros(3, 2, 70, 3, 16, dtype=torch.bool)
    where[0, 1, frame, 2], where[1, 1, :, 2], where[2, 1, :, 2, 5] = True, True, True
    for which, reached in enumerate(where.flatten(-2)):
        bad = [x.clone() for x in plain]
        bad[which][1, 2, frame, 5] = value
        got = layers.attend(*bad)
        assert torch.equal(got.isnan(), reached)
        assert torch.equal(got[~reached], want[~reached])


# Parts.


def test_exponential_is_exact_to_rounding() -> None:
    x = np.linspace(-87, 88, 20_001, dtype=np.float32)
    got = np.array([kernels._exp(each) for each in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=3 * 2.0**-23)
    assert kernels._exp(np.float32(0)) == 1
    assert kernels._exp(np.float32(-np.inf)) < 2e-38
    assert kernels._exp(np.float32(np.inf)) == np.inf
    assert np.isnan(kernels._exp(np.float32(np.nan)))


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_bfloat16_is_rounded_as_torch_does(columns: int) -> None:
    """Of ties the even one, and to infinity what is too large."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0x00800000, 0x7F800000, (4000, 1), generator=generator)
    bits[:2000] = (bits[:2000] & ~0xFFFF) + 0x7FFF + torch.arange(2000)[:, None] % 3
    signs = torch.tensor([1.0, -1.0]).repeat(2000)[:, None]
    x = torch.cat((bits.int().view(FLOAT) * signs, torch.tensor([[0.0], [INF], [-INF], [NAN]])))
    linear = make("compiled", FLOAT, "cpu").linear(torch.ones(columns, 1), result=HALF)
    got, want = linear(x), x.bfloat16().expand(-1, columns)
    assert got.dtype == HALF
    assert torch.equal(got.nan_to_num(7.0, INF, -INF), want.nan_to_num(7.0, INF, -INF))


# Other machines.


def test_numba_that_does_not_compile_is_refused(run_alone: RunAlone) -> None:
    run_alone(
        """
        import torch
        from speechloom.errors import BackendUnavailable
        from speechloom.ops.layers import fastest, make

        try:
            make("compiled", torch.float32, "cpu")
        except BackendUnavailable as error:
            assert "NUMBA_DISABLE_JIT is set; unset it" in str(error), error
        else:
            raise AssertionError
        assert fastest(torch.float32, "cpu") in ("onednn", "torch")
        """,
        environment={"NUMBA_DISABLE_JIT": "1"},
    )


def test_instructions_that_numba_leaves_out_are_not_used(run_alone: RunAlone) -> None:
    run_alone(
        """
        import torch
        from speechloom.ops.layers import fastest, unavailable

        assert "AVX2" in unavailable("compiled", torch.float32, "cpu")
        assert fastest(torch.float32, "cpu") in ("onednn", "torch")
        """,
        environment={"NUMBA_ENABLE_AVX": "0"},
    )


def test_formats_that_nothing_multiplies_are_refused() -> None:
    with pytest.raises(BackendUnavailable, match="torch.float16; use another precision"):
        make("compiled", torch.float16, "cpu")


def test_a_processor_without_the_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "features", lambda: frozenset({"sse2", "avx", "avx2"}))
    with pytest.raises(BackendUnavailable, match="AVX2; use layers='torch'"):
        make("compiled", FLOAT, "cpu")


def test_the_loops_of_avx2_give_the_same_numbers(run_alone: RunAlone) -> None:
    run_alone(
        """
        import torch
        from speechloom.ops.layers import ENDS, kernels, make, unavailable

        assert kernels.LANES == 8 and kernels.PANEL == 16
        assert "multiplies torch.bfloat16" in unavailable("compiled", torch.bfloat16, "cpu")
        layers, torchs = (make(name, torch.float32, "cpu") for name in ("compiled", "torch"))
        draw = torch.Generator().manual_seed(0)

        def check(compute):
            got, want = compute(layers), compute(torchs)
            torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5)

        for rows in (1, 7, 127):
            for inputs in (1, 17, 513):
                x = torch.randn(rows, inputs, generator=draw)
                gain = torch.randn(inputs, generator=draw)
                taps = torch.randn(4, inputs, generator=draw)
                for centred in (True, False):
                    check(lambda which: which.norm(gain, gain, centred=centred)(x))
                    norm = dict(epsilon=1.0, centred=centred)
                    check(lambda w: w.convolution(taps, gain, w.norm(gain, **norm))(x[None]))
                for outputs in (2, 15, 16, 17, 70):
                    for end in ENDS:
                        size = 2 * outputs if "glu" in end else outputs
                        weight = torch.randn(size, inputs, generator=draw) / inputs**0.5
                        bias = torch.randn(size, generator=draw)
                        check(lambda which: which.linear(weight, bias, end=end)(x))

                        def added(which):
                            target = torch.ones(rows, outputs)
                            which.linear(weight, bias, end=end).add_to(target, x, 0.5)
                            return target

                        check(added)
        x, weight = torch.randn(13, 33, generator=draw), torch.randn(70, 33, generator=draw)
        for end in ENDS:  # a row alone has the same bits
            layer = layers.linear(weight, end=end)
            assert torch.equal(layer(x), torch.cat([layer(row) for row in x.split(1)])), end
        for frames in (1, 2, 15, 16, 17, 65):
            for dim in (2, 16, 48):
                q, k, v = torch.randn(3, 2, 3, frames, dim, generator=draw)
                angles = torch.randn(frames, dim // 2, generator=draw)
                for rotary in (None, (angles.cos(), angles.sin())):
                    check(lambda which: which.attend(q, k, v, rotary=rotary))
        """,
        environment={
            "NUMBA_CPU_NAME": "haswell",
            "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2,+sse4.1,+ssse3,+sse3,+sse2,+sse",
        },
    )


def test_a_copy_has_weights_of_its_own() -> None:
    layer = make("compiled", FLOAT, "cpu").linear(normal(70, 30), normal(70))
    x = normal(9, 30, seed=2)
    want, other = layer(x), copy.deepcopy(layer)
    layer.weight.fill_(NAN)  # type: ignore[attr-defined]
    assert torch.equal(other(x), want)


@pytest.mark.parametrize("part", [slice(None), slice(2, 9)])
def test_a_target_may_be_what_is_read(part: slice) -> None:
    """The loops would read rows that they have added to already."""
    weight, rows = normal(200, 200) / 14, normal(300, 200, seed=1)
    want = rows.clone()
    make("torch", FLOAT, "cpu").linear(weight).add_to(want[part], want[part])
    make("compiled", FLOAT, "cpu").linear(weight).add_to(rows[part], rows[part])
    torch.testing.assert_close(rows, want, rtol=1e-5, atol=2e-5)
