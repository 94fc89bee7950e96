"""The network laid out for decoding equals the network that was trained."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from speechloom.decoding import (
    DecodeConfig,
    ExecutionConfig,
    graphs,
    has_bfloat16_units,
    masked_decode,
    open_after,
)
from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.layers import unavailable
from speechloom.ops.masked_decode import SampleConfig
from speechloom.spec import ComponentSpec, GeneratorFacts, Task
from speechloom.values import Canvas, Codes
from speechloom_speechsec import conditioned
from speechloom_speechsec.conditioned import ConditionedSpeechSEC, condition
from speechloom_speechsec.config import SpeechSECConfig, tiny
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.inference import InferenceSpeechSEC
from speechloom_speechsec.model import SpeechSEC

LENGTHS = torch.tensor([13, 70, 41])
WHY_NOT = unavailable("compiled", torch.float32, "cpu")
compiled = pytest.mark.skipif(WHY_NOT is not None, reason=f"compiled layers: {WHY_NOT}")
Inputs = tuple[Tensor, int, Tensor]


def loud(config: SpeechSECConfig) -> SpeechSEC:
    """A network with weights large enough that everything matters."""
    network = SpeechSEC(config, seed=3).requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            parameter.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    return network


@pytest.fixture(scope="module", params=[1, 2], ids=["plain", "wide-convolution"])
def model(request: pytest.FixtureRequest) -> SpeechSEC:
    return loud(tiny().model_copy(update={"conv_expansion": request.param}))


@pytest.fixture
def inputs(model: SpeechSEC) -> Inputs:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 12, (3, 3, 70), generator=generator)
    return codes, 1, torch.randn(3, 70, 16, generator=generator)


def laid_out(model: SpeechSEC, **options: object) -> InferenceSpeechSEC:
    return InferenceSpeechSEC(model, ExecutionConfig(**options).on("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_float32_is_the_trained_network_bit_for_bit(
    model: SpeechSEC, inputs: Inputs, lengths: Tensor | None
) -> None:
    fast = laid_out(model, layers="torch")
    assert torch.equal(fast.hidden(*inputs, lengths), model.hidden(*inputs, lengths))


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "onednn"},
        pytest.param({"layers": "compiled"}, marks=compiled),
        {"precision": "auto"},
    ],
    ids=["onednn", "compiled", "auto"],
)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "padded"])
def test_other_layers_agree_up_to_rounding(
    model: SpeechSEC, inputs: Inputs, lengths: Tensor | None, options: dict[str, object]
) -> None:
    fast = laid_out(model, **options)
    close = {torch.float32: 1e-4, torch.bfloat16: 0.1}[fast.execution.dtype]
    ours, theirs = (one.hidden(*inputs, lengths)[1] for one in (fast, model))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=close)


def test_bfloat16_stays_near_and_keeps_what_is_summed_in_float32(
    model: SpeechSEC, inputs: Inputs
) -> None:
    half, full = (laid_out(model, precision=name) for name in ("bfloat16", "float32"))
    near, exact = (one.hidden(*inputs, LENGTHS)[1] for one in (half, full))
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert float((near - exact).abs().mean()) < 0.05 * float(exact.abs().mean())


@pytest.mark.parametrize(
    ("precision", "layers"),
    [
        ("float32", "torch"),
        ("float32", "onednn"),
        pytest.param("float32", "compiled", marks=compiled),
        ("bfloat16", "torch"),
        ("bfloat16", "auto"),
    ],
)
def test_items_run_alone_in_every_batch(
    model: SpeechSEC, inputs: Inputs, precision: str, layers: str
) -> None:
    codes, level, cond = inputs
    fast = laid_out(model, precision=precision, layers=layers)
    network = ConditionedSpeechSEC(fast, cond)
    wanted = [torch.tensor(at) for at in ([2, 12], [0, 1, 69], [40])]
    rows = torch.tensor([0, 0, 1, 1, 1, 2])
    together = network.hidden(codes, level, LENGTHS, torch.arange(3), rows, torch.cat(wanted))
    assert together.shape == (6, 16)
    for item, own in enumerate(together.split([2, 3, 1])):
        length, one = int(LENGTHS[item]), slice(item, item + 1)
        alone = fast.hidden(codes[one, :, :length], level, cond[one, :length])
        assert torch.equal(own, alone[0, wanted[item]])


def everything(
    network: ConditionedSpeechSEC,
    codes: Tensor,
    level: int,
    lengths: Tensor,
    items: Tensor,
    rows: Tensor,
    frames: Tensor,
) -> Tensor:
    """`ConditionedSpeechSEC.hidden` by all blocks over all frames in every pass."""
    cond, states = network._cond_of(items, level, codes.shape[-1]), []
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        every = network.network.hidden(codes[one, :, :length], level, cond[one, :length])
        states.append(every[0, frames[rows == row]])
    return torch.cat(states)


@pytest.mark.parametrize("prompted", [True, False], ids=["prompted", "plain"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_kept_and_what_is_left_out_change_nothing(
    precision: str, prompted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the states of any pass nor the tokens, bit for bit."""
    why_not = unavailable("compiled", getattr(torch, precision), "cpu")
    if why_not is not None:
        pytest.skip(f"compiled layers: {why_not}")
    draw = torch.Generator().manual_seed(6)
    model = loud(tiny().model_copy(update={"prompt_embedding": prompted}))
    fast = laid_out(model, precision=precision, layers="compiled")
    content, items = torch.randint(0, 7, (3, 70), generator=draw), torch.arange(3)
    codes = torch.randint(0, 11, (3, 3, 70), generator=draw)
    known = (torch.rand(3, 3, 70, generator=draw) < 0.2) | (torch.arange(70) < 5)
    prompts = codes.where(known, 11) if prompted else None
    lengths = torch.tensor([70, 70, 41])  # what is kept of one item would fit another
    config = DecodeConfig(steps=(6, 3), sample=SampleConfig(guidance=1.5, top_k=6))

    def tokens() -> Tensor:
        network = condition(fast, content, items, guided=True, prompts=prompts)
        return masked_decode(
            network, codes, known, lengths, seeds=items, items=items, config=config
        )

    hidden = ConditionedSpeechSEC.hidden

    def checked(network: ConditionedSpeechSEC, *request: Any) -> Tensor:
        states = hidden(network, *request)
        assert torch.equal(states, everything(network, *request))
        return states

    monkeypatch.setattr(ConditionedSpeechSEC, "hidden", checked)
    frugal = tokens()
    monkeypatch.setattr(ConditionedSpeechSEC, "hidden", everything)
    assert torch.equal(frugal, tokens())


