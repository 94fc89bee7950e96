"""Decoding with fixed shapes gives what the loop gives; recording it needs CUDA (`tests/gpu`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speechloom.decoding import DecodeConfig, graphs, masked_decode, open_after
from speechloom.decoding.graphs import (
    DecodePlan,
    GraphedDecoder,
    decode_fixed,
    first_frames,
    plan_decode,
)
from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.masked_decode import SampleConfig

LEVELS, SIZE, DIM = 3, 11, 8


class MixingNetwork:
    """Each frame sees the codes of its own item's real frames, itself and the level most."""

    codebook_size = SIZE

    def __init__(self, seed: int = 0, unconditional: MixingNetwork | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(LEVELS, SIZE + 1, DIM, generator=generator)
        self.heads = torch.randn(LEVELS, SIZE, DIM, generator=generator)
        self.place = torch.randn(100, DIM, generator=generator)
        self.unconditional = unconditional

    def to(self, device: str) -> MixingNetwork:
        for name in ("table", "heads", "place"):
            setattr(self, name, getattr(self, name).to(device))
        return self

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        frame = torch.arange(codes.shape[-1], device=codes.device)
        real = (frame < lengths[:, None])[..., None]
        own = torch.stack([self.table[k, codes[:, k]] for k in range(LEVELS)]).sum(0)
        own = (own * real).double()
        mean = own.sum(1, keepdim=True) / lengths.clamp(min=1)[:, None, None]
        states = torch.where(real, own + mean + self.place[: codes.shape[-1]], torch.nan)
        return states.float()[rows, frames]

    def head(self, level: int) -> tuple[Tensor, None]:
        return self.heads[level], None


@dataclass(frozen=True)
class Request:
    codes: Tensor
    known: Tensor
    lengths: Tensor
    seeds: Tensor
    items: Tensor


def make_request(lengths: list[int], frames: int, seed: int, known: float) -> Request:
    generator = torch.Generator().manual_seed(seed)
    batch = len(lengths)
    return Request(
        codes=torch.randint(0, SIZE, (batch, LEVELS, frames), generator=generator),
        known=torch.rand(batch, LEVELS, frames, generator=generator) < known,
        lengths=torch.tensor(lengths),
        seeds=torch.randint(-(2**40), 2**40, (batch,), generator=generator),
        items=torch.arange(batch) % 2,
    )


def loop(network: MixingNetwork, request: Request, config: DecodeConfig) -> Tensor:
    return masked_decode(network, **vars(request), stage=1, config=config)


def fixed(
    network: MixingNetwork, request: Request, config: DecodeConfig, plan: DecodePlan | None = None
) -> Tensor:
    plan = plan or plan_decode(config, LEVELS, request.codes.shape[-1], request.codes.device)
    return decode_fixed(network, **vars(request), stage=1, plan=plan)


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(0, 24), min_size=1, max_size=4),
    known=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    steps=st.lists(st.integers(1, 6), max_size=3),
    schedule=st.sampled_from(["cosine", "linear"]),
    greedy_last=st.booleans(),
    seed=st.integers(0, 999),
)
def test_fixed_shapes_give_the_codes_of_the_loop(
    lengths: list[int],
    known: float,
    steps: list[int],
    schedule: str,
    greedy_last: bool,
    seed: int,
) -> None:
    request = make_request(lengths, 24, seed, known)
    config = DecodeConfig(
        steps=tuple(steps), schedule=schedule, greedy_last=greedy_last, sample=SampleConfig(top_k=7)
    )
    assert torch.equal(
        fixed(MixingNetwork(), request, config), loop(MixingNetwork(), request, config)
    )


@pytest.mark.parametrize(
    "sample",
    [
        SampleConfig(temperature=0.0),
        SampleConfig(top_p=0.7, forbidden=(0, 4)),
        SampleConfig(guidance=2.5),
    ],
)
def test_every_way_to_sample_equals_the_loop(sample: SampleConfig) -> None:
    request = make_request([30, 17, 1], 30, 4, 0.3)
    network = MixingNetwork(unconditional=MixingNetwork(seed=1))
    for levels in (None, 1):
        config = DecodeConfig(steps=(5, 2), sample=sample, greedy_last=False, guided_levels=levels)
        assert torch.equal(fixed(network, request, config), loop(network, request, config))


def test_a_bucket_with_more_frames_changes_nothing() -> None:
    request, config = make_request([20, 9], 20, 2, 0.2), DecodeConfig(steps=(4,))
    wide = replace(
        request,
        codes=torch.nn.functional.pad(request.codes, (0, 12)),
        known=torch.nn.functional.pad(request.known, (0, 12), value=True),
    )
    result = fixed(MixingNetwork(), wide, config)
    assert torch.equal(result[..., :20], loop(MixingNetwork(), request, config))
    assert not result[..., 20:].any()


