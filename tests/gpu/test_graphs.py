"""Recorded decodings on a device: no waiting, the same codes, few recordings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from speechloom.decoding import DecodeConfig, ExecutionConfig, masked_decode
from speechloom.decoding.graphs import GraphedDecoder, decode_fixed, plan_decode
from speechloom.errors import UsageError
from speechloom.ops.masked_decode import (
    HeadScores,
    NoiseKeys,
    SampleConfig,
    decode_step,
)
from speechloom.spec import ComponentSpec, GeneratorFacts, Task
from speechloom.values import Canvas

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LEVELS, SIZE, DIM = 3, 1024, 64
CONFIG = DecodeConfig(steps=(6, 2), sample=SampleConfig(top_k=200, top_p=0.95))


class MixingNetwork:
    """Each frame sees itself and the mean over its item, plus a condition [B, F, D]."""

    codebook_size = SIZE
    unconditional = None

    def __init__(self, table: Tensor, heads: Tensor, condition: Tensor) -> None:
        self.table, self.heads, self.condition = table, heads, condition

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        real = (torch.arange(codes.shape[-1], device=codes.device) < lengths[:, None])[..., None]
        own = sum(self.table[k, codes[:, k]] for k in range(LEVELS))
        own = (own + self.condition[items, : codes.shape[-1]]) * real
        mean = own.double().sum(1, keepdim=True) / lengths.clamp(min=1)[:, None, None]
        return (own + mean.to(own.dtype))[rows, frames]

    def head(self, level: int) -> tuple[Tensor, None]:
        return self.heads[level], None


class Weights:
    """Makes conditioned networks of the same weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(LEVELS, SIZE + 1, DIM, generator=generator).to("cuda", dtype)
        self.heads = torch.randn(LEVELS, SIZE, DIM, generator=generator).to("cuda", dtype)

    def __call__(self, content: Tensor) -> MixingNetwork:
        return MixingNetwork(self.table, self.heads, content.to(self.table.dtype))


def make_request(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, frames = len(lengths), max(lengths)
    request = {
        "codes": torch.randint(0, SIZE, (batch, LEVELS, frames), generator=generator),
        "known": torch.rand(batch, LEVELS, frames, generator=generator) < 0.2,
        "lengths": torch.tensor(lengths),
        "seeds": torch.arange(batch) - 2**40,
        "items": torch.arange(batch),
    }
    return {name: x.cuda() for name, x in request.items()}


def make_condition(request: dict[str, Tensor]) -> dict[str, Tensor]:
    batch, _, frames = request["codes"].shape
    generator = torch.Generator().manual_seed(frames)
    return {"content": torch.randn(batch, frames, DIM, generator=generator).cuda()}


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Raise wherever the host waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def weights(request: pytest.FixtureRequest) -> Weights:
    return Weights(request.param)


@pytest.fixture
def decoder(weights: Weights) -> GraphedDecoder:
    return GraphedDecoder(weights, frame_padding={"content": 0.0}, buckets=(32, 64), capacity=2)


def test_a_step_does_not_wait(no_waiting: None) -> None:
    rows = torch.arange(40, device="cuda")
    hidden = torch.ones(40, DIM, device="cuda", dtype=torch.bfloat16)
    result = decode_step(
        HeadScores(hidden=hidden, weight=torch.ones_like(hidden)),
        NoiseKeys(seed=rows, item=rows, position=rows),
        counts=(10, 30),
        keep_open=(3, 0),
        config=SampleConfig(top_k=5, top_p=0.9, forbidden=(1, 7)),
        choice_temperature=1.0,
        impl="triton",
    )
    torch.cuda.set_sync_debug_mode("default")
    assert int(result.closes.sum()) == 37


def test_a_whole_decoding_does_not_wait(weights: Weights) -> None:
    request = make_request([40, 25])
    network = weights(**make_condition(request))
    plan = plan_decode(CONFIG, LEVELS, 40, torch.device("cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = decode_fixed(network, **request, plan=plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(got, masked_decode(network, **request, config=CONFIG))


def test_a_recording_gives_the_codes_of_the_loop(decoder: GraphedDecoder, weights: Weights) -> None:
    for seed, lengths in enumerate(([30, 9], [32, 32], [17, 20])):
        request = make_request(lengths, seed)
        condition = make_condition(request)
        got = decoder(**request, condition=condition, config=CONFIG)
        want = masked_decode(weights(**condition), **request, config=CONFIG)
        assert torch.equal(got, want)
    assert decoder.recordings == 1


def test_playing_back_does_not_wait(decoder: GraphedDecoder) -> None:
    request = make_request([30, 9])
    condition = make_condition(request)
    decoder.warm_up(**request, condition=condition, config=CONFIG)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = decoder(**request, condition=condition, config=CONFIG)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(got.min()) >= 0


def test_the_oldest_recording_makes_room(decoder: GraphedDecoder, weights: Weights) -> None:
    for lengths in ([30], [60], [30, 30], [60], [30]):
        request = make_request(lengths)
        condition = make_condition(request)
        got = decoder(**request, condition=condition, config=CONFIG)
        assert torch.equal(got, masked_decode(weights(**condition), **request, config=CONFIG))
        assert decoder.recordings <= 2


@pytest.mark.parametrize("task", ["synthesize", "continue"])
def test_a_generator_gives_the_same_codes_recorded(task: Task) -> None:
    generators = pytest.importorskip("speechloom_speechsec.generator")
    models = pytest.importorskip("speechloom_speechsec.model")
    sizes = pytest.importorskip("speechloom_speechsec.config")
    spec = ComponentSpec(
        id="toy",
        implementation="toy:Toy",
        summary="Units to codes",
        license="MIT",
        facts=GeneratorFacts(
            tasks=("synthesize", "continue"),
            content=("tokens:toy",),
            free_tasks=("continue",),
            gives="codes:toy",
            frame_rate=50,
            codebooks=LEVELS,
            codebook_size=11,
        ),
    )
    has_content = task == "synthesize"
    canvas = Canvas(
        task,
        ids=torch.zeros(2, LEVELS, 64, dtype=torch.int64),
        known=(torch.arange(64) < 20).expand(2, LEVELS, 64),
        lengths=torch.tensor([64, 64]),
        gives="codes:toy",
        codebook_size=11,
        frame_rate=spec.facts.frame_rate,
        seeds=torch.tensor([1, 2]),
        items=torch.tensor([0, 1]),
        content=torch.arange(128).view(2, 64) % 5 if has_content else None,
        content_kind="tokens:toy" if has_content else None,
    )
    config = DecodeConfig(steps=(4,), sample=SampleConfig(guidance=2.0))
    network = models.SpeechSEC(sizes.tiny(), seed=0)
    one = generators.SpeechSECGenerator(spec, network, decode=config, device="cuda")
    looped = one.fill(canvas).ids
    one.execution = ExecutionConfig(graphs=True)
    one.warm_up(64)
    assert torch.equal(one.fill(canvas).ids, looped)


def test_too_many_frames_and_other_devices_are_named(decoder: GraphedDecoder) -> None:
    request = make_request([65])
    with pytest.raises(UsageError, match="at most 64 frames, but have 65"):
        decoder(**request, condition=make_condition(request))
    request = make_request([10])
    with pytest.raises(UsageError, match="`seeds` must be on cuda"):
        decoder(**{**request, "seeds": request["seeds"].cpu()}, condition=make_condition(request))