@compiled
def test_only_what_changed_begins_and_only_what_is_open_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast = laid_out(loud(tiny()), layers="compiled")
    begun = frames_through(fast._blocks[0], "begin", monkeypatch)
    ended = frames_through(fast._blocks[-1].after, "add_to", monkeypatch)
    frames, zero = 40, torch.zeros(1, dtype=torch.int64)
    network = condition(fast, torch.zeros(1, frames, dtype=torch.int64), zero)
    codes = torch.zeros(1, 3, frames, dtype=torch.int64)
    opened = (frames, *open_after(frames, 5)[:-1])
    closed = [before - after for before, after in pairwise(opened)]
    masked_decode(
        network,
        codes,
        torch.zeros_like(codes, dtype=torch.bool),
        zero + frames,
        seeds=zero,
        items=zero,
        config=DecodeConfig(steps=(5,)),
    )
    assert begun == [frames, *closed, frames, frames]
    assert ended == [*opened, frames, frames]


@pytest.mark.parametrize("layers", ["torch", pytest.param("compiled", marks=compiled)])
def test_another_condition_starts_with_nothing(
    model: SpeechSEC, inputs: Inputs, layers: str
) -> None:
    codes, level, cond = inputs
    rows, frames = torch.tensor([0, 1, 2]), torch.tensor([3, 5, 7])
    request = (codes, level, LENGTHS, torch.arange(3), rows, frames)
    fast = laid_out(model, layers=layers)
    before = ConditionedSpeechSEC(fast, cond)
    before.hidden(*request)
    after = replace(before, cond=cond + 1.0)
    fresh = ConditionedSpeechSEC(fast, cond + 1.0)
    assert torch.equal(after.hidden(*request), fresh.hidden(*request))


@pytest.mark.parametrize("layers", ["torch", pytest.param("compiled", marks=compiled)])
def test_fixed_shapes_give_the_codes_of_the_loop_also_beside_an_item_without_frames(
    model: SpeechSEC, inputs: Inputs, layers: str
) -> None:
    codes, _, cond = inputs
    request: dict[str, Tensor] = {
        "codes": codes.clamp(max=10),
        "known": codes > 9,
        "lengths": torch.tensor([13, 0, 70]),
        "seeds": torch.arange(3),
        "items": torch.arange(3),
    }
    config = DecodeConfig(steps=(4, 2))
    looped, fixed = (ConditionedSpeechSEC(laid_out(model, layers=layers), cond) for _ in range(2))
    plan = graphs.plan_decode(config, 3, 70, torch.device("cpu"))
    want = masked_decode(looped, **request, config=config)
    assert torch.equal(graphs.decode_fixed(fixed, **request, plan=plan), want)