@pytest.mark.parametrize(
    "sample", [SampleConfig(top_k=3), SampleConfig(top_p=0.5, guidance=2.0, forbidden=(1,))]
)
def test_nothing_is_asked_of_the_device(
    sample: SampleConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without data refuse to answer, as a recording would."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    request = make_request([20, 9], 20, 2, 0.2)
    absent = Request(**{name: x.to("meta") for name, x in vars(request).items()})
    network = MixingNetwork(unconditional=MixingNetwork(1).to("meta")).to("meta")
    config = DecodeConfig(steps=(4, 2), sample=sample, greedy_last=False)
    result = fixed(network, absent, config)
    assert (result.device.type, result.shape) == ("meta", request.codes.shape)
    with pytest.raises((RuntimeError, NotImplementedError)):
        loop(network, absent, config)  # asks once


def test_plan_joins_late_and_has_room_for_every_item() -> None:
    config = DecodeConfig(steps=(4, 1))
    plan = plan_decode(config, 2, 9, torch.device("cpu"))
    assert plan.keep_open[0][2].tolist() == [2, 2, 1, 0]
    assert plan.keep_open[0][9].tolist() == list(open_after(9, 4))
    assert plan.room == ((9, 8, 6, 3), (9,))
    assert plan.frames == 9


def test_first_frames_are_ascending_and_end_with_the_number_of_frames() -> None:
    is_open = torch.tensor([[0, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 1]]).bool()
    assert first_frames(is_open, 3).tolist() == [[1, 3, 4], [5, 5, 5], [0, 4, 5]]


def test_the_result_is_an_ordinary_tensor_and_the_input_is_unchanged() -> None:
    request = make_request([12], 12, 0, 0.5)
    before = request.codes.clone()
    result = fixed(MixingNetwork(), request, DecodeConfig(steps=(2,)))
    result[0, 0, 0] = 0  # an inference tensor would refuse
    assert torch.equal(request.codes, before)


def test_no_frames_call_no_network() -> None:
    request, config = make_request([0], 0, 0, 0.0), DecodeConfig()
    assert fixed(MixingNetwork(), request, config).shape == (1, LEVELS, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"known": torch.zeros(1, 3, 9, dtype=torch.bool)}, "known"),
        ({"lengths": torch.tensor([1, 2])}, "lengths"),
        ({"seeds": torch.zeros(1)}, "seeds"),
    ],
)
def test_wrong_shapes_are_named(change: dict[str, Tensor], named: str) -> None:
    request = replace(make_request([8], 8, 0, 0.0), **change)
    with pytest.raises(UsageError, match=named):
        fixed(MixingNetwork(), request, DecodeConfig())


def test_a_plan_for_other_frames_is_refused() -> None:
    request, config = make_request([8], 8, 0, 0.0), DecodeConfig()
    with pytest.raises(UsageError, match="3 levels of 8 frames, but is for 3 of 9"):
        fixed(MixingNetwork(), request, config, plan_decode(config, LEVELS, 9, torch.device("cpu")))


def test_guidance_without_a_twin_is_refused() -> None:
    request = make_request([8], 8, 0, 0.0)
    with pytest.raises(UsageError, match="twin"):
        fixed(MixingNetwork(), request, DecodeConfig(sample=SampleConfig(guidance=2.0)))


def test_recording_on_a_cpu_says_that_it_needs_cuda() -> None:
    with pytest.raises(BackendUnavailable, match="needs CUDA.*masked_decode"):
        GraphedDecoder(MixingNetwork, device="cpu")


class EagerRecorder:
    """Stands in for CUDA: a recording writes its one output anew, from whatever its inputs hold."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        output = torch.full_like(work(), -7)

        def play() -> None:
            output.copy_(work())

        return play, output


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> GraphedDecoder:
    monkeypatch.setattr(graphs, "_cuda_device", torch.device)
    monkeypatch.setattr(graphs, "_Recorder", EagerRecorder)

    def build(content: Tensor, voice: Tensor) -> MixingNetwork:
        network = MixingNetwork()
        network.place = content[0] + voice[0]  # one item a batch keeps this simple
        return network

    return GraphedDecoder(
        build,
        frame_padding={"content": torch.nan},
        stage=1,
        buckets=(16, 32),
        capacity=2,
        device="cpu",
    )


def played(decoder: GraphedDecoder, request: Request, config: DecodeConfig) -> Tensor:
    """The codes of a recording, beside which the loop's have been laid."""
    frames = request.codes.shape[-1]
    generator = torch.Generator().manual_seed(int(request.seeds[0]))
    content = torch.randn(1, frames, DIM, generator=generator)
    voice = torch.randn(1, 1, DIM, generator=generator)
    got = decoder(**vars(request), condition={"content": content, "voice": voice}, config=config)
    network = MixingNetwork()
    network.place = content[0] + voice[0]
    assert torch.equal(got, loop(network, request, config))
    return got


def test_a_recording_serves_every_request_of_its_bucket(decoder: GraphedDecoder) -> None:
    config = DecodeConfig(steps=(4, 2))
    for seed, frames in enumerate((20, 32, 17)):
        played(decoder, make_request([frames], frames, seed, 0.3), config)
    assert decoder.recordings == 1


def test_other_settings_are_recorded_anew_and_the_oldest_recording_goes(
    decoder: GraphedDecoder,
) -> None:
    request = make_request([10], 10, 0, 0.3)
    for steps in (1, 2, 3, 1, 2):
        played(decoder, request, DecodeConfig(steps=(steps,)))
        assert decoder.recordings <= 2


def test_results_of_a_recording_are_copies(decoder: GraphedDecoder) -> None:
    config = DecodeConfig(steps=(2,))
    first = played(decoder, make_request([10], 10, 0, 0.3), config)
    kept = first.clone()
    played(decoder, make_request([10], 10, 1, 0.3), config)
    assert torch.equal(first, kept)


def test_more_frames_than_the_largest_bucket_are_refused(decoder: GraphedDecoder) -> None:
    request = make_request([33], 33, 0, 0.0)
    with pytest.raises(UsageError, match="at most 32 frames, but have 33"):
        played(decoder, request, DecodeConfig())


@pytest.mark.parametrize(
    ("buckets", "capacity"), [((32, 16), 2), ((), 2), ((0, 16), 2), ((16,), 0)]
)
def test_buckets_that_do_not_ascend_are_refused(
    buckets: tuple[int, ...], capacity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_cuda_device", torch.device)
    with pytest.raises(UsageError, match="ascending numbers of frames"):
        GraphedDecoder(MixingNetwork, buckets=buckets, capacity=capacity, device="cpu")
