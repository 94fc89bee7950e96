"""What layers give, by hand; which there are; which are the fastest; which cannot be used."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.layers import ENDS, IMPLEMENTATIONS, Layers, choice, fastest, make, unavailable

FLOAT, HALF = torch.float32, torch.bfloat16
NAN = float("nan")
SILU = {-1.0: -0.26894143, 0.0: 0.0, 1.0: 0.73105860, 2.0: 1.7615942, 3.0: 2.8577224}


@pytest.fixture(params=IMPLEMENTATIONS)
def layers(request: pytest.FixtureRequest) -> Layers:
    """All of them, in float32."""
    reason = unavailable(request.param, FLOAT, "cpu")
    if reason is not None:
        pytest.skip(reason)
    return make(request.param, FLOAT, "cpu")


def assert_close(got: Tensor, want: list[object] | Tensor) -> None:
    want = want if isinstance(want, Tensor) else torch.tensor(want, dtype=FLOAT)
    torch.testing.assert_close(got, want, rtol=2e-6, atol=1e-6)


# Linear.

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
BIAS = torch.tensor([0.5, -1.0, 0.0])
X = torch.tensor([[1.0, 1.0], [2.0, -1.0]])


def test_linear(layers: Layers) -> None:
    assert_close(layers.linear(WEIGHT)(X), [[3.0, 7.0, 11.0], [0.0, 2.0, 4.0]])
    assert_close(layers.linear(WEIGHT, BIAS)(X), [[3.5, 6.0, 11.0], [0.5, 1.0, 4.0]])


def test_linear_keeps_the_axes_before_the_last(layers: Layers) -> None:
    linear = layers.linear(WEIGHT, BIAS)
    assert linear(X.view(2, 1, 1, 2)).shape == (2, 1, 1, 3)
    assert_close(linear(X[1]), [0.5, 1.0, 4.0])


@pytest.mark.parametrize(
    ("end", "want"),
    [
        ("none", [[2.0, 3.0], [-1.0, 1.0], [2.0, 0.0]]),
        ("silu", [[SILU[2.0], SILU[3.0]], [SILU[-1.0], SILU[1.0]], [SILU[2.0], 0.0]]),
        ("glu", [[2 * 0.95257413], [-0.73105860], [1.0]]),
        ("swiglu", [[2 * SILU[3.0]], [-SILU[1.0]], [0.0]]),
    ],
)
def test_ends(layers: Layers, end: str, want: list[object]) -> None:
    linear = layers.linear(torch.eye(2), end=end)
    assert_close(linear(torch.tensor([[2.0, 3.0], [-1.0, 1.0], [2.0, 0.0]])), want)


@pytest.mark.parametrize("end", ["glu", "swiglu"])
def test_gates_are_the_second_half_of_the_outputs(layers: Layers, end: str) -> None:
    values, gates = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, 0.0, 1.0])
    linear = layers.linear(torch.zeros(6, 1), torch.cat((values, gates)), end=end)
    want = values * gates.sigmoid() * (gates if end == "swiglu" else 1.0)
    assert_close(linear(torch.zeros(1, 1)), want[None])


@pytest.mark.parametrize("scale", [1.0, 0.5, -2.0, 0.0, 2])
def test_a_scaled_result_is_added(layers: Layers, scale: float) -> None:
    target = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    want = target + scale * torch.tensor([[3.5, 6.0, 11.0], [0.5, 1.0, 4.0]])
    layers.linear(WEIGHT, BIAS).add_to(target, X, scale)
    assert_close(target, want)


def test_a_result_is_added_to_a_view_and_after_an_end(layers: Layers) -> None:
    target = torch.zeros(3, 2)
    layers.linear(WEIGHT, BIAS).add_to(target.T, X)
    assert_close(target, [[3.5, 0.5], [6.0, 1.0], [11.0, 4.0]])
    target = torch.ones(1, 2)
    layers.linear(torch.eye(2), end="silu").add_to(target, torch.tensor([[2.0, -1.0]]), 2.0)
    assert_close(target, [[1.0 + 2 * SILU[2.0], 1.0 + 2 * SILU[-1.0]]])


@pytest.mark.parametrize("end", ENDS[1:])
def test_huge_numbers_do_not_overflow_a_gate(layers: Layers, end: str) -> None:
    x = torch.tensor([-1e30, -1e4, -89.0, 89.0, 1e4, 1e30])[:, None]
    weight = torch.ones(1, 1) if end == "silu" else torch.tensor([[0.0], [1.0]])
    bias = torch.tensor([0.0] if end == "silu" else [1.0, 0.0])
    got = layers.linear(weight, bias, end=end)(x)
    want = (x > 0).float() * (1.0 if end == "glu" else x)
    assert_close(got, want)


def test_silu_of_the_lowest_number_is_nothing(layers: Layers) -> None:
    linear = layers.linear(torch.ones(1, 1), end="silu")
    assert_close(linear(torch.tensor([[-3e38], [3e38]])), [[0.0], [3e38]])


# Norms.


def test_layer_norm(layers: Layers) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [7.0, 7.0, 7.0]])
    norm = layers.norm(torch.tensor([1.0, 1.0, 2.0]), torch.tensor([0.0, 0.5, 1.0]))
    assert_close(norm(x), [[-1.2247357, 0.5, 2 * 1.2247357 + 1], [0.0, 0.5, 1.0]])
    assert_close(layers.norm(torch.ones(3), epsilon=1.0 / 3)(x[:1]), [[-1.0, 0.0, 1.0]])


def test_an_epsilon_may_be_a_whole_number(layers: Layers) -> None:
    x, gain = normal(3, 4), normal(4, seed=1)
    taps = normal(3, 4, seed=2)
    for centred in (True, False):
        whole, real = (layers.norm(gain, epsilon=size, centred=centred) for size in (1, 1.0))
        assert torch.equal(whole(x), real(x))
        first, second = (layers.convolution(taps, None, norm) for norm in (whole, real))
        assert torch.equal(first(x[None]), second(x[None]))


def test_root_mean_square_norm(layers: Layers) -> None:
    x = torch.tensor([[[3.0, 4.0]], [[1.0, -1.0]]])
    norm = layers.norm(torch.tensor([1.0, 2.0]), epsilon=0.0, centred=False)
    assert_close(norm(x), [[[0.84852814, 2 * 1.1313708]], [[1.0, -2.0]]])
    norm = layers.norm(torch.ones(2), torch.tensor([0.0, 9.0]), epsilon=3.0, centred=False)
    assert_close(norm(x[1]), [[0.5, 8.5]])


# Convolutions.


def nothing_but(layers: Layers, bias: float = 0.0) -> object:
    """A norm of a channel that only adds a number: beside its epsilon any variance is nothing."""
    gain = torch.full((1,), 2.0**20)
    return layers.norm(gain, torch.tensor([bias]), epsilon=2.0**40, centred=False)


@pytest.mark.parametrize(
    ("taps", "want"),
    [
        ([2.0], [0, 2, 0, 0, 0]),
        ([1.0, 2.0, 3.0], [3, 2, 1, 0, 0]),
        ([1.0, 2.0, 3.0, 4.0], [4, 3, 2, 1, 0]),  # the third is of the frame itself
        ([1.0, 2.0, 3.0, 4.0, 5.0], [4, 3, 2, 1, 0]),
    ],
)
def test_convolution_of_one_frame_gives_the_taps(
    layers: Layers, taps: list[float], want: list[int]
) -> None:
    x = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0]).view(1, 5, 1)
    mix = layers.convolution(torch.tensor(taps)[:, None], None, nothing_but(layers))
    assert_close(mix(x), [[[n / (1 + math.exp(-n))] for n in want]])


@pytest.mark.parametrize(
    ("silu_first", "want"),
    [(False, [SILU[2.0], SILU[3.0], 0.0]), (True, [1 + SILU[1.0], 1 + SILU[2.0], 1 + SILU[-1.0]])],
)
def test_both_orders_of_norm_and_silu(layers: Layers, silu_first: bool, want: list[float]) -> None:
    """Sums 1, 2 and -1 of which 0.5 is the taps' bias; the norm adds 1."""
    norm, taps = nothing_but(layers, bias=1.0), torch.tensor([[1.0], [1.0], [0.0]])
    mix = layers.convolution(taps, torch.tensor([0.5]), norm, silu_first=silu_first)
    x = torch.tensor([0.5, 1.0, -2.5]).view(1, 3, 1)
    assert_close(mix(x), [[[number] for number in want]])


