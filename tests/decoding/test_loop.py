"""The decoding loop, and every known mistake of public code caught by the judge that passes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from speechloom.decoding import DecodeConfig, loop, masked_decode, open_after
from speechloom.errors import UsageError
from speechloom.ops.masked_decode import (
    HeadScores,
    NoiseKeys,
    SampleConfig,
    StepResult,
    decode_step,
    uniforms,
)


@dataclass
class ToyNetwork:
    """Hidden states that mix the codes of an item's own frames; every call is recorded.

    `flat` makes its scores nearly equal, so that a warm draw hardly ever takes the best id.
    """

    levels: int = 3
    size: int = 12
    dim: int = 16
    flat: bool = False
    unconditional: ToyNetwork | None = None
    calls: list[tuple[int, list[int], Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.levels * 100 + self.size)
        self.table = torch.randn(self.levels, self.size + 1, self.dim, generator=generator)
        self.heads = torch.randn(self.levels, self.size, self.dim, generator=generator)
        self.place = torch.randn(512, self.dim, generator=generator)

    @property
    def codebook_size(self) -> int:
        return self.size

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        self.calls.append((level, items.tolist(), codes.clone()))
        out = torch.zeros(codes.shape[0], codes.shape[2], self.dim)
        for row, length in enumerate(lengths.tolist()):
            own = codes[row, :, :length]
            summed = torch.stack([self.table[k, own[k]] for k in range(self.levels)]).sum(0)
            mixed = summed + summed.mean(0) + self.place[:length]
            out[row, :length] = mixed / mixed.norm(dim=-1, keepdim=True)
        return out[rows, frames]

    def head(self, level: int) -> tuple[Tensor, None]:
        return self.heads[level] * (1e-3 if self.flat else 4.0), None


@dataclass(frozen=True)
class Batch:
    """A request: three items of other lengths, each with another kind of known codes."""

    codes: Tensor
    known: Tensor
    lengths: Tensor
    seeds: Tensor
    items: Tensor

    def take(self, item: int) -> Batch:
        """One item alone, without its padding."""
        one, length = slice(item, item + 1), int(self.lengths[item])
        return Batch(
            self.codes[one, :, :length],
            self.known[one, :, :length],
            self.lengths[one],
            self.seeds[one],
            self.items[one],
        )


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(0, 12, (3, 3, 40), generator=generator)
    known = torch.zeros(3, 3, 40, dtype=torch.bool)
    known[0, :, :15] = True  # a continuation
    known[1, :, :5] = known[1, :, 9:] = True  # an edit: fewer unknown frames than passes
    known[2, 0, 3:6] = True  # some of the coarsest level only
    return Batch(
        codes=codes,
        known=known,
        lengths=torch.tensor([40, 22, 31]),
        seeds=torch.tensor([11, 11, -(2**62)]),
        items=torch.tensor([0, 1, 0]),
    )


# The judge: what the calls of a network tell about the loop that made them.


def violations(network: ToyNetwork, batch: Batch, result: Tensor, config: DecodeConfig) -> set[str]:
    """Judge a decoding by the network's calls and the result; an empty set is a correct one."""
    frames = torch.arange(batch.codes.shape[-1])
    unknown = ~batch.known & (frames < batch.lengths[:, None])[:, None]
    found = set()
    if not torch.equal(result[~unknown], batch.codes[~unknown]):
        found.add("known codes changed")
    if int(result[unknown].min()) < 0 or int(result[unknown].max()) >= network.size:
        found.add("unknown codes left")
    for item in range(len(batch.codes)):
        found |= _judge_item(network, batch, unknown, item, config)
    return found


