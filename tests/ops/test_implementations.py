"""Which implementation a call gets, and what happens where there is none."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.masked_decode import (
    LogitScores,
    NoiseKeys,
    SampleConfig,
    decode_step,
    implementations,
    reference,
    sample_rows,
    warm_up,
)

MakeKeys = Callable[..., NoiseKeys]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Modules that are given instead of the real ones; an exception is raised."""
    modules: dict[str, object] = {}

    def load(name: str) -> object:
        module = modules.get(name.rpartition(".")[2], reference)
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(
        implementations,
        "importlib",
        SimpleNamespace(
            import_module=load,
            util=SimpleNamespace(find_spec=lambda name: None if name in modules else name),
        ),
    )
    cached = (
        implementations._load,
        implementations._is_installed,
        implementations._automatic_reason,
    )
    for function in cached:
        function.cache_clear()
    yield modules
    for function in cached:
        function.cache_clear()


def module(reason: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(available=lambda device: reason)


def test_auto_takes_what_is_made_for_the_device(fakes: dict[str, object]) -> None:
    fakes["cpu"] = module()
    assert implementations.choose("auto", CPU) is fakes["cpu"]
    assert implementations.choose("auto", torch.device("meta")) is reference


def test_auto_falls_back_and_a_name_does_not(fakes: dict[str, object]) -> None:
    fakes["cpu"] = module("it has a cold.")
    assert implementations.choose("auto", CPU) is reference
    with pytest.raises(BackendUnavailable, match=r"'cpu'.*'cpu': it has a cold. Or .*auto"):
        implementations.choose("cpu", CPU)


def test_a_package_that_is_absent_is_named_with_the_way_to_it(fakes: dict[str, object]) -> None:
    fakes["numba"] = "absent"
    assert implementations.choose("auto", CPU) is reference
    with pytest.raises(BackendUnavailable, match=r"numba, which is not .*speechloom\[fast\]") as it:
        implementations.choose("cpu", CPU)
    assert it.value.plugin == "speechloom:masked_decode/cpu"


def test_a_package_that_cannot_be_imported_is_told_with_its_cause(
    fakes: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    fakes["cpu"] = ImportError("Numba needs NumPy 2.5 or less")
    with caplog.at_level("INFO"):
        assert implementations.choose("auto", CPU) is reference
    assert "NumPy 2.5 or less" in caplog.text
    with pytest.raises(BackendUnavailable, match="NumPy 2.5 or less"):
        implementations.choose("cpu", CPU)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="auto, reference, cpu, triton"):
        implementations.choose("fast", CPU)


def test_the_cpu_path_refuses_other_devices() -> None:
    pytest.importorskip("numba")
    with pytest.raises(BackendUnavailable, match="CPU tensors"):
        implementations.choose("cpu", CUDA)


def test_warm_up_leaves_nothing_to_compile(impl: str, make_keys: MakeKeys) -> None:
    warm_up(impl=impl)
    if impl == "cpu":
        from speechloom.ops.masked_decode.cpu_kernels import DRAW, close_rows

        assert DRAW.is_compiled
        before = len(close_rows.signatures)
        logits, keys = torch.zeros(9, 40, dtype=torch.bfloat16), make_keys(9)
        history = torch.zeros(9, 2, dtype=torch.int64)
        config = SampleConfig(top_k=2, top_p=0.5, forbidden=(1,))
        sample_rows(logits, keys, config=config, history=history, impl=impl)
        decode_step(
            LogitScores(logits=logits),
            keys,
            counts=(4, 5),
            keep_open=(1, 1),
            config=config,
            choice_temperature=1,
            impl=impl,
        )
        assert before == len(close_rows.signatures) == 1


def test_cold_import_without_numba_and_triton() -> None:
    """Both blocked in a new process: the package imports, auto is the reference, names refuse."""
    script = """
        import sys
        from importlib.machinery import PathFinder

        class Without(PathFinder):
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                if name.partition(".")[0] in ("numba", "triton"):
                    return None
                return PathFinder.find_spec(name, path, target)

        sys.meta_path[:] = [
            Without if finder is PathFinder else finder for finder in sys.meta_path
        ]
        import torch
        from speechloom.errors import BackendUnavailable
        from speechloom.ops.masked_decode import NoiseKeys, SampleConfig, sample_rows

        rows = torch.arange(3)
        keys = NoiseKeys(seed=rows, item=rows, position=rows)
        assert sample_rows(torch.zeros(3, 5), keys, config=SampleConfig()).shape == (3,)
        for impl in ("cpu", "triton"):
            try:
                sample_rows(torch.zeros(3, 5), keys, config=SampleConfig(), impl=impl)
            except BackendUnavailable as error:
                assert "which is not installed" in str(error), error
            else:
                raise SystemExit(f"{impl} did not refuse")
        assert not {"numba", "triton"} & sys.modules.keys()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


def test_importing_the_operation_imports_no_compiler() -> None:
    script = """
        import sys, speechloom.ops.masked_decode as op
        assert not {"numba", "triton"} & sys.modules.keys()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
