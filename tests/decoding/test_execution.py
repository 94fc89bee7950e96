"""How a network runs: what is open is decided for a device, and what is named is never replaced."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speechloom.decoding import ExecutionConfig, execution, has_bfloat16_units
from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.layers import IMPLEMENTATIONS, fastest, unavailable

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
    """Have torch name the instruction sets of a processor."""

    def set_up(capability: str, units: bool) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)

    return set_up


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_layers_that_are_named_are_taken(name: str, precision: str) -> None:
    dtype = DTYPES[precision]
    reason = unavailable(name, dtype, "cpu")
    if reason is not None:
        pytest.skip(reason)
    got = ExecutionConfig(precision=precision, layers=name).on("cpu")
    assert (got.name, got.dtype, got.compile) == (name, dtype, False)
    x = torch.tensor([[1.0, -2.0]])
    assert got.layers.linear(torch.eye(2))(x).dtype == dtype
    assert got.layers.linear(torch.eye(2))(x).tolist() == x.tolist()


@pytest.mark.parametrize("precision", DTYPES)
def test_auto_takes_the_fastest(precision: str) -> None:
    got = ExecutionConfig(precision=precision).on("cpu")
    assert got.name == fastest(DTYPES[precision], "cpu")


@pytest.mark.parametrize(
    ("capability", "units", "precision", "want"),
    [
        ("AVX2", False, "float32", "torch"),
        ("AVX512", False, "float32", "onednn"),
        ("AVX512", False, "bfloat16", "torch"),
        ("AVX512", True, "bfloat16", "onednn"),
        ("AVX512", True, "auto", "onednn"),
    ],
)
def test_auto_takes_what_there_is(
    processor: Callable[[str, bool], None],
    monkeypatch: pytest.MonkeyPatch,
    capability: str,
    units: bool,
    precision: str,
    want: str,
) -> None:
    processor(capability, units)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # no numba
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert ExecutionConfig(precision=precision).on("cpu").name == want
    assert ExecutionConfig(precision=precision, compile=True).on("cpu").name == "torch"


@pytest.mark.parametrize("units", [True, False])
def test_auto_takes_bfloat16_only_where_it_is_computed(
    processor: Callable[[str, bool], None], monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    processor("AVX2", units)
    monkeypatch.setattr(execution, "fastest", lambda *_: "torch")
    assert has_bfloat16_units("cpu") == units
    wanted = torch.bfloat16 if units else torch.float32
    assert ExecutionConfig(precision="auto").on("cpu").dtype == wanted


def test_elsewhere_than_on_a_cpu_the_layers_are_torchs() -> None:
    assert not has_bfloat16_units("meta")
    for config in (ExecutionConfig(precision="auto"), ExecutionConfig(layers="torch")):
        got = config.on(torch.device("meta"))
        assert (got.name, got.dtype) == ("torch", torch.float32)


def test_compilation_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(x: Tensor) -> Tensor:
        return x + x

    compiled: list[tuple[object, bool]] = []
    monkeypatch.setattr(torch, "compile", lambda f, *, dynamic: compiled.append((f, dynamic)))
    assert ExecutionConfig(layers="torch").on("cpu").compiled(double) is double
    assert not compiled
    for layers in ("auto", "torch"):
        got = ExecutionConfig(compile=True, layers=layers).on("cpu")
        assert got.name == "torch"
        got.compiled(double)
    assert compiled == [(double, True)] * 2


# What is refused.


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="auto, float32, bfloat16, but is 'float16'"):
        ExecutionConfig(precision="float16")
    with pytest.raises(UsageError, match="auto, torch, onednn, compiled, but is 'fast'"):
        ExecutionConfig(layers="fast")


@pytest.mark.parametrize("layers", ["onednn", "compiled"])
def test_torch_compiles_its_own_layers_only(layers: str) -> None:
    with pytest.raises(UsageError, match=f"'{layers}'; leave one of them out"):
        ExecutionConfig(layers=layers, compile=True)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_graphs_need_cuda(device: str) -> None:
    with pytest.raises(UsageError, match=f"`graphs` needs a CUDA device.*{device}"):
        ExecutionConfig(graphs=True).on(device)


@pytest.mark.parametrize("layers", ["onednn", "compiled"])
def test_layers_that_are_named_never_fall_back(
    layers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExecutionConfig(layers=layers)
    with pytest.raises(BackendUnavailable, match=f"'{layers}'.*'meta'"):
        config.on("meta")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match=f"'{layers}'.*'cpu'") as caught:
        config.on("cpu")
    assert caught.value.plugin == f"speechloom:layers/{layers}"


def test_memory_is_kept_on_a_cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[None] = []
    monkeypatch.setattr(execution, "keep_freed_memory", lambda: calls.append(None))
    ExecutionConfig(layers="torch").on("meta")
    assert not calls
    ExecutionConfig(layers="torch").on("cpu")
    assert calls