@pytest.mark.parametrize("silu_first", [False, True])
def test_channels_meet_in_the_norm_alone(layers: Layers, silu_first: bool) -> None:
    """Of 2 and 0 the norm makes 1 and -1; SiLU keeps the order of 2 and 0."""
    norm = layers.norm(torch.ones(2), epsilon=0.0)
    mix = layers.convolution(torch.tensor([[1.0, 0.0]]), None, norm, silu_first=silu_first)
    want = [1.0, -1.0] if silu_first else [SILU[1.0], SILU[-1.0]]
    assert_close(mix(torch.tensor([[[2.0, 5.0]]])), [[want]])


def test_an_item_does_not_hear_the_next_one(layers: Layers) -> None:
    mix = layers.convolution(torch.ones(3, 1), None, nothing_but(layers))
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0]])[..., None]
    assert_close(mix(x), [[[SILU[1.0]]] * 2, [[0.0]] * 2])


# Attention.


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turns(positions: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    angles = positions[:, None] * 0.3 ** torch.arange(dim // 2)
    return angles.cos(), angles.sin()


def test_one_frame_hears_itself(layers: Layers) -> None:
    q, k, v = normal(3, 2, 3, 1, 4)
    rotary = turns(torch.tensor([5.0]), 4)
    for got in (layers.attend(q, k, v), layers.attend(q, k, v, rotary=rotary)):
        assert_close(got, v.view(2, 1, 12))


def test_equal_keys_are_heard_equally(layers: Layers) -> None:
    q, v = normal(2, 2, 3, 7, 4)
    k = normal(2, 3, 1, 4, seed=1).expand(2, 3, 7, 4)
    assert_close(layers.attend(q, k, v), v.mean(2).view(2, 1, 12).expand(2, 7, 12))


def test_scores_are_divided_by_the_root_of_their_size(layers: Layers) -> None:
    k = torch.tensor([[math.log(3.0), 0.0, 0.0, 0.0], [0.0] * 4]).view(1, 1, 2, 4)
    q, v = torch.full((1, 1, 2, 4), 2.0), torch.eye(2, 4).view(1, 1, 2, 4)
    assert_close(layers.attend(q, k, v), [[[0.75, 0.25, 0.0, 0.0]] * 2])


def test_a_quarter_turn(layers: Layers) -> None:
    """The second frame's queries and keys are at a right angle to the first one's."""
    q = torch.tensor([2.0, 0.0]).expand(1, 1, 2, 2)
    k = torch.tensor([math.log(3.0) / math.sqrt(2.0), 0.0]).expand(1, 1, 2, 2)
    rotary = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
    got = layers.attend(q, k, torch.eye(2).view(1, 1, 2, 2), rotary=rotary)
    assert_close(got, [[[0.75, 0.25], [0.25, 0.75]]])


def test_turning_keeps_relative_positions(layers: Layers) -> None:
    q, k, v = 2 * normal(3, 2, 3, 9, 8)
    here, later = (turns(torch.arange(9) + start, 8) for start in (0.0, 11.0))
    got = layers.attend(q, k, v, rotary=here)
    torch.testing.assert_close(got, layers.attend(q, k, v, rotary=later), rtol=1e-4, atol=1e-5)
    assert (got - layers.attend(q, k, v)).abs().max() > 0.1


def test_a_hidden_frame_is_not_heard(layers: Layers) -> None:
    q, k, v = normal(3, 2, 3, 9, 8)
    mask, rotary = (torch.arange(9) < 5)[None, None, None], turns(torch.arange(9.0), 8)
    want = layers.attend(q, k, v, mask=mask, rotary=rotary)
    k[:, :, 5:], v[:, :, 5:] = 50.0, 50.0
    assert torch.equal(layers.attend(q, k, v, mask=mask, rotary=rotary), want)
    first = (x[:, :, :5] for x in (q, k, v))
    short = layers.attend(*first, rotary=turns(torch.arange(5.0), 8))
    torch.testing.assert_close(want[:, :5], short, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_the_best_of_huge_scores_is_heard_alone(layers: Layers, size: float) -> None:
    q = torch.ones(1, 1, 3, 2)
    k = size * torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]).view(1, 1, 3, 2)
    v = torch.tensor([[9.0, 9.0], [1.0, 2.0], [9.0, 9.0]]).view(1, 1, 3, 2)
    assert_close(layers.attend(q, k, v), [[[1.0, 2.0]] * 3])


# Together.


def test_layers_give_the_same_together(layers: Layers) -> None:
    first, second = layers.linear(normal(8, 4)), layers.linear(normal(4, 8, seed=1), end="silu")
    norm = layers.norm(normal(4, seed=2))

    def run() -> list[Tensor]:
        x = normal(5, 4)
        second.add_to(x, first(norm(x)))
        return [x, norm(x)]

    want = run()
    with layers.together():
        got = run()
    for one, other in zip(got, want, strict=True):
        assert_close(one, other)


# Nothing in, nothing out.


def test_no_rows(layers: Layers) -> None:
    for end in ENDS:
        linear = layers.linear(torch.ones(4, 2), end=end)
        outputs = 2 if "glu" in end else 4
        assert linear(torch.ones(3, 0, 2)).shape == (3, 0, outputs)
        linear.add_to(torch.ones(0, outputs), torch.ones(0, 2))
    assert layers.norm(torch.ones(2))(torch.ones(0, 2)).shape == (0, 2)
    assert layers.norm(torch.ones(0))(torch.ones(3, 0)).shape == (3, 0)


@pytest.mark.parametrize(("batch", "frames"), [(0, 3), (2, 0)])
def test_no_items_and_no_frames(layers: Layers, batch: int, frames: int) -> None:
    mix = layers.convolution(torch.ones(3, 2), None, layers.norm(torch.ones(2)))
    assert mix(torch.ones(batch, frames, 2)).shape == (batch, frames, 2)
    q = torch.ones(batch, 2, frames, 4)
    assert layers.attend(q, q, q).shape == (batch, frames, 8)


# Types.


def test_a_result_has_the_type_that_is_asked_for(layers: Layers) -> None:
    x = normal(5, 3)
    for make_layer in (layers.norm, layers.linear):
        weight = torch.ones(3) if make_layer == layers.norm else torch.eye(3)
        full, rounded = make_layer(weight)(x), make_layer(weight, result=HALF)(x)
        assert full.dtype == FLOAT
        assert torch.equal(rounded, full.bfloat16())
    norm = layers.norm(torch.ones(3), result=HALF)
    assert layers.convolution(torch.ones(1, 3), None, norm)(x[None]).dtype == HALF


@torch.no_grad()
def test_inputs_of_any_type_and_weights_that_learn_are_taken(layers: Layers) -> None:
    linear = layers.linear(WEIGHT.clone().requires_grad_(), BIAS)
    for dtype in (torch.float64, torch.bfloat16):
        assert_close(linear(X.to(dtype)), [[3.5, 6.0, 11.0], [0.5, 1.0, 4.0]])


# What is refused.


def test_ends_that_cannot_be(layers: Layers) -> None:
    with pytest.raises(UsageError, match="none, silu, glu, swiglu, but is 'relu'"):
        layers.linear(WEIGHT, end="relu")
    for end in ("glu", "swiglu"):
        with pytest.raises(UsageError, match=f"{end}.*even number of outputs, but they are 3"):
            layers.linear(WEIGHT, end=end)


def test_layers_of_no_such_name() -> None:
    with pytest.raises(UsageError, match="torch, onednn, compiled, but is 'fast'"):
        make("fast", FLOAT, "cpu")


@pytest.mark.parametrize("name", ["onednn", "compiled"])
def test_layers_for_a_cpu_are_refused_elsewhere(name: str) -> None:
    with pytest.raises(BackendUnavailable, match=f"'{name}'.*'meta'.*for a CPU") as caught:
        make(name, FLOAT, "meta")
    assert caught.value.plugin == f"speechloom:layers/{name}"
    assert unavailable("torch", FLOAT, "meta") is None


def test_onednn_that_torch_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="has no oneDNN"):
        make("onednn", FLOAT, "cpu")


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("no_numba")
def test_numba_is_missing() -> None:
    with pytest.raises(BackendUnavailable, match=r"numba: pip install speechloom\[fast\]"):
        make("compiled", FLOAT, "cpu")


