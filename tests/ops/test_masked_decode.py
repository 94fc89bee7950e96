"""Known answers, properties, frequencies, errors: in this order."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechloom.errors import UsageError
from speechloom.ops.masked_decode import (
    HeadScores,
    LogitScores,
    NoiseKeys,
    SampleConfig,
    StepResult,
    decode_step,
    reference,
    sample_rows,
    uniforms,
)
from speechloom.ops.masked_decode.implementations import choose

MakeKeys = Callable[..., NoiseKeys]
GREEDY = SampleConfig(temperature=0.0)


def logits_of(*rows: Sequence[float]) -> Tensor:
    """Logits whose softmax are these probabilities."""
    return torch.tensor(rows).log()


def random_logits(rows: int, size: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def step(
    logits: Tensor,
    keys: NoiseKeys,
    config: SampleConfig = GREEDY,
    *,
    impl: str,
    counts: Sequence[int] = (),
    keep_open: Sequence[int] = (),
    choice_temperature: float = 0.0,
    unconditional: Tensor | None = None,
) -> StepResult:
    counts = counts or (len(logits),)
    return decode_step(
        LogitScores(logits=logits, unconditional=unconditional),
        keys,
        counts=counts,
        keep_open=keep_open or (0,) * len(counts),
        config=config,
        choice_temperature=choice_temperature,
        impl=impl,
    )


# Known answers.


def test_greedy_takes_the_best_and_the_lowest_of_equals(impl: str, make_keys: MakeKeys) -> None:
    result = step(logits_of([0.1, 0.6, 0.3], [0.4, 0.2, 0.4]), make_keys(2), impl=impl)
    assert result.tokens.tolist() == [1, 0]
    assert result.confidence.exp().tolist() == pytest.approx([0.6, 0.4])
    assert result.closes.tolist() == [True, True]


def test_draw_inverts_the_cumulative_distribution(impl: str, make_keys: MakeKeys) -> None:
    keys = make_keys(50)
    result = step(logits_of([0.25, 0.25, 0.5]).expand(50, 3), keys, SampleConfig(), impl=impl)
    u = uniforms(keys)[0]
    assert torch.equal(result.tokens, (u >= 0.25).long() + (u >= 0.5).long())


def test_confidence_ignores_temperature_and_filters(impl: str, make_keys: MakeKeys) -> None:
    config = SampleConfig(temperature=0.2, top_k=1)
    result = step(logits_of([0.5, 0.3, 0.2]), make_keys(1), config, impl=impl)
    assert result.confidence.exp().tolist() == pytest.approx([0.5])


def test_choice_noise_is_gumbel_of_the_second_uniform(impl: str, make_keys: MakeKeys) -> None:
    keys = make_keys(4)
    plain = step(random_logits(4, 9), keys, impl=impl).confidence
    noisy = step(random_logits(4, 9), keys, choice_temperature=0.7, impl=impl).confidence
    gumbel = torch.tensor([-math.log(-math.log(float(u))) for u in uniforms(keys)[1]])
    torch.testing.assert_close(noisy - plain, 0.7 * gumbel, rtol=1e-5, atol=1e-5)


def test_guidance_moves_away_from_the_unconditional(impl: str, make_keys: MakeKeys) -> None:
    cond, free = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    config = SampleConfig(temperature=0.0, guidance=3.0)  # [0, 4] + 3 [1, -2] = [3, -2]
    result = step(cond, make_keys(1), config, unconditional=free, impl=impl)
    assert result.tokens.tolist() == [0]
    assert result.confidence.tolist() == pytest.approx([-math.log1p(math.exp(-5))])


def test_ranking_is_per_item_and_equal_rows_close_in_order(impl: str, make_keys: MakeKeys) -> None:
    best = [0.9, 0.5, 0.7, 0.6, 0.6, 0.6]
    logits = logits_of(*([p, 1 - p] for p in best))
    result = step(logits, make_keys(6), counts=(3, 0, 3), keep_open=(1, 0, 2), impl=impl)
    assert result.closes.tolist() == [True, False, True, True, False, False]


def test_head_scores_equal_their_logits(impl: str, make_keys: MakeKeys) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, free = torch.randn(2, 5, 8, generator=generator)
    weight, bias = torch.randn(7, 8, generator=generator), torch.randn(7, generator=generator)
    config = SampleConfig(guidance=2.0)
    heads = HeadScores(hidden=hidden, weight=weight, bias=bias, unconditional=free)
    got = decode_step(
        heads, make_keys(5), counts=(2, 3), keep_open=(1, 1), config=config, impl=impl
    )
    logits, free = hidden @ weight.T + bias, free @ weight.T + bias
    want = step(
        logits, make_keys(5), config, unconditional=free, counts=(2, 3), keep_open=(1, 1), impl=impl
    )
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.closes, want.closes)
    torch.testing.assert_close(got.confidence, want.confidence)


def test_repetition_penalty_divides_and_multiplies(impl: str, make_keys: MakeKeys) -> None:
    logits = torch.tensor([[2.0, 1.9, -1.0], [-1.0, -1.5, -9.0]])
    history = torch.tensor([[0, -1], [0, 0]])
    got = sample_rows(
        logits, make_keys(2), config=GREEDY, history=history, repetition_penalty=2.0, impl=impl
    )
    assert got.tolist() == [1, 1]


# Properties.


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    size=st.integers(2, 40),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1.0),
    temperature=st.sampled_from([0.0, 0.05, 1.0, 30.0]),
    data=st.data(),
)
def test_draw_stays_inside_the_filters(
    impl: str,
    seed: int,
    size: int,
    top_k: int,
    top_p: float,
    temperature: float,
    data: st.DataObject,
) -> None:
    forbidden = data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
    logits = random_logits(33, size, seed=seed % 1000)
    config = SampleConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, forbidden=tuple(forbidden)
    )
    rows = torch.arange(33)
    keys = NoiseKeys(seed=torch.full_like(rows, seed), item=rows, position=rows)
    tokens = step(logits, keys, config, impl=impl).tokens
    assert not forbidden & set(tokens.tolist())
    for row, token in zip(logits.double(), tokens.tolist(), strict=True):
        assert token in allowed_ids(row, config)


def allowed_ids(row: Tensor, config: SampleConfig) -> set[int]:
    """The filters again, one row, plain loops."""
    ids = [i for i in range(len(row)) if i not in config.forbidden]
    ids.sort(key=lambda i: -float(row[i]))
    if config.temperature == 0.0:
        return {ids[0]}
    ids = ids[: config.top_k or None]
    weights = [math.exp(float(row[i] - row[ids[0]]) / config.temperature) for i in ids]
    kept, mass = set(), 0.0
    for i, weight in zip(ids, weights, strict=True):
        if mass >= config.top_p * sum(weights) * (1 + 1e-5):
            break
        kept.add(i)
        mass += weight
    return kept


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_batch_equals_items_alone(
    impl: str, counts: list[int], seed: int, data: st.DataObject
) -> None:
    keep = [data.draw(st.integers(0, count)) for count in counts]
    rows, config = sum(counts), SampleConfig(top_k=5, temperature=0.8)
    item = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    position = torch.arange(rows) * 7 % 31
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 24, generator=generator)
    weight = torch.randn(13, 24, generator=generator)

    def run(own: slice, counts: Sequence[int], keep: Sequence[int]) -> StepResult:
        keys = NoiseKeys(seed=item[own] + seed, item=item[own], position=position[own], step=2)
        return decode_step(
            HeadScores(hidden=hidden[own], weight=weight),
            keys,
            counts=counts,
            keep_open=keep,
            config=config,
            choice_temperature=1.0,
            impl=impl,
        )

    together, start = run(slice(0, rows), counts, keep), 0
    for count, stays in zip(counts, keep, strict=True):
        own = slice(start, start + count)
        alone = run(own, (count,), (stays,))
        assert torch.equal(together.tokens[own], alone.tokens)
        assert torch.equal(together.confidence[own], alone.confidence)
        assert torch.equal(together.closes[own], alone.closes)
        assert int((~alone.closes).sum()) == stays
        start += count


def test_the_least_confident_stay_open(impl: str, make_keys: MakeKeys) -> None:
    result = step(random_logits(40, 11), make_keys(40), keep_open=(13,), impl=impl)
    stays = result.confidence[~result.closes]
    assert len(stays) == 13
    assert float(stays.max()) <= float(result.confidence[result.closes].min())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_scores_are_added_up_in_float32(
    impl: str, make_keys: MakeKeys, dtype: torch.dtype
) -> None:
    logits = random_logits(64, 100).to(dtype)
    got = step(logits, make_keys(64), SampleConfig(), impl=impl)
    want = step(logits.float(), make_keys(64), SampleConfig(), impl=impl)
    assert got.confidence.dtype == torch.float32
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.confidence, want.confidence)


def test_autocast_does_not_lower_the_precision_of_the_head(impl: str, make_keys: MakeKeys) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(9, 32, generator=generator) for _ in range(2))
    options = {"counts": (9,), "keep_open": (0,), "config": SampleConfig()}
    scores = HeadScores(hidden=hidden, weight=weight)
    want = decode_step(scores, make_keys(9), **options, impl=impl)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        got = decode_step(scores, make_keys(9), **options, impl=impl)  # type: ignore[arg-type]
    assert torch.equal(got.confidence, want.confidence)


@pytest.mark.parametrize("size", [2, 7, 1000, 1024])
def test_one_hot_scores_are_drawn_exactly(impl: str, make_keys: MakeKeys, size: int) -> None:
    target = torch.arange(257) * 31 % size
    logits = torch.full((257, size), float("-inf")).scatter(1, target[:, None], 5.0)
    result = step(logits, make_keys(257), SampleConfig(temperature=2.0), impl=impl)
    assert torch.equal(result.tokens, target)
    assert torch.equal(result.confidence, torch.zeros(257))


def test_no_rows_give_empty_results(impl: str, make_keys: MakeKeys) -> None:
    result = step(torch.empty(0, 5), make_keys(0), counts=(0, 0), impl=impl)
    assert result.tokens.shape == result.closes.shape == (0,)


# Frequencies.


def chi_square(tokens: Tensor, probabilities: Tensor) -> float:
    observed = torch.bincount(tokens, minlength=len(probabilities)).double()
    expected = probabilities * len(tokens)
    live = expected > 0
    assert not observed[~live].any()
    return float(((observed - expected)[live] ** 2 / expected[live]).sum())


@pytest.mark.parametrize(
    ("config", "keeps"),
    [
        (SampleConfig(), 20),
        (SampleConfig(temperature=0.7), 20),
        (SampleConfig(top_k=6), 6),
        (SampleConfig(top_p=0.8), 6),
        (SampleConfig(temperature=1.5, top_k=12, top_p=0.9, forbidden=(0, 3)), 9),
    ],
)
def test_frequencies_match_the_distribution(
    impl: str, make_keys: MakeKeys, config: SampleConfig, keeps: int
) -> None:
    row = 0.5 * random_logits(1, 20, seed=4)[0]
    ids = sorted(allowed_ids(row.double(), config))
    assert len(ids) == keeps
    wanted = torch.zeros(20, dtype=torch.float64)
    wanted[ids] = (row[ids].double() / config.temperature).softmax(-1)
    rows = 200_000
    tokens = sample_rows(row.expand(rows, 20), make_keys(rows), config=config, impl=impl)
    assert chi_square(tokens, wanted) < 60  # 19 degrees, p = 4e-6


def test_the_frequency_test_can_fail(impl: str, make_keys: MakeKeys) -> None:
    row = 0.5 * random_logits(1, 20, seed=4)[0]
    config = SampleConfig(temperature=0.97)
    tokens = sample_rows(row.expand(200_000, 20), make_keys(200_000), config=config, impl=impl)
    assert chi_square(tokens, row.double().softmax(-1)) > 60


def test_choice_noise_picks_rows_in_proportion(impl: str, make_keys: MakeKeys) -> None:
    """Gumbel noise at temperature 1: the first to close is a draw from the confidences."""
    best = torch.tensor([0.5, 0.6, 0.8, 0.95])
    items = 20_000
    logits = torch.stack((best, 1 - best), -1).log().repeat(items, 1)
    counts, keep = (4,) * items, (3,) * items
    result = step(
        logits,
        make_keys(4 * items),
        counts=counts,
        keep_open=keep,
        choice_temperature=1.0,
        impl=impl,
    )
    first = result.closes.view(items, 4).long().argmax(-1)
    assert chi_square(first, (best / best.sum()).double()) < 25  # 3 degrees, p = 1.5e-5


# Errors.


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"counts": (2,)}, "counts"),
        ({"keep_open": (4,)}, "keep_open"),
        ({"keep_open": (0, 0)}, "keep_open"),
        ({"impl": "fast"}, "auto, reference, cpu, triton"),
        ({"scores": LogitScores(logits=torch.zeros(3, 4, dtype=torch.int64))}, "logits"),
        (
            {"scores": LogitScores(logits=torch.zeros(3, 4), unconditional=torch.zeros(3, 5))},
            "unconditional",
        ),
        ({"scores": HeadScores(hidden=torch.zeros(3, 4), weight=torch.zeros(4, 5))}, "hidden"),
        ({"config": SampleConfig(guidance=2.0)}, "guidance"),
        ({"config": SampleConfig(forbidden=(4,))}, "forbidden"),
        ({"config": SampleConfig(forbidden=(0, 1, 2, 3))}, "forbidden"),
    ],
)
def test_wrong_calls_are_named(make_keys: MakeKeys, change: dict[str, object], named: str) -> None:
    call: dict[str, object] = {
        "scores": LogitScores(logits=torch.zeros(3, 4)),
        "keys": make_keys(3),
        "counts": (3,),
        "keep_open": (0,),
        "config": SampleConfig(),
    }
    with pytest.raises(UsageError, match=named):
        decode_step(**(call | change))  # type: ignore[arg-type]


def test_keys_must_fit_the_rows(make_keys: MakeKeys) -> None:
    with pytest.raises(UsageError, match="keys.seed"):
        sample_rows(torch.zeros(3, 4), make_keys(2), config=SampleConfig())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"config": SampleConfig(guidance=2.0)}, "guidance|one set"),
        ({"config": SampleConfig(), "repetition_penalty": 0.0}, "repetition_penalty"),
    ],
)
def test_sample_rows_refuses_what_it_cannot_do(
    make_keys: MakeKeys, options: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        sample_rows(torch.zeros(3, 4), make_keys(3), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [{"temperature": -0.1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0.0}],
)
def test_sample_config_checks_its_numbers(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        SampleConfig(**options)  # type: ignore[arg-type]


# Rows without a distribution.

BAD_ROWS = [
    [float("nan"), 1.0, 2.0],
    [0.0, -float("nan"), 2.0],
    [0.0, float("inf"), 2.0],
    [float("-inf")] * 3,
]


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("config", [GREEDY, SampleConfig(top_k=2), SampleConfig(top_p=0.5)])
def test_rows_without_a_distribution_are_named(
    impl: str, make_keys: MakeKeys, bad: list[float], config: SampleConfig
) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], bad])
    with pytest.raises(UsageError, match="1 of 2 rows have NaN.*row 1 first"):
        step(logits, make_keys(2), config, impl=impl)
    with pytest.raises(UsageError, match="1 of 2 rows have NaN.*row 1 first"):
        sample_rows(logits, make_keys(2), config=config, impl=impl)


def test_rows_without_a_distribution_rank_last(impl: str, make_keys: MakeKeys) -> None:
    module = choose(impl, torch.device("cpu"))
    result = module.decode_step(
        LogitScores(logits=torch.tensor([*BAD_ROWS, [0.0, 1.0, 2.0]])),
        make_keys(5),
        counts=(5,),
        keep_open=(3,),
        config=SampleConfig(),
        choice_temperature=0.0,
    )
    assert result.confidence.isnan().tolist() == [True] * 4 + [False]
    assert result.closes.tolist() == [True, False, False, False, True]


def test_forbidding_all_that_is_finite_is_named(impl: str, make_keys: MakeKeys) -> None:
    logits = torch.tensor([[1.0, float("-inf")]])
    with pytest.raises(UsageError, match="nothing but -inf"):
        step(logits, make_keys(1), SampleConfig(forbidden=(0,)), impl=impl)


# Known mistakes: each is put into the definition, and the equality of the paths must see it.

ORIGINAL_CLOSING, ORIGINAL_GUIDED = reference.choose_closing, reference.guided_logits


def _no_ties(logits: Tensor, config: SampleConfig) -> Tensor:
    kept = logits.topk(min(config.top_k, logits.shape[-1]), dim=-1)
    return torch.zeros_like(logits).scatter(-1, kept.indices, kept.values.exp())


def _same_noise(keys: NoiseKeys) -> tuple[Tensor, Tensor]:
    first = torch.zeros_like(keys.position)
    return uniforms(NoiseKeys(seed=keys.seed, item=first, position=first, step=keys.step))


MISTAKES: dict[str, tuple[str, object]] = {
    "equals of the k-th are dropped": ("filtered_weights", _no_ties),
    "temperature multiplies": (
        "filtered_weights",
        lambda logits, config: (
            (logits - logits.amax(-1, keepdim=True)) * config.temperature
        ).exp(),
    ),
    "items compete with each other": (
        "choose_closing",
        lambda confidence, counts, keep_open: (
            confidence.argsort(descending=True).argsort() < sum(counts) - sum(keep_open)
        ),
    ),
    "the most confident stay open": (
        "choose_closing",
        lambda confidence, counts, keep_open: ORIGINAL_CLOSING(-confidence, counts, keep_open),
    ),
    "the first item alone": (
        "choose_closing",
        lambda confidence, counts, keep_open: ORIGINAL_CLOSING(
            confidence, counts, (keep_open[0], *counts[1:])
        ),
    ),
    "noise is the same in all rows": ("uniforms", _same_noise),
    "one uniform number for both": ("uniforms", lambda keys: (uniforms(keys)[0],) * 2),
    "forbidden ids are kept": ("forbid", lambda logits, forbidden: logits),
    "guidance points to the unconditional": (
        "guided_logits",
        lambda scores, counts, config: reference.forbid(
            scores.logits + config.guidance * (scores.unconditional - scores.logits),
            config.forbidden,
        ),
    ),
    "probability of a cut distribution as confidence": (
        "guided_logits",
        lambda scores, counts, config: reference.filtered_weights(
            ORIGINAL_GUIDED(scores, counts, config), config
        ).log(),
    ),
}


def _tell_apart() -> bool:
    """Whether the reference and the CPU path give different steps on a case with everything."""
    rows, generator = torch.arange(300), torch.Generator().manual_seed(0)
    logits, free = torch.randn(2, 300, 12, generator=generator).round(decimals=1)
    results = [
        decode_step(
            LogitScores(logits=logits, unconditional=free),
            NoiseKeys(seed=rows * 0 + 5, item=rows // 100, position=rows, step=2),
            counts=(100, 0, 150, 50),
            keep_open=(30, 0, 20, 10),
            config=SampleConfig(temperature=0.6, top_k=5, guidance=1.5, forbidden=(2,)),
            choice_temperature=0.7,
            impl=impl,
        )
        for impl in ("reference", "cpu")
    ]
    return not (
        torch.equal(results[0].tokens, results[1].tokens)
        and torch.equal(results[0].closes, results[1].closes)
        and torch.allclose(results[0].confidence, results[1].confidence, atol=1e-5)
    )


@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_known_mistakes_are_seen(monkeypatch: pytest.MonkeyPatch, mistake: str | None) -> None:
    pytest.importorskip("numba")
    if mistake is not None:
        monkeypatch.setattr(reference, *MISTAKES[mistake])
    assert _tell_apart() == (mistake is not None)


def test_frequencies_match_with_guidance(impl: str, make_keys: MakeKeys) -> None:
    scores, rows = 0.5 * random_logits(2, 20, seed=4), 100_000
    result = step(
        scores[:1].expand(rows, 20),
        make_keys(rows),
        SampleConfig(guidance=1.8),
        unconditional=scores[1:].expand(rows, 20),
        impl=impl,
    )
    wanted = scores[1].double() + 1.8 * (scores[0] - scores[1]).double()
    assert chi_square(result.tokens, wanted.softmax(-1)) < 60  # 19 degrees, p = 4e-6


@pytest.mark.parametrize(
    ("history", "named"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), "history"),
        (torch.zeros(3, 1), "history"),
        (torch.full((3, 1), 4), "below 4"),
    ],
)
def test_history_must_fit(make_keys: MakeKeys, history: Tensor, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        sample_rows(torch.zeros(3, 4), make_keys(3), config=SampleConfig(), history=history)