def frames_through(part: object, name: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames go into a method at each of its calls, from now on."""
    run, seen = getattr(part, name), []

    def counted(x: Tensor) -> Any:
        seen.append(x.shape[1])
        return run(x)

    monkeypatch.setattr(part, name, counted)
    return seen


def test_positions_do_not_depend_on_the_table_they_come_from(
    model: SpeechSEC, inputs: Inputs
) -> None:
    codes, level, cond = inputs
    first, second = laid_out(model), laid_out(model)
    second.hidden(codes, level, cond)
    short = (codes[..., :33], level, cond[:, :33])
    assert torch.equal(first.hidden(*short), second.hidden(*short))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch warns of itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_agrees(model: SpeechSEC, inputs: Inputs) -> None:
    fast = laid_out(model, compile=True)
    for frames in (70, 33):
        short = (inputs[0][..., :frames], inputs[1], inputs[2][:, :frames])
        with torch.inference_mode():
            torch.testing.assert_close(
                fast.hidden(*short), model.hidden(*short), rtol=0.0, atol=1e-4
            )


@pytest.mark.parametrize("units", [True, False])
def test_auto_takes_bfloat16_only_where_it_is_computed(
    monkeypatch: pytest.MonkeyPatch, units: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert has_bfloat16_units("cpu") == units
    wanted = torch.bfloat16 if units else torch.float32
    assert ExecutionConfig(precision="auto").on("cpu").dtype == wanted
    assert not has_bfloat16_units("meta")


def test_executions_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="auto, float32, bfloat16"):
        ExecutionConfig(precision="float16")
    with pytest.raises(UsageError, match="auto, torch, onednn, compiled"):
        ExecutionConfig(layers="mkl")
    with pytest.raises(UsageError, match="leave one"):
        ExecutionConfig(layers="onednn", compile=True)
    with pytest.raises(BackendUnavailable, match="meta"):
        ExecutionConfig(layers="onednn").on("meta")


def test_a_network_is_laid_out_when_it_is_conditioned(model: SpeechSEC) -> None:
    content, task = torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    fast = laid_out(model)
    assert condition(fast, content, task).network is fast
    assert condition(model, content, task).network.model is model


def generator(*, prompt_embedding: bool = False, **options: object) -> SpeechSECGenerator:
    spec = ComponentSpec(
        id="toy",
        implementation="toy:Toy",
        summary="Units to codes",
        license="MIT",
        facts=GeneratorFacts(
            tasks=("synthesize", "continue", "convert"),
            content=("tokens:toy",),
            free_tasks=("continue",),
            gives="codes:toy",
            frame_rate=50,
            codebooks=3,
            codebook_size=11,
            voice="voice:toy",
            voice_size=4,
        ),
    )
    network = loud(tiny().model_copy(update={"prompt_embedding": prompt_embedding}))
    return SpeechSECGenerator(spec, network, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "setting"), [("continue", "free"), ("convert", "convert")])
def test_what_has_no_content_and_conversions_are_filled_in_their_own_ways(
    task: Task, setting: str
) -> None:
    said = torch.arange(30)[None] % 5
    canvas = Canvas(
        task=task,
        content=said if task == "convert" else None,
        content_kind="tokens:toy" if task == "convert" else None,
        ids=torch.zeros(1, 3, 30, dtype=torch.int64),
        known=torch.zeros(1, 3, 30, dtype=torch.bool),
        lengths=torch.tensor([30]),
        gives="codes:toy",
        frame_rate=Fraction(50),
        codebook_size=11,
        seeds=torch.tensor([5]),
        items=torch.tensor([0]),
    )
    cool = DecodeConfig(steps=(2,), sample=SampleConfig(temperature=0.0))
    hot = DecodeConfig(steps=(4,), sample=SampleConfig(temperature=2.0), choice_temperature=9.0)

    def codes(**options: DecodeConfig) -> list[object]:
        filled = generator(**options).fill(canvas)
        assert isinstance(filled, Codes)
        return filled.ids.tolist()

    other = {"free", "convert"} - {setting}
    assert codes(decode=cool, **{setting: hot}) == codes(decode=hot) != codes(decode=cool)
    assert codes(decode=cool, **dict.fromkeys(other, hot)) == codes(decode=cool)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_warm_up_says_how_long_it_took(caplog: pytest.LogCaptureFixture, guidance: float) -> None:
    one = generator(decode=DecodeConfig(sample=SampleConfig(guidance=guidance)))
    with caplog.at_level(logging.INFO):
        seconds = one.warm_up(20)
    assert seconds > 0.0
    assert f"toy: warm-up of 20 frames took {seconds:.1f} s" in caplog.text


def test_how_a_generator_runs_can_be_changed() -> None:
    one = generator(execution=ExecutionConfig(layers="onednn"))
    assert one.execution.layers == "onednn"
    one.execution = ExecutionConfig(precision="bfloat16")
    assert one.execution == ExecutionConfig(precision="bfloat16")
    assert one.warm_up(5) > 0.0


@pytest.mark.parametrize("padded", [True, False])
def test_a_batch_without_padding_needs_no_mask(
    model: SpeechSEC, inputs: Inputs, padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device that runs whole batches; here a CPU plays it."""
    codes, level, cond = inputs
    task = torch.zeros(3, dtype=torch.int64)
    fast = laid_out(model, layers="torch")
    network = condition(fast, codes[:, 0].clamp(max=6), task, padded=padded)
    masks = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        masks.append(attn_mask)
        return attend(*args, attn_mask=attn_mask)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    monkeypatch.setattr(conditioned, "runs_alone", lambda device: False)
    full = torch.full_like(LENGTHS, 70)
    rows, frames = torch.tensor([0, 0, 2]), torch.tensor([3, 69, 0])
    result = network.hidden(codes, level, full, torch.arange(3), rows, frames)
    assert [mask is not None for mask in masks] == [padded] * 2
    states = model.hidden(codes, level, network.cond, full)
    torch.testing.assert_close(result, states[rows, frames])


class EagerRecorder:
    """Stands in for CUDA's graphs: plays the work itself."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        output = work()

        def play() -> None:
            output.copy_(work())

        return play, output


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU plays the device; `tests/gpu` records on one."""
    on = ExecutionConfig.on
    monkeypatch.setattr(ExecutionConfig, "on", lambda self, at: on(replace(self, graphs=False), at))
    monkeypatch.setattr(graphs, "_cuda_device", torch.device)
    monkeypatch.setattr(graphs, "_Recorder", EagerRecorder)
    monkeypatch.setattr(conditioned, "runs_alone", lambda device: False)


@pytest.mark.parametrize("task", ["synthesize", "continue", "convert"])
def test_recorded_decodings_give_the_codes_of_the_loop(task: Task, device: None) -> None:
    """With all that a recording is given."""
    has_content = task != "continue"
    generator_of_ids = torch.Generator().manual_seed(3)
    canvas = Canvas(
        task=task,
        content=torch.arange(60).view(2, 30) % 5 if has_content else None,
        content_kind="tokens:toy" if has_content else None,
        ids=torch.randint(0, 11, (2, 3, 30), generator=generator_of_ids),
        known=(torch.arange(30) < 12).expand(2, 3, 30),
        lengths=torch.tensor([30, 21]),
        gives="codes:toy",
        frame_rate=Fraction(50),
        codebook_size=11,
        seeds=torch.tensor([5, 6]),
        items=torch.tensor([0, 1]),
        voices=torch.linspace(-1, 1, 2 * tiny().voice_dim).view(2, -1),
    )
    settings = {
        "decode": DecodeConfig(steps=(3,), sample=SampleConfig(guidance=2.0)),
        "free": DecodeConfig(steps=(2,)),
    }
    one = generator(prompt_embedding=True, **settings)
    looped = one.fill(canvas)
    one.execution = ExecutionConfig(graphs=True)
    assert one.warm_up(30) > 0.0
    recorded = one.fill(canvas)
    assert isinstance(looped, Codes)
    assert isinstance(recorded, Codes)
    assert recorded.ids.tolist() == looped.ids.tolist()
    one.execution = ExecutionConfig()
    again = one.fill(canvas)
    assert isinstance(again, Codes)
    assert again.ids.tolist() == looped.ids.tolist()


def test_a_warm_up_records_what_the_next_request_plays(device: None) -> None:
    one = generator(execution=ExecutionConfig(graphs=True))
    one.warm_up(30)
    decoder = one._graphed
    assert decoder is not None
    assert decoder.recordings == 1
    for frames in (30, 20):
        one.fill(
            Canvas(
                task="synthesize",
                content=torch.arange(frames)[None] % 5,
                content_kind="tokens:toy",
                ids=torch.zeros(1, 3, frames, dtype=torch.int64),
                known=torch.zeros(1, 3, frames, dtype=torch.bool),
                lengths=torch.tensor([frames]),
                gives="codes:toy",
                frame_rate=Fraction(50),
                codebook_size=11,
                seeds=torch.tensor([5]),
                items=torch.tensor([0]),
                voices=torch.ones(1, 4),
            )
        )
    assert decoder.recordings == 1


def test_what_no_bucket_holds_is_decoded_without_a_recording(device: None) -> None:
    settings = DecodeConfig(steps=(1,))
    one = generator(decode=settings, execution=ExecutionConfig(graphs=True))
    assert one._graphed is not None
    assert one.warm_up(one._graphed.longest + 1) > 0.0
    assert one._graphed.recordings == 0


def test_graphs_are_for_cuda() -> None:
    with pytest.raises(UsageError, match="`graphs` needs a CUDA device, but the device is cpu"):
        generator(execution=ExecutionConfig(graphs=True))