def _judge_item(
    network: ToyNetwork, batch: Batch, unknown: Tensor, item: int, config: DecodeConfig
) -> set[str]:
    found, length = set(), int(batch.lengths[item])
    for level in range(network.levels):
        seen = [
            codes[items.index(item), :, :length]
            for at, items, codes in network.calls
            if at == level and item in items
        ]
        mine = unknown[item, :, :length]
        unknown_here, steps = int(mine[level].sum()), config.steps_of(level)
        counts = open_after(unknown_here, steps, schedule=config.schedule)
        if len(seen) != len(counts):
            found.add("number of passes")
        still_open = [int((codes[level] == network.size).sum()) for codes in seen]
        if still_open != [unknown_here, *counts][: len(seen)]:
            found.add("schedule")
        for codes in seen:
            if (codes[level + 1 :][mine[level + 1 :]] != network.size).any():
                found.add("finer levels shown")
            if not torch.equal(codes[~mine], batch.codes[item, :, :length][~mine]):
                found.add("known codes not shown")
    return found


def judge(decode: Callable[[ToyNetwork, Batch, DecodeConfig], Tensor], batch: Batch) -> set[str]:
    """Everything that is wrong with a decoding loop."""
    config = DecodeConfig(steps=(6, 2))
    network = ToyNetwork()
    result = decode(network, batch, config)
    found = violations(network, batch, result, config)
    for item in range(len(batch.codes)):
        alone = decode(ToyNetwork(), batch.take(item), config)
        if not torch.equal(alone[0], result[item, :, : alone.shape[-1]]):
            found.add("depends on the batch")
    return found | _judge_heat(decode, batch)


def _judge_heat(
    decode: Callable[[ToyNetwork, Batch, DecodeConfig], Tensor], batch: Batch
) -> set[str]:
    """With nearly equal scores a warm pass takes other ids than the best, a greedy one never."""
    network = ToyNetwork(levels=1, flat=True)
    first = batch.take(0)
    one = replace(first, codes=first.codes[:, :1], known=first.known[:, :1])
    result = decode(network, one, DecodeConfig(steps=(2,)))[0, 0]
    canvases = [codes[0, 0] for _, _, codes in network.calls] + [result]
    best = [_best_ids(codes, network, one) for _, _, codes in network.calls]
    off = []
    for before, after, ids in zip(canvases, canvases[1:], best, strict=False):
        closed = (before == network.size) & (after != network.size)
        off.append(float((after != ids)[closed].float().mean()) if closed.any() else math.nan)
    found = set()
    if not off[0] > 0.5:
        found.add("first pass is cold")
    if off[-1] > 0.0:
        found.add("last pass is not greedy")
    return found


def _best_ids(codes: Tensor, network: ToyNetwork, batch: Batch) -> Tensor:
    zero = torch.tensor([0])
    frames = torch.arange(codes.shape[-1])
    fresh = replace(network, calls=[])
    hidden = fresh.hidden(codes, 0, batch.lengths, zero, torch.zeros_like(frames), frames)
    return (hidden @ network.head(0)[0].T).argmax(-1)


def library(network: ToyNetwork, batch: Batch, config: DecodeConfig) -> Tensor:
    return masked_decode(
        network,
        batch.codes,
        batch.known,
        batch.lengths,
        seeds=batch.seeds,
        items=batch.items,
        config=config,
    )


def test_the_library_makes_no_known_mistake(batch: Batch) -> None:
    assert judge(library, batch) == set()


@pytest.mark.parametrize("greedy_last", [True, False])
@pytest.mark.parametrize("annealing", [True, False])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_every_way_to_decode_obeys_the_judge(
    batch: Batch, schedule: str, annealing: bool, greedy_last: bool
) -> None:
    config = DecodeConfig(
        steps=(5, 3, 2),
        schedule=schedule,
        annealing=annealing,
        greedy_last=greedy_last,
        sample=SampleConfig(top_k=7, forbidden=(2,)),
    )
    network = ToyNetwork()
    result = library(network, batch, config)
    assert violations(network, batch, result, config) == set()
    unknown = ~batch.known & (torch.arange(40) < batch.lengths[:, None])[:, None]
    assert not (result[unknown] == 2).any()


