"""The CPU path: equal to the reference on every shape and type, in every thread."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from speechloom.ops.masked_decode import (
    HeadScores,
    LogitScores,
    NoiseKeys,
    SampleConfig,
    Scores,
    StepResult,
    decode_step,
    reference,
    sample_rows,
    uniforms,
)

numba = pytest.importorskip("numba")  # nothing but the CPU path is tested here
from speechloom.ops.layers import make  # noqa: E402
from speechloom.ops.masked_decode import cpu, cpu_kernels  # noqa: E402
from speechloom.ops.native import together  # noqa: E402

MakeKeys = Callable[..., NoiseKeys]
SIZES = [2, 3, 17, 1023, 1024, 1025, 65_536]
CONFIGS = [
    SampleConfig(),
    SampleConfig(temperature=0.0),
    SampleConfig(temperature=0.8, top_k=2),
    SampleConfig(temperature=1.3, top_k=308),
    SampleConfig(top_p=0.9),
    SampleConfig(temperature=0.6, top_k=40, top_p=0.5, forbidden=(1,)),
]
NAN = float("nan")


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


def assert_same_step(
    scores: Scores,
    keys: NoiseKeys,
    config: SampleConfig,
    counts: Sequence[int],
    keep_open: Sequence[int],
) -> None:
    """Equal tokens, confidence to rounding, and rows that close by that confidence."""
    call = {"counts": counts, "keep_open": keep_open, "config": config}
    call |= {"choice_temperature": 0.5}
    got = decode_step(scores, keys, impl="cpu", **call)  # type: ignore[arg-type]
    want = decode_step(scores, keys, impl="reference", **call)  # type: ignore[arg-type]
    logits = reference.guided_logits(scores, counts, config)
    assert_same_draw(got.tokens, want.tokens, logits, uniforms(keys)[0], config)
    same = got.tokens == want.tokens
    torch.testing.assert_close(got.confidence[same], want.confidence[same], rtol=1e-5, atol=2e-5)
    assert torch.equal(got.closes, reference.choose_closing(got.confidence, counts, keep_open))


def assert_same_draw(
    got: Tensor, want: Tensor, logits: Tensor, uniform: Tensor, config: SampleConfig
) -> None:
    """Tokens may differ only where the uniform number is at the step between them."""
    assert got.dtype == want.dtype
    for row in (got != want).nonzero()[:, 0].tolist():
        weights = reference.filtered_weights(logits[row : row + 1], config)[0].double()
        share = weights.cumsum(0) / weights.sum()
        low, high = sorted((int(got[row]), int(want[row])))
        assert weights[low] > 0
        assert weights[high] > 0
        assert float((share[low:high] - uniform[row]).abs().max()) < 1e-6


# Equality.


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.usefixtures("poisoned_memory")
def test_logits(make_keys: MakeKeys, rows: int, size: int, config: SampleConfig) -> None:
    logits = surrounded(3 * normal(rows, size))
    assert_same_step(LogitScores(logits=logits), make_keys(rows), config, (rows,), (rows // 2,))


@pytest.mark.parametrize("view", [surrounded, by_columns])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("guidance", [1.0, 0.0, 2.5])
@pytest.mark.usefixtures("poisoned_memory")
def test_types_strides_and_guidance(
    make_keys: MakeKeys, view: Callable[[Tensor], Tensor], dtype: torch.dtype, guidance: float
) -> None:
    scores = LogitScores(
        logits=view(normal(300, 1025).to(dtype)),
        unconditional=view(normal(300, 1025, seed=1).to(dtype)),
    )
    config = SampleConfig(temperature=0.9, top_k=100, guidance=guidance)
    assert_same_step(scores, make_keys(300), config, (100, 0, 200), (99, 0, 1))


@pytest.mark.parametrize(("size", "width"), [(2, 1), (17, 33), (1025, 7), (65_536, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.usefixtures("poisoned_memory")
def test_head(
    make_keys: MakeKeys, size: int, width: int, dtype: torch.dtype, guidance: float
) -> None:
    scores = HeadScores(
        hidden=surrounded(normal(40, width).to(dtype)),
        weight=surrounded(normal(size, width, seed=1).to(dtype)),
        bias=normal(size, seed=2).to(dtype) if size % 2 else None,
        unconditional=surrounded(normal(40, width, seed=3).to(dtype)),
    )
    config = SampleConfig(temperature=0.9, top_k=9, guidance=guidance)
    assert_same_step(scores, make_keys(40), config, (3, 0, 36, 1), (1, 0, 36, 0))


@given(
    values=st.lists(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 3e38, -3e38, 1e-45, float("-inf"), 0.5]),
        min_size=1,
        max_size=70,
    ),
    top_k=st.integers(0, 71),
    temperature=st.sampled_from([0.0, 1e-30, 0.3, 1.0, 1e30]),
)
def test_ties_outliers_and_signed_zeros(
    values: list[float], top_k: int, temperature: float
) -> None:
    logits = torch.tensor([[*values, 0.0]]).expand(5, -1)
    rows = torch.arange(5)
    keys = NoiseKeys(seed=rows, item=rows, position=rows)
    config = SampleConfig(temperature=temperature, top_k=top_k)
    got = sample_rows(logits, keys, config=config, impl="cpu")
    want = sample_rows(logits, keys, config=config, impl="reference")
    assert_same_draw(got, want, logits, uniforms(keys)[0], config)


@pytest.mark.parametrize("top_k", [1, 2, 50, 1023])
def test_top_k_keeps_exactly_the_best(top_k: int) -> None:
    scores = normal(1, 1024)[0].numpy()
    scratch = np.full(3 * 1024, -1, np.int32)
    drawn = {
        cpu.draw_row(scores, np.float32(u), 1e30, top_k, 1.0, scratch)[0]
        for u in (np.arange(4 * 1024) + 0.5) / (4 * 1024)
    }
    assert drawn == set(np.argsort(-scores)[:top_k].tolist())


def test_repetition_penalty(make_keys: MakeKeys) -> None:
    logits, history = normal(200, 50), torch.arange(1000).view(200, 5) * 7 % 53 - 3
    call = {"config": SampleConfig(top_k=20), "history": history, "repetition_penalty": 1.7}
    got = sample_rows(logits, make_keys(200), impl="cpu", **call)  # type: ignore[arg-type]
    want = sample_rows(logits, make_keys(200), impl="reference", **call)  # type: ignore[arg-type]
    assert torch.equal(got, want)


@given(
    confidence=st.lists(st.sampled_from([0.0, -0.0, -1.5, -2.0, NAN, -3.25]), max_size=40),
    data=st.data(),
)
def test_closing(confidence: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(confidence)))
    counts = [cut, len(confidence) - cut]
    keep = [data.draw(st.integers(0, count)) for count in counts]
    values, closes = torch.tensor(confidence), torch.empty(len(confidence), dtype=torch.bool)
    cpu_kernels.close_rows(
        values.numpy(),
        np.array(counts),
        np.array(counts) - np.array(keep),
        np.empty(len(confidence), np.int32),
        closes.numpy(),
    )
    assert torch.equal(closes, reference.choose_closing(values, counts, keep))


# Independence.


def large_step(keys: NoiseKeys, own: slice = slice(None)) -> StepResult:
    rows = len(range(*own.indices(len(keys.seed))))
    return decode_step(
        LogitScores(logits=normal(500, 1024)[own]),
        NoiseKeys(seed=keys.seed[own], item=keys.item[own], position=keys.position[own]),
        counts=(rows,),
        keep_open=(rows // 3,),
        config=SampleConfig(top_k=50, top_p=0.9),
        choice_temperature=1.0,
        impl="cpu",
    )


def test_two_halves_equal_the_whole(make_keys: MakeKeys) -> None:
    keys = make_keys(500)
    whole = large_step(keys)
    halves = [large_step(keys, own) for own in (slice(0, 133), slice(133, 500))]
    for name in ("tokens", "confidence"):
        assert torch.equal(torch.cat([getattr(h, name) for h in halves]), getattr(whole, name))


def test_items_through_a_head_do_not_depend_on_their_batch(make_keys: MakeKeys) -> None:
    """Items longer than a block of the product, and shorter ones, in another order."""
    hidden, weight = normal(500, 96), normal(1024, 96, seed=1)
    keys, counts = make_keys(500), (300, 5, 195)

    def run(own: Tensor, counts: Sequence[int]) -> StepResult:
        return decode_step(
            HeadScores(hidden=hidden[own], weight=weight),
            NoiseKeys(seed=keys.seed[own], item=keys.item[own], position=keys.position[own]),
            counts=counts,
            keep_open=[count // 2 for count in counts],
            config=SampleConfig(top_k=20),
            impl="cpu",
        )

    items = torch.split(torch.arange(500), list(counts))
    together = run(torch.cat(items[::-1]), counts[::-1]).confidence
    parts = torch.split(together, list(counts[::-1]))[::-1]
    for item, count, confidence in zip(items, counts, parts, strict=True):
        assert torch.equal(run(item, (count,)).confidence, confidence)


def test_number_of_threads_changes_nothing(
    make_keys: MakeKeys, threads: Callable[[int], None]
) -> None:
    results = []
    for number in (1, 4):
        threads(number)
        results.append(large_step(make_keys(500)))
    assert torch.equal(results[0].confidence, results[1].confidence)


def test_several_threads_may_decode_at_once(
    make_keys: MakeKeys, threads: Callable[[int], None]
) -> None:
    threads(2)
    want = large_step(make_keys(500)).confidence
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: large_step(make_keys(500)), range(12)):
            assert torch.equal(got.confidence, want)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_process_decodes_too(run_alone: Callable[..., None]) -> None:
    run_alone(
        """
        import os, torch
        from speechloom.ops.masked_decode import NoiseKeys, SampleConfig, sample_rows

        logits, rows = torch.zeros(400, 1024), torch.arange(400)

        def draw():  # no parallel operation of torch: those may hang in a forked process
            keys = NoiseKeys(seed=rows, item=rows, position=rows)
            return sample_rows(logits, keys, config=SampleConfig(), impl="cpu")

        torch.set_num_threads(2)
        want = draw()
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(draw(), want) else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        """,
        "-Wignore::DeprecationWarning",  # Python warns of forks beside threads: that is the case
    )


# Parts that plugins call.


def test_noise_equals_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    seed, item, position = torch.randint(-(2**63), 2**63 - 1, (3, 200), generator=generator)
    keys = NoiseKeys(seed=seed, item=item, position=position, stage=255, level=3, step=65_535)
    got = [
        cpu.row_uniforms(*(int(x) for x in row), keys.packed)
        for row in zip(seed, item, position, strict=True)
    ]
    assert np.array_equal(np.array(got, np.float32).T, torch.stack(uniforms(keys)).numpy())


def test_a_compiled_loop_draws_as_the_operation_does(make_keys: MakeKeys) -> None:
    """What an autoregressive plugin does: its own compiled loop, one row at a time."""
    draw_row, row_uniforms = cpu.draw_row, cpu.row_uniforms

    @numba.njit  # type: ignore[untyped-decorator,misc,unused-ignore]
    def loop(logits, tokens, row, scratch):  # type: ignore[no-untyped-def]
        for n in range(tokens.size):
            row[: logits.shape[1]] = logits[n]
            uniform = row_uniforms(1, 0, n, 0)[0]
            tokens[n] = draw_row(row, uniform, 0.9, 0, 0.95, scratch)[0]

    logits, keys = normal(50, 250), make_keys(50)
    width, tokens = cpu.row_size(250), torch.empty(50, dtype=torch.int64)
    assert width == 256
    row, scratch = np.full(width, -np.inf, np.float32), np.empty(3 * width, np.int32)
    loop(logits.numpy(), tokens.numpy(), row, scratch)
    config = SampleConfig(temperature=0.9, top_p=0.95)
    assert torch.equal(tokens, sample_rows(logits, keys, config=config, impl="reference"))


def test_exponential_is_exact_to_rounding() -> None:
    x = np.linspace(-87, 0, 20_001, dtype=np.float32)
    got = np.array([cpu_kernels._exp(each) for each in x])
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=2.0**-23)
    assert cpu_kernels._exp(np.float32(0)) == 1
    assert cpu_kernels._exp(np.float32(-np.inf)) == 0


def test_a_step_reads_what_queued_layers_write(make_keys: MakeKeys) -> None:
    linear = make("compiled", torch.float32, "cpu").linear(normal(96, 32))
    x, head, keys = normal(40, 32, seed=1), normal(64, 96, seed=2), make_keys(40)

    def step() -> StepResult:
        scores = HeadScores(hidden=linear(x), weight=head)
        config = SampleConfig(top_k=9)
        return decode_step(scores, keys, counts=(40,), keep_open=(20,), config=config, impl="cpu")

    want = step()
    with together():
        got = step()
        logits = linear(x)
        drawn = sample_rows(logits, keys, config=SampleConfig(), impl="cpu")
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.confidence, want.confidence)
    assert torch.equal(drawn, sample_rows(linear(x), keys, config=SampleConfig(), impl="cpu"))
