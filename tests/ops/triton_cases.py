"""The decoding step in Triton against its definition, on CUDA or in Triton's interpreter.

Not collected by itself: `test_triton.py` runs it with TRITON_INTERPRET=1 in a process of its own,
since Triton reads the variable once, and `tests/gpu/test_triton.py` runs it on a device. Shapes are
small and odd because the interpreter is slow.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechloom.decoding import DecodeConfig
from speechloom.decoding.graphs import decode_fixed, plan_decode
from speechloom.ops.masked_decode import (
    HeadScores,
    LogitScores,
    NoiseKeys,
    SampleConfig,
    Scores,
    reference,
    sample_rows,
    uniforms,
)
from speechloom.ops.masked_decode import triton as kernels
from speechloom.ops.masked_decode.triton_kernels import INTERPRETED, Tiling

DEVICE = torch.device("cpu" if INTERPRETED.value else "cuda")
GREEDY = SampleConfig(temperature=0.0)
RICH = SampleConfig(temperature=1.3, top_k=9, top_p=0.6, guidance=2.5, forbidden=(0, 3, 4))
CONFIGS = {
    "plain": SampleConfig(),
    "greedy": GREEDY,
    "top-k": SampleConfig(temperature=0.4, top_k=5),
    "top-p": SampleConfig(top_p=0.7),
    "twin alone": SampleConfig(guidance=0.0, forbidden=(1,)),
    "everything": RICH,
}


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a kernel forgets to write is never right by luck."""
    empty = torch.empty

    def poisoned(*shape: int, **options: Any) -> Tensor:
        x = empty(*shape, **options)
        return x.fill_(float("nan") if x.is_floating_point() else -77)

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture(params=["resident", "streamed"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whole rows in a tile, as they are cut up anyway, or many tiles to a row."""
    if request.param == "streamed":
        logits = kernels.Launch(Tiling(8, 16, 16, False), warps=1, stages=1)
        head = kernels.Launch(Tiling(16, 32, 16, False), warps=4, stages=2)
        monkeypatch.setattr(kernels, "plan_logits", lambda size: logits)
        monkeypatch.setattr(kernels, "plan_head", lambda source: head)
        monkeypatch.setattr(kernels, "RESIDENT_RANKS", 16)
    return str(request.param)


def random(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator)).to(DEVICE)


def make_keys(rows: int, seed: int = -7, first: int = 0) -> NoiseKeys:
    position = torch.arange(first, first + rows, device=DEVICE)
    return NoiseKeys(
        seed=torch.full_like(position, seed),
        item=position % 3 + 2**33,
        position=position,
        stage=200,
        level=5,
        step=70,
    )


def make_scores(kind: str, rows: int, size: int, dtype: torch.dtype, seed: int = 0) -> Scores:
    if kind == "logits":
        main, twin = random(2, rows, size, seed=seed).to(dtype)
        return LogitScores(logits=main, unconditional=twin)
    main, twin = random(2, rows, 37, seed=seed, scale=1.0).to(dtype)
    weight, bias = random(size, 37, seed=1, scale=0.4), random(size, seed=2)
    return HeadScores(hidden=main, weight=weight.to(dtype), bias=bias.to(dtype), unconditional=twin)


def logits_of(scores: Scores, config: SampleConfig) -> Tensor:
    """Guided scores float64 [N, V] of the definition."""
    rows = len(scores.hidden if isinstance(scores, HeadScores) else scores.logits)
    return reference.guided_logits(scores, (rows,), config).double()


def check_tokens(
    tokens: Tensor, logits: Tensor, uniform: Tensor, config: SampleConfig, error: float = 2e-5
) -> None:
    """Each token is the one whose step of the cumulative distribution holds the uniform number.

    A step's end may be off by rounding, and a filter may count ids whose scores differ by less.
    """
    for row, token, u in zip(logits, tokens.tolist(), uniform.tolist(), strict=True):
        if config.temperature == 0.0:
            assert row[token] == row.max()
            continue
        loose = SampleConfig(
            temperature=config.temperature, top_k=config.top_k, top_p=min(1.0, config.top_p + error)
        )
        assert reference.filtered_weights(row[None], loose)[0, token] > 0
        weights = reference.filtered_weights(row[None], config)[0]
        ends = weights.cumsum(0) / weights.sum()
        start = float(ends[token - 1]) if token else 0.0
        assert start - error <= u <= float(ends[token]) + error, (token, u)


# Equality with the definition.


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["logits", "head"])
def test_every_option_equals_the_definition(kind: str, name: str, tiles: str) -> None:
    size = {"resident": 23, "streamed": 50}[tiles]
    forbidden = tuple(i for i in CONFIGS[name].forbidden if i < size - 1)
    config = replace(CONFIGS[name], forbidden=forbidden)
    scores, keys = make_scores(kind, 15, size, torch.float32), make_keys(15)
    counts, keep_open = (5, 0, 10), (2, 0, 7)
    options = {"counts": counts, "keep_open": keep_open, "config": config}
    want = reference.decode_step(scores, keys, **options, choice_temperature=0.7)
    got = kernels.decode_step(scores, keys, **options, choice_temperature=0.7)
    check_tokens(got.tokens, logits_of(scores, config), uniforms(keys)[0], config)
    assert torch.equal(got.tokens, want.tokens)
    torch.testing.assert_close(got.confidence, want.confidence, rtol=1e-5, atol=1e-5)
    assert torch.equal(got.closes, reference.choose_closing(got.confidence, counts, keep_open))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["logits", "head"])
def test_half_precision_scores_are_added_up_in_float32(
    kind: str, dtype: torch.dtype, tiles: str
) -> None:
    scores, keys = make_scores(kind, 9, 50, dtype), make_keys(9)
    tokens, confidence = kernels.draw_rows(scores, keys, config=RICH, choice_temperature=0.0)
    want = logits_of(scores, RICH)
    check_tokens(tokens, want, uniforms(keys)[0], RICH)
    sure = want.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(confidence.double(), sure, rtol=1e-5, atol=2e-5)


def test_a_half_precision_hidden_state_meets_a_float32_head() -> None:
    scores = make_scores("head", 5, 30, torch.float32)
    assert isinstance(scores, HeadScores)
    mixed = HeadScores(hidden=scores.hidden.bfloat16(), weight=scores.weight)
    tokens, confidence = kernels.draw_rows(
        mixed, make_keys(5), config=GREEDY, choice_temperature=0.0
    )
    want = logits_of(mixed, GREEDY)
    assert torch.equal(tokens, want.argmax(-1))
    torch.testing.assert_close(
        confidence.double(), want.log_softmax(-1).amax(-1), atol=1e-5, rtol=0
    )


def test_the_largest_vocabulary_is_drawn_from_in_tiles() -> None:
    scores, keys = make_scores("logits", 1, 65_536, torch.float32), make_keys(1)
    config = SampleConfig(top_k=500, guidance=1.5, forbidden=tuple(range(60_000, 65_536)))
    tokens, confidence = kernels.draw_rows(scores, keys, config=config, choice_temperature=0.0)
    want = logits_of(scores, config)
    check_tokens(tokens, want, uniforms(keys)[0], config)
    sure = want.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(confidence.double(), sure, rtol=1e-5, atol=1e-5)


def test_rows_may_lie_apart_or_be_one() -> None:
    wide, keys = random(12, 40), make_keys(12)
    for logits in (wide[:, 3:20], wide[:1].expand(12, 40), wide.T[:12, :12]):
        got = kernels.sample_rows(
            logits, keys, config=SampleConfig(), history=None, repetition_penalty=1.0
        )
        check_tokens(got, logits.double(), uniforms(keys)[0], SampleConfig())


# Filters and ties.


@settings(max_examples=8, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    size=st.integers(2, 40),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1.0),
    temperature=st.sampled_from([0.05, 1.0, 30.0]),
    steps=st.sampled_from([0.0, 1.0, 1e4]),
    data=st.data(),
)
def test_draws_stay_inside_the_filters(
    size: int, top_k: int, top_p: float, temperature: float, steps: float, data: st.DataObject
) -> None:
    forbidden = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
    config = SampleConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, forbidden=tuple(forbidden)
    )
    logits = random(15, size, seed=size)
    if steps:  # many equal scores, and scores far apart
        logits = logits.round() * steps
    keys = make_keys(15)
    got = kernels.sample_rows(logits, keys, config=config, history=None, repetition_penalty=1.0)
    assert not forbidden & set(got.tolist())
    want = reference.forbid(logits, config.forbidden).double()
    check_tokens(got, want, uniforms(keys)[0], config)


def test_equals_of_the_last_id_stay_and_lower_ones_do_not() -> None:
    """Scores 2, 1, 1, 1, 0: top-1 keeps one id, top-2 to top-4 keep four."""
    row = torch.tensor([1.0, 0.0, 2.0, 1.0, 1.0], device=DEVICE)
    for top_k, kept in ((1, {2}), (2, {0, 2, 3, 4}), (4, {0, 2, 3, 4}), (5, {0, 1, 2, 3, 4})):
        got = sample_rows(
            row.expand(80, 5),
            make_keys(80),
            config=SampleConfig(top_k=top_k, temperature=3.0),
            impl="triton",
        )
        assert set(got.tolist()) == kept


@pytest.mark.parametrize("count", [1, 15])
def test_closing_shares_out_ties_to_the_first_rows(count: int, tiles: str) -> None:
    generator = torch.Generator().manual_seed(count)
    confidence = torch.randint(-2, 3, (3 * count,), generator=generator).to(DEVICE).float()
    confidence[::4] *= -0.0  # the zeros are one
    confidence[1] = float("-inf")
    confidence[-1] = float("nan")
    counts = (count, 0, 2 * count)
    for keep in (0, 1, count // 2, count):
        keep_open = (keep, 0, 2 * count - keep)
        table = kernels._to_device(kernels._close_table(counts, keep_open), DEVICE)
        got = kernels.close_rows(confidence, *table, longest=2 * count)
        assert torch.equal(got, reference.choose_closing(confidence, counts, keep_open))


def test_rows_of_no_item_stay_open() -> None:
    table = torch.tensor([[0, 8], [3, 2], [3, 1]], device=DEVICE)
    closes = kernels.close_rows(random(12), *table, longest=5)
    assert closes[:3].all()
    assert int(closes.sum()) == 4


# Exact cases and frequencies.


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**62) - 5])
def test_noise_is_the_noise_of_the_definition(seed: int) -> None:
    """With equal scores the token tells the first uniform number to one part in V."""
    keys = make_keys(64, seed=seed, first=2**32 - 30)
    got, confidence = kernels.draw_rows(
        LogitScores(logits=torch.zeros(64, 128, device=DEVICE)),
        keys,
        config=SampleConfig(),
        choice_temperature=1.0,
    )
    first, second = uniforms(keys)
    assert torch.equal(got, (first * 128).long())
    gumbel = -torch.log(-torch.log(second.double()))
    torch.testing.assert_close(confidence.double() + math.log(128), gumbel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [2, 100])
def test_one_hot_scores_are_drawn_exactly(size: int, tiles: str) -> None:
    target = torch.arange(9, device=DEVICE) * 31 % size
    logits = torch.full((9, size), float("-inf"), device=DEVICE).scatter(1, target[:, None], 5.0)
    config = SampleConfig(temperature=2.0, top_k=3, top_p=0.9)
    got, confidence = kernels.draw_rows(
        LogitScores(logits=logits), make_keys(9), config=config, choice_temperature=0.0
    )
    assert torch.equal(got, target)
    assert torch.equal(confidence, torch.zeros_like(confidence))


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(temperature=0.7),
        SampleConfig(temperature=1.5, top_k=12, top_p=0.9, forbidden=(0, 3)),
    ],
)
def test_frequencies_match_the_distribution(
    config: SampleConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if INTERPRETED.value:  # fewer programs
        many = kernels.Launch(Tiling(512, 32, 16, True), warps=8, stages=1)
        monkeypatch.setattr(kernels, "plan_logits", lambda size: many)
    row, rows = random(20, seed=4, scale=1.0), 4_096
    tokens = sample_rows(row.expand(rows, 20), make_keys(rows), config=config, impl="triton")
    weights = reference.filtered_weights(
        reference.forbid(row[None], config.forbidden).double(), config
    )[0]
    expected = weights / weights.sum() * rows
    observed = torch.bincount(tokens, minlength=20).double()
    live = expected > 0
    assert not observed[~live].any()
    chi_square = ((observed - expected)[live] ** 2 / expected[live]).sum()
    assert float(chi_square) < 55  # at most 19 degrees, p = 2e-5


def test_repetition_penalty_equals_the_definition() -> None:
    logits = random(9, 30)
    history = torch.arange(9 * 5, device=DEVICE).view(9, 5) * 7 % 31 - 1
    keys = make_keys(9)
    options = {"config": GREEDY, "history": history, "repetition_penalty": 1.7}
    got = kernels.sample_rows(logits, keys, **options)
    assert torch.equal(got, reference.sample_rows(logits, keys, **options))


# Rows without a distribution, empty launches, batches.


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, interpreting
@pytest.mark.parametrize("name", ["greedy", "everything"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_without_a_distribution_are_named(bad: float, name: str, tiles: str) -> None:
    main, twin = random(2, 6, 33)
    if bad == float("-inf"):
        main[2] = bad
    else:
        main[2, 30] = bad
    scores = LogitScores(logits=main, unconditional=twin)
    tokens, confidence = kernels.draw_rows(
        scores, make_keys(6), config=CONFIGS[name], choice_temperature=0.5
    )
    assert (tokens == -1).tolist() == confidence.isnan().tolist() == [i == 2 for i in range(6)]


def test_no_rows_give_empty_results() -> None:
    step = kernels.decode_step(
        LogitScores(logits=torch.zeros(0, 5, device=DEVICE)),
        make_keys(0),
        counts=(0, 0),
        keep_open=(0, 0),
        config=SampleConfig(),
        choice_temperature=1.0,
    )
    assert step.tokens.shape == step.confidence.shape == step.closes.shape == (0,)


@pytest.mark.parametrize("kind", ["logits", "head"])
def test_a_row_does_not_see_its_batch(kind: str) -> None:
    scores, keys = make_scores(kind, 23, 60, torch.float32), make_keys(23)
    together = kernels.draw_rows(scores, keys, config=RICH, choice_temperature=1.0)
    for own in (slice(0, 1), slice(5, 23)):
        alone = kernels.draw_rows(
            _rows_of(scores, own), _rows_of(keys, own), config=RICH, choice_temperature=1.0
        )
        assert torch.equal(alone[0], together[0][own])
        if kind == "logits" or not INTERPRETED.value:
            assert torch.equal(alone[1], together[1][own])
        else:  # numpy rounds a product by where a row lies
            torch.testing.assert_close(alone[1], together[1][own])


def _rows_of(record: Any, own: slice) -> Any:
    """Some rows of scores or keys."""
    mine = {
        name: x[own]
        for name, x in vars(record).items()
        if isinstance(x, Tensor) and name not in ("weight", "bias")
    }
    return replace(record, **mine)


@pytest.mark.parametrize(
    ("ids", "runs"),
    [((3,), [(3, 3)]), ((5, 1, 2, 4), [(1, 2), (4, 5)]), ((0, 2), [(0, 0), (2, 2)])],
)
def test_forbidden_ids_are_written_run_by_run(
    ids: tuple[int, ...], runs: list[tuple[int, int]]
) -> None:
    assert list(kernels._runs(ids)) == runs
    mask = kernels.forbidden_mask(ids, 7, DEVICE)
    assert mask is not None
    assert mask.nonzero()[:, 0].tolist() == sorted(ids)
    assert kernels.forbidden_mask((), 7, DEVICE) is None


def test_only_the_right_device_is_available() -> None:
    assert kernels.available(DEVICE) is None
    other = torch.device("cuda" if DEVICE.type == "cpu" else "cpu")
    assert "TRITON_INTERPRET" in (kernels.available(other) or "")


def test_an_old_triton_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.triton, "__version__", "3.2.0")
    assert "needs Triton 3.9 or later, but 3.2.0" in (kernels.available(DEVICE) or "")


# A whole decoding.


class Lookup:
    """Hidden states are sums of a table's rows, for the codes of a frame and of the one before."""

    codebook_size, unconditional = 9, None

    def __init__(self) -> None:
        self.table, self.heads = random(10, 8), random(2, 9, 8, seed=1)

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        own = self.table[codes].sum(1)
        return (own + own.roll(1, 1))[rows, frames]

    def head(self, level: int) -> tuple[Tensor, None]:
        return self.heads[level], None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, interpreting
def test_a_decoding_equals_the_definition_and_names_broken_items() -> None:
    codes = torch.arange(3 * 2 * 12, device=DEVICE).view(3, 2, 12) % 9
    every = torch.arange(3, device=DEVICE)
    request = {
        "codes": codes,
        "known": codes % 4 == 1,
        "lengths": every * -5 + 12,
        "seeds": every - 1,
        "items": every,
        "plan": plan_decode(DecodeConfig(steps=(3, 2), greedy_last=False), 2, 12, DEVICE),
    }
    network = Lookup()
    want = decode_fixed(network, **request, impl="reference")
    assert torch.equal(decode_fixed(network, **request, impl="triton"), want)
    network.heads[1] = float("nan")
    broken = decode_fixed(network, **request, impl="triton")
    real = torch.arange(12, device=DEVICE) < request["lengths"][:, None, None]
    unknown = ~request["known"] & real
    assert (broken[unknown] == -1).all()
    assert torch.equal(broken[~unknown], codes[~unknown])