def test_padding_and_values_at_unknown_places_do_not_matter(batch: Batch) -> None:
    wider = replace(
        batch,
        codes=torch.nn.functional.pad(batch.codes.where(batch.known, 9), (0, 9), value=-7),
        known=torch.nn.functional.pad(batch.known, (0, 9)),
    )
    config = DecodeConfig()
    narrow, wide = (library(ToyNetwork(), one, config) for one in (batch, wider))
    for item, length in enumerate(batch.lengths.tolist()):
        assert torch.equal(narrow[item, :, :length], wide[item, :, :length])
    assert (wide[..., 40:] == -7).all()


def test_seed_item_and_stage_choose_the_result(batch: Batch) -> None:
    one = batch.take(0)
    others = [replace(one, seeds=one.seeds + 1), replace(one, items=one.items + 1)]
    base = library(ToyNetwork(), one, DecodeConfig())
    assert torch.equal(base, library(ToyNetwork(), one, DecodeConfig()))
    for other in others:
        assert not torch.equal(base, library(ToyNetwork(), other, DecodeConfig()))
    staged = masked_decode(
        ToyNetwork(), one.codes, one.known, one.lengths, seeds=one.seeds, items=one.items, stage=1
    )
    assert not torch.equal(base, staged)


def test_inputs_and_global_randomness_stay_as_they_were(batch: Batch) -> None:
    codes, state = batch.codes.clone(), torch.random.get_rng_state()
    library(ToyNetwork(), batch, DecodeConfig())
    assert torch.equal(batch.codes, codes)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_result_is_an_ordinary_tensor(batch: Batch) -> None:
    result = library(ToyNetwork(), batch, DecodeConfig(steps=(1,)))
    result[0, 0, 0] = 0  # an inference tensor would refuse
    assert not result.is_inference()


def test_nothing_unknown_calls_no_network(batch: Batch) -> None:
    network = ToyNetwork()
    full = replace(batch, known=torch.ones_like(batch.known))
    assert torch.equal(library(network, full, DecodeConfig()), batch.codes)
    assert network.calls == []


def test_items_that_are_finished_leave_the_batch(batch: Batch) -> None:
    network = ToyNetwork()
    library(network, batch, DecodeConfig(steps=(6, 1, 1)))
    assert [items for level, items, _ in network.calls if level == 0] == [[0, 2]] * 2 + [
        [0, 1, 2]
    ] * 4
    assert [codes.shape[-1] for *_, codes in network.calls] == [40] * 8


def test_progress_counts_every_pass_of_the_network(batch: Batch) -> None:
    network, seen = ToyNetwork(), []
    masked_decode(
        network,
        batch.codes,
        batch.known,
        batch.lengths,
        seeds=batch.seeds,
        items=batch.items,
        config=DecodeConfig(steps=(6, 2)),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 9) for done in range(1, 10)]
    assert len(network.calls) == 9


def test_guidance_uses_the_twin(batch: Batch) -> None:
    twin = ToyNetwork()
    twin.table = -twin.table
    plain = library(ToyNetwork(), batch, DecodeConfig(steps=(1,)))
    config = DecodeConfig(steps=(1,), sample=SampleConfig(guidance=4.0))
    guided = ToyNetwork(unconditional=twin)
    assert not torch.equal(library(guided, batch, config), plain)
    assert len(twin.calls) == len(guided.calls) == 3
    unguided = ToyNetwork(unconditional=twin)
    assert torch.equal(library(unguided, batch, DecodeConfig(steps=(1,))), plain)
    assert len(twin.calls) == 3