def test_numba_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("Numba needs NumPy 2.0")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(choice, "_compiled", fail)
    with pytest.raises(BackendUnavailable, match="Numba needs NumPy 2.0"):
        make("compiled", FLOAT, "cpu")


# What is the fastest.


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have torch name the processor's instruction sets: `units` are of bfloat16."""

    def set_up(capability: str, *units: str, cannot: tuple[str, ...] = ()) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        for unit in ("avx512_bf16", "amx_tile"):
            name, has = f"_is_{unit}_supported", unit in units
            monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
        monkeypatch.setattr(
            choice, "unavailable", lambda name, *_: "here not" if name in cannot else None
        )

    return set_up


@pytest.mark.parametrize(
    ("capability", "units", "cannot", "dtype", "want"),
    [
        ("AVX2", [], [], FLOAT, "compiled"),
        ("AVX2", [], ["compiled"], FLOAT, "torch"),
        ("AVX512", [], [], FLOAT, "compiled"),
        ("AVX512", [], ["compiled"], FLOAT, "onednn"),
        ("AVX512", [], ["compiled", "onednn"], FLOAT, "torch"),
        ("AVX512", ["avx512_bf16", "amx_tile"], [], FLOAT, "compiled"),
        ("AVX512", [], [], HALF, "torch"),
        ("AVX512", ["avx512_bf16"], [], HALF, "compiled"),
        ("AVX512", ["avx512_bf16"], ["compiled"], HALF, "onednn"),
        ("AVX512", ["avx512_bf16", "amx_tile"], [], HALF, "onednn"),
        ("AVX512", ["avx512_bf16", "amx_tile"], ["onednn"], HALF, "torch"),
    ],
)
def test_fastest(
    processor: Callable[..., None],
    capability: str,
    units: list[str],
    cannot: list[str],
    dtype: torch.dtype,
    want: str,
) -> None:
    processor(capability, *units, cannot=tuple(cannot))
    assert fastest(dtype, "cpu") == want


@pytest.mark.usefixtures("no_numba")
def test_fastest_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert fastest(FLOAT, "cpu") == "onednn"


@pytest.mark.parametrize("device", ["cuda", "meta"])
@pytest.mark.parametrize("dtype", [FLOAT, HALF])
def test_fastest_elsewhere_than_on_a_cpu(
    processor: Callable[..., None], device: str, dtype: torch.dtype
) -> None:
    processor("AVX512", "avx512_bf16")
    assert fastest(dtype, device) == "torch"


def test_what_is_fastest_can_be_made() -> None:
    for dtype in (FLOAT, HALF):
        assert make(fastest(dtype, "cpu"), dtype, "cpu") is not None


def test_an_import_imports_no_numba(run_alone: Callable[..., None]) -> None:
    run_alone(
        """
        import sys
        import speechloom.ops.layers
        from speechloom.decoding import ExecutionConfig

        ExecutionConfig()
        assert "numba" not in sys.modules
        """
    )