def test_guidance_of_the_first_levels_leaves_the_others_alone(batch: Batch) -> None:
    twin = ToyNetwork()
    twin.table = -twin.table
    sample = SampleConfig(guidance=4.0)
    first = DecodeConfig(steps=(2,), sample=sample, guided_levels=1)
    network = ToyNetwork(unconditional=twin)
    mixed = library(network, batch, first)
    assert (len(network.calls), len(twin.calls)) == (4, 2)
    all_levels = library(network, batch, replace(first, guided_levels=None))
    assert torch.equal(mixed[:, 0], all_levels[:, 0])
    assert not torch.equal(mixed, all_levels)
    plain = library(ToyNetwork(), batch, replace(first, sample=SampleConfig()))
    assert torch.equal(library(ToyNetwork(), batch, replace(first, guided_levels=0)), plain)


def test_a_negative_number_of_guided_levels_is_refused() -> None:
    with pytest.raises(UsageError, match="guided_levels"):
        DecodeConfig(guided_levels=-1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"codes": torch.zeros(3, 40, dtype=torch.int64)}, "codes"),
        ({"codes": torch.full((3, 3, 40), 12)}, "0 .. 11"),
        ({"known": torch.zeros(3, 3, 39, dtype=torch.bool)}, "known"),
        ({"lengths": torch.tensor([40, 22])}, "lengths"),
        ({"lengths": torch.tensor([40, 22, 41])}, "lengths"),
        ({"seeds": torch.zeros(3)}, "seeds"),
        ({"items": torch.zeros(2, dtype=torch.int64)}, "items"),
    ],
)
def test_wrong_batches_are_named(batch: Batch, change: dict[str, Tensor], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        library(ToyNetwork(), replace(batch, **change), DecodeConfig())


def test_guidance_without_a_twin_is_refused(batch: Batch) -> None:
    with pytest.raises(UsageError, match="twin"):
        library(ToyNetwork(), batch, DecodeConfig(sample=SampleConfig(guidance=2.0)))


def test_heat_falls_through_the_passes_of_a_level() -> None:
    config = DecodeConfig(steps=(4,), sample=SampleConfig(temperature=2.0), choice_temperature=4.0)
    assert [config.sample_at(0, step).temperature for step in range(4)] == [2.0, 1.5, 1.0, 0.0]
    assert [config.choice_at(0, step) for step in range(4)] == [3.0, 2.0, 1.0, 0.0]
    assert config.sample_at(1, 0).temperature == 0.0  # an only pass is greedy
    warm = replace(config, greedy_last=False)
    assert [warm.sample_at(0, 3).temperature, warm.sample_at(1, 0).temperature] == [0.5, 2.0]
    even = replace(config, annealing=False)
    assert [even.sample_at(0, step).temperature for step in range(4)] == [2.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": (4, 0)}, "steps"),
        ({"schedule": "sine"}, "cosine, linear"),
        ({"choice_temperature": -1.0}, "choice_temperature"),
    ],
)
def test_config_checks_its_numbers(options: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        DecodeConfig(**options)  # type: ignore[arg-type]


# The known mistakes, each made on purpose in a plain loop.


@dataclass(frozen=True)
class PlainLoop:
    """Masked decoding item by item, as short as it can be, with at most one mistake."""

    mistake: str = ""

    def __call__(self, network: ToyNetwork, batch: Batch, config: DecodeConfig) -> Tensor:
        frames = torch.arange(batch.codes.shape[-1])
        fixed = batch.known | (frames >= batch.lengths[:, None])[:, None]
        work = batch.codes.masked_fill(~fixed, network.size)
        for level in range(network.levels):
            for item in range(len(work)):
                self._level(network, batch, config, work, fixed, item, level)
        return work.where(batch.known | ~fixed, batch.codes)

    def _level(
        self,
        network: ToyNetwork,
        batch: Batch,
        config: DecodeConfig,
        work: Tensor,
        fixed: Tensor,
        item: int,
        level: int,
    ) -> None:
        length, steps = int(batch.lengths[item]), config.steps_of(level)
        still = (~fixed[item, level]).nonzero()[:, 0]
        counts = self._counts(batch, fixed, item, level, steps)
        for step, keep in enumerate(counts, start=max(0, steps - len(counts))):
            shown = self._shown(work[item, :, :length], fixed[item, :, :length], level, network)
            one = slice(item, item + 1)
            hidden = network.hidden(
                shown[None],
                level,
                batch.lengths[one],
                batch.items[one],
                torch.zeros_like(still),
                still,
            )
            network.calls[-1][1][:] = [item]
            logits = hidden @ network.head(level)[0].T
            warm = config.sample_at(level, step).temperature
            if self.mistake == "temperature rises":
                warm = (step + 1) / steps
            tokens = _draw(logits, _noise(batch, item, still, level, step), warm)
            sure = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
            work[item, level, still] = tokens
            if self.mistake == "prompt overwritten" and level > 0:
                work[item, level] = tokens[0]
            if self.mistake == "ranked over all levels":
                others = torch.full((2 * len(sure),), float("-inf"))
                ranks = torch.cat((sure, others)).argsort()[: max(keep, 0)]
                worst = ranks[ranks < len(sure)]
            else:
                worst = sure.argsort()[: max(keep, 0)]
            still = still[worst.sort().values]
            work[item, level, still] = network.size

    def _counts(
        self, batch: Batch, fixed: Tensor, item: int, level: int, steps: int
    ) -> tuple[int, ...]:
        own = int((~fixed[item, level]).sum())
        if self.mistake == "one pass too many":
            return (own, *open_after(own, steps)) if own else ()
        if self.mistake == "prompt in the budget":
            counts = open_after(int(batch.lengths[item]), steps)
            return tuple(min(own, count) for count in counts) if own else ()
        if self.mistake == "slices for batch 1":
            counts = open_after(int((~fixed[0, level]).sum()), steps)
            return (*(min(own, count) for count in counts[:-1]), 0) if own else ()
        return open_after(own, steps)

    def _shown(self, own: Tensor, fixed: Tensor, level: int, network: ToyNetwork) -> Tensor:
        shown = own.clone()
        if self.mistake == "guessed finer levels shown":
            shown[level + 1 :] = shown[level + 1 :].where(fixed[level + 1 :], 0)
        if self.mistake == "finer prompt hidden":
            shown[level + 1 :] = network.size
        return shown


def _noise(batch: Batch, item: int, frames: Tensor, level: int, step: int) -> Tensor:
    seed, number = (x[item].expand(len(frames)) for x in (batch.seeds, batch.items))
    keys = NoiseKeys(seed=seed, item=number, position=frames, level=level, step=step)
    return uniforms(keys)[0]


def _draw(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    if temperature == 0.0:
        return logits.argmax(-1)
    cumulative = (logits / temperature).softmax(-1).cumsum(-1)
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)


def test_the_plain_loop_without_a_mistake_passes(batch: Batch) -> None:
    assert judge(PlainLoop(), batch) == set()


@pytest.mark.parametrize(
    ("mistake", "verdict"),
    [
        ("temperature rises", "last pass is not greedy"),
        ("one pass too many", "number of passes"),
        ("ranked over all levels", "schedule"),
        ("prompt in the budget", "schedule"),
        ("prompt overwritten", "known codes changed"),
        ("slices for batch 1", "depends on the batch"),
        ("guessed finer levels shown", "finer levels shown"),
        ("finer prompt hidden", "known codes not shown"),
    ],
)
def test_every_known_mistake_is_caught(batch: Batch, mistake: str, verdict: str) -> None:
    assert verdict in judge(PlainLoop(mistake), batch)


# The same mistakes, put into the library's own loop.

Patch = tuple[Any, str, Any]


def _rising_heat() -> Patch:
    def sample_at(config: DecodeConfig, level: int, step: int) -> SampleConfig:
        return replace(config.sample, temperature=(step + 1) / config.steps_of(level))

    return DecodeConfig, "sample_at", sample_at


def _one_pass_too_many() -> Patch:
    plan = loop._plan_level

    def wasted_first(canvas: Any, level: int, config: DecodeConfig) -> Any:
        passes = plan(canvas, level, config)
        return [replace(one, keep_open=one.counts) for one in passes[:1]] + passes

    return loop, "_plan_level", wasted_first


def _prompt_in_the_budget() -> Patch:
    def counts(unknown: int, steps: int, *, schedule: str) -> tuple[int, ...]:
        return tuple(min(unknown, n) for n in open_after(unknown + 15, steps, schedule=schedule))

    return loop, "open_after", counts


def _ranked_over_all_levels() -> Patch:
    def step(scores: HeadScores, keys: NoiseKeys, **options: Any) -> StepResult:
        spread = [keep // 3 for keep in options.pop("keep_open")]  # the rest falls on finer levels
        return decode_step(scores, keys, keep_open=spread, **options)

    return loop, "decode_step", step


def _prompt_overwritten() -> Patch:
    prepare = loop._prepare

    def forgetful(*args: Any) -> Any:
        canvas = prepare(*args)
        frames = torch.arange(canvas.codes.shape[-1])
        real = (frames < torch.tensor(canvas.lengths)[:, None])[:, None]
        finer = torch.arange(canvas.codes.shape[1])[:, None] > 0
        unknown = canvas.unknown | (real & finer)
        counts = unknown.sum(-1).tolist()
        return replace(canvas, unknown=unknown, counts=counts)

    return loop, "_prepare", forgetful


def _slices_for_batch_one() -> Patch:
    plan = loop._plan_level

    def first_decides(canvas: Any, level: int, config: DecodeConfig) -> Any:
        own = [[counts[level]] for counts in canvas.counts]
        first = [[own[0][0] if one[0] else 0] for one in own]
        passes = plan(replace(canvas, counts=[[0] * level + one for one in first]), level, config)
        left = {item: one[0] for item, one in enumerate(own)}
        for one in passes:
            one.counts[:] = [left[item] for item in one.items]
            one.keep_open[:] = [
                min(keep, left[item]) for item, keep in zip(one.items, one.keep_open, strict=True)
            ]
            left.update(zip(one.items, one.keep_open, strict=True))
        return passes

    return loop, "_plan_level", first_decides


def _shown_as(change: Callable[[Tensor, Any], Tensor]) -> Patch:
    """The network sees levels finer than the current one changed; the canvas stays as it is."""
    scores = loop._Decision._scores

    def changed(decision: Any, one: Any, *rest: Any) -> HeadScores:
        canvas = decision.canvas
        shown, finer = canvas.codes.clone(), slice(one.level + 1, None)
        shown[:, finer] = change(shown[:, finer], canvas)
        return scores(replace(decision, canvas=replace(canvas, codes=shown)), one, *rest)

    return loop._Decision, "_scores", changed


def _guessed_finer_levels_shown() -> Patch:
    return _shown_as(lambda finer, canvas: finer.where(finer != canvas.mask_id, 0))


def _finer_prompt_hidden() -> Patch:
    return _shown_as(lambda finer, canvas: torch.full_like(finer, canvas.mask_id))


@pytest.mark.parametrize(
    ("mistake", "verdict"),
    [
        (_rising_heat, "last pass is not greedy"),
        (_one_pass_too_many, "number of passes"),
        (_prompt_in_the_budget, "schedule"),
        (_ranked_over_all_levels, "schedule"),
        (_prompt_overwritten, "known codes changed"),
        (_slices_for_batch_one, "depends on the batch"),
        (_guessed_finer_levels_shown, "finer levels shown"),
        (_finer_prompt_hidden, "known codes not shown"),
    ],
)
def test_a_mistake_in_the_library_is_caught(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[], Patch], verdict: str
) -> None:
    assert judge(library, batch) == set()
    monkeypatch.setattr(*mistake())
    assert verdict in judge(library, batch)
