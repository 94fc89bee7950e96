"""A whole decoding with fixed shapes, and as a CUDA graph.

`masked_decode` asks the device once how many codes are unknown and then runs on as few rows as
possible. `decode_fixed` never asks: its shapes follow from the frames alone, and which rows count
is data. Both give the same codes. `GraphedDecoder` records the second and plays it back.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.decoding.config import DecodeConfig
from speechloom.decoding.loop import check_tensor
from speechloom.decoding.network import MaskedNetwork
from speechloom.decoding.schedule import open_after
from speechloom.errors import BackendUnavailable, UsageError
from speechloom.ops.masked_decode import HeadScores, NoiseKeys, decode_step
from speechloom.ops.masked_decode.implementations import unavailable

__all__ = ["DecodePlan", "GraphedDecoder", "decode_fixed", "plan_decode"]

BUCKETS = (64, 128, 256, 384, 512, 768, 1024, 1536, 2048)
WARM_UP_RUNS = 2
_CONDITION = "condition."


@dataclass(frozen=True)
class DecodePlan:
    """What the schedule asks of any batch of F frames.

    Attributes:
        config: passes, schedule, sampling.
        keep_open: per level int64 [F + 1, steps] on the device: how many positions stay open after
            each pass, by how many were unknown. Passes before an item joins keep all of them.
        room: per level and pass, the most open positions that an item can have before it.
    """

    config: DecodeConfig
    keep_open: tuple[Tensor, ...]
    room: tuple[tuple[int, ...], ...]

    @property
    def frames(self) -> int:
        """Frames F that the plan is for."""
        return self.room[0][0] if self.room else 0


def plan_decode(config: DecodeConfig, levels: int, frames: int, device: torch.device) -> DecodePlan:
    """Count the open positions of every pass for every number of unknown ones, on the host."""
    tables = [_keep_table(frames, config.steps_of(level), config) for level in range(levels)]
    return DecodePlan(
        config=config,
        keep_open=tuple(table.to(device) for table in tables),
        room=tuple((frames, *table.amax(0)[:-1].tolist()) for table in tables),
    )


def _keep_table(frames: int, steps: int, config: DecodeConfig) -> Tensor:
    rows = []
    for unknown in range(frames + 1):
        keep = open_after(unknown, steps, schedule=config.schedule)
        rows.append((unknown,) * (steps - len(keep)) + keep)
    return torch.tensor(rows, dtype=torch.int64)


def decode_fixed(
    network: MaskedNetwork,
    codes: Tensor,
    known: Tensor,
    lengths: Tensor,
    *,
    seeds: Tensor,
    items: Tensor,
    plan: DecodePlan,
    stage: int = 0,
    impl: str | None = None,
) -> Tensor:
    """Fill every unknown code as `masked_decode` does, with shapes that follow from F alone.

    All items run in all passes; a row of the batch that has nothing open draws for nothing. The
    host never waits for the device, so that a CUDA graph can hold it all. Nothing is checked that
    would need an answer from the device: known codes must lie in the codebook and `lengths` in
    0 .. F.

    Args:
        network: conditioned network; `hidden` must neither wait for the device nor let padding
            change real frames.
        codes: int64 [B, K, F]; values at unknown positions are ignored.
        known: bool [B, K, F].
        lengths: int64 [B], real frames per item.
        seeds: int64 [B], one per item's request.
        items: int64 [B], number of each item in its request.
        plan: of `plan_decode` for F frames and K levels.
        stage: number of the generator in its pipeline.
        impl: "triton", "reference", or None for the one of the device.

    Returns:
        int64 [B, K, F]. An item for which the network gave NaN or infinite scores has -1 at all
        its unknown positions.

    Raises:
        UsageError: shapes disagree, or guidance is asked of a network without a twin.
    """
    check_tensor("codes", codes, "[B, K, F]", codes.shape if codes.dim() == 3 else None)
    check_tensor("known", known, "[B, K, F]", codes.shape, torch.bool)
    for name, value in (("lengths", lengths), ("seeds", seeds), ("items", items)):
        check_tensor(name, value, "[B]", codes.shape[:1])
    levels, frames = codes.shape[1:]
    if (len(plan.room), plan.frames) != (levels, frames):
        raise UsageError(
            f"`plan` must be for {levels} levels of {frames} frames, "
            f"but is for {len(plan.room)} of {plan.frames}."
        )
    if not codes.numel():
        return codes.clone()
    if plan.config.is_guided and network.unconditional is None:
        raise UsageError("`guidance` must be 1: this network has no unconditional twin.")
    real = torch.arange(frames, device=codes.device) < lengths[:, None]
    unknown = ~known & real[:, None]
    chosen = impl or ("triton" if codes.is_cuda else "reference")
    filler = _Filler(network, plan, lengths, seeds, items, unknown, stage=stage, impl=chosen)
    filled = filler.fill(torch.where(known & real[:, None], codes, network.codebook_size))
    return torch.where(unknown, filled, codes)


class _Filler:
    """What is the same for all passes of a decoding."""

    def __init__(
        self,
        network: MaskedNetwork,
        plan: DecodePlan,
        lengths: Tensor,
        seeds: Tensor,
        items: Tensor,
        unknown: Tensor,
        *,
        stage: int,
        impl: str,
    ) -> None:
        self.network, self.plan, self.lengths = network, plan, lengths
        self.seeds, self.items, self.unknown = seeds, items, unknown
        self.stage, self.impl = stage, impl
        self.mask_id = network.codebook_size

    @torch.inference_mode()
    def fill(self, codes: Tensor) -> Tensor:
        """All passes of all levels on int64 [B, K, F], the mask id where a code is unknown."""
        broken = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
        for level, table in enumerate(self.plan.keep_open):
            keep_open = table[self.unknown[:, level].sum(-1)]  # [B, steps]
            for step, room in enumerate(self.plan.room[level]):
                codes, failed = self._pass(codes, level, step, room, keep_open[:, step])
                broken = broken | failed
        return codes.masked_fill(broken[:, None, None], -1)

    def _pass(
        self, codes: Tensor, level: int, step: int, room: int, keep_open: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Codes with some more positions closed, and bool [B], items without a distribution."""
        batch, _, frames = codes.shape
        is_open = self.unknown[:, level] & (codes[:, level] == self.mask_id)
        at = first_frames(is_open, room)
        live = at < frames
        tokens, confidence = self._draw(codes, at, live, level, step)
        closes = self._close(confidence, live, is_open.sum(-1) - keep_open)
        decided = torch.where(closes, tokens.clamp(min=0), self.mask_id)
        wider = F.pad(codes[:, level], (0, 1)).scatter(1, at, decided)  # unused rows fall off
        codes = codes.clone()
        codes[:, level] = wider[:, :frames]
        return codes, ((tokens < 0) & live).any(-1)

    def _draw(
        self, codes: Tensor, at: Tensor, live: Tensor, level: int, step: int
    ) -> tuple[Tensor, Tensor]:
        """Tokens and confidence [B, R] of the frames `at`."""
        batch, room = at.shape
        config = self.plan.config
        scores, keys = self._scores(codes, at, live, level), self._keys(at, level, step)
        sample, choice = config.sample_at(level, step), config.choice_at(level, step)
        if self.impl == "triton":
            from speechloom.ops.masked_decode.triton import draw_rows

            drawn = draw_rows(scores, keys, config=sample, choice_temperature=choice)
            return drawn[0].view(batch, room), drawn[1].view(batch, room)
        result = decode_step(
            scores,
            keys,
            counts=(room,) * batch,
            keep_open=(0,) * batch,
            config=sample,
            choice_temperature=choice,
            impl=self.impl,
        )
        return result.tokens.view(batch, room), result.confidence.view(batch, room)

    def _scores(self, codes: Tensor, at: Tensor, live: Tensor, level: int) -> HeadScores:
        """Hidden states of the frames `at`, zero in rows that do not count, and the head."""
        every = torch.arange(len(codes), device=codes.device)
        rows = every[:, None].expand_as(at).flatten()
        # Rows that do not count ask for a real frame all the same: a network may have no others.
        frames = at.minimum((self.lengths - 1).clamp(min=0)[:, None]).flatten()
        dead = ~live.flatten()[:, None]
        guided = self.plan.config.is_guided_at(level)
        hidden, free = (
            None
            if network is None
            else network.hidden(codes, level, self.lengths, every, rows, frames).masked_fill(
                dead, 0.0
            )
            for network in (self.network, self.network.unconditional if guided else None)
        )
        assert hidden is not None
        weight, bias = self.network.head(level)
        return HeadScores(hidden=hidden, weight=weight, bias=bias, unconditional=free)

    def _keys(self, at: Tensor, level: int, step: int) -> NoiseKeys:
        return NoiseKeys(
            seed=self.seeds[:, None].expand_as(at).flatten(),
            item=self.items[:, None].expand_as(at).flatten(),
            position=at.flatten(),
            stage=self.stage,
            level=level,
            step=step,
        )

    def _close(self, confidence: Tensor, live: Tensor, closing: Tensor) -> Tensor:
        """Bool [B, R]: the most confident rows that count, `closing` [B] of them."""
        batch, room = confidence.shape
        if self.impl == "triton":
            from speechloom.ops.masked_decode.triton import close_rows

            starts = torch.arange(batch, device=confidence.device) * room
            flat = confidence.flatten()
            return close_rows(flat, starts, live.sum(-1), closing, longest=room).view_as(live)
        never = float("-inf")
        ranked = confidence.masked_fill(~live | confidence.isnan(), never)
        best_first = ranked.argsort(dim=-1, descending=True, stable=True)
        return live & (best_first.argsort(dim=-1) < closing[:, None])


def first_frames(is_open: Tensor, room: int) -> Tensor:
    """The open frames of each item, ascending: int64 [B, room], F where there are no more.

    Args:
        is_open: bool [B, F], at most `room` of each item.
        room: length of the result.
    """
    batch, frames = is_open.shape
    place = torch.where(is_open, is_open.cumsum(-1) - 1, room)
    frame = torch.arange(frames, device=is_open.device).expand(batch, -1)
    slots = torch.full((batch, room + 1), frames, device=is_open.device)
    return slots.scatter(1, place, frame)[:, :room]


@dataclass(frozen=True)
class _Recording:
    """A recorded decoding: write `inputs`, `play`, read `output`; it reads `plan` too."""

    play: Callable[[], None]
    inputs: Mapping[str, Tensor]
    output: Tensor
    plan: DecodePlan


class _Recorder:
    """Records work on one CUDA device; all recordings share one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Run a few times, for kernels to be compiled and workspaces made, then record.

        Returns:
            What plays the recording, and the tensor that it writes.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UP_RUNS):
                work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            output = work()
        current.wait_stream(self._stream)
        return graph.replay, output


class GraphedDecoder:
    """Decodings that are recorded once per shape as a CUDA graph and then played back.

    Frames are padded to the next bucket, so that few recordings serve all lengths; a shape that
    was not seen before is recorded at its first call, which takes seconds: call `warm_up` with an
    example of what will come. The recordings share one memory pool; the least recently used one
    makes room. Use one decoder from one stream; calls from several threads take turns.

    Args:
        build: makes the conditioned network from the tensors of a request's condition, by name. It
            runs inside the recording: on tensors, without waiting for the device.
        frame_padding: which tensors of the condition are [B, F, ...], and what to pad them with.
        stage: number of the generator in its pipeline.
        buckets: numbers of frames, ascending.
        capacity: recordings that are kept.
        device: a CUDA device.

    Raises:
        BackendUnavailable: the device is not CUDA, or Triton is not installed.
        UsageError: the buckets do not ascend, or nothing may be kept.
    """

    def __init__(
        self,
        build: Callable[..., MaskedNetwork],
        *,
        frame_padding: Mapping[str, float] | None = None,
        stage: int = 0,
        buckets: Sequence[int] = BUCKETS,
        capacity: int = 8,
        device: torch.device | str = "cuda",
    ) -> None:
        self._device = _cuda_device(device)
        if list(buckets) != sorted(set(buckets)) or not buckets or buckets[0] < 1 or capacity < 1:
            raise UsageError(
                "`buckets` must be ascending numbers of frames and `capacity` 1 or more, "
                f"but are {list(buckets)} and {capacity}."
            )
        self._build = build
        self._padding = dict(frame_padding or {})
        self._stage = stage
        self._buckets = tuple(buckets)
        self._capacity = capacity
        self._recordings: OrderedDict[object, _Recording] = OrderedDict()
        self._record_work = _Recorder(self._device)
        self._lock = threading.Lock()

    @property
    def longest(self) -> int:
        """Frames of the largest bucket; more are refused."""
        return self._buckets[-1]

    @property
    def recordings(self) -> int:
        """Recordings in memory."""
        return len(self._recordings)

    def warm_up(
        self,
        codes: Tensor,
        known: Tensor,
        lengths: Tensor,
        *,
        seeds: Tensor,
        items: Tensor,
        condition: Mapping[str, Tensor],
        config: DecodeConfig | None = None,
    ) -> None:
        """Record the decoding of requests like this one; arguments as of a call."""
        inputs = self._inputs(codes, known, lengths, seeds, items, condition)
        with self._lock, torch.inference_mode():
            self._recording(inputs, config or DecodeConfig())

    def __call__(
        self,
        codes: Tensor,
        known: Tensor,
        lengths: Tensor,
        *,
        seeds: Tensor,
        items: Tensor,
        condition: Mapping[str, Tensor],
        config: DecodeConfig | None = None,
    ) -> Tensor:
        """Fill every unknown code; see `decode_fixed`.

        Args:
            codes: int64 [B, K, F], and so on as there, all on the decoder's device.
            known: bool [B, K, F].
            lengths: int64 [B].
            seeds: int64 [B].
            items: int64 [B].
            condition: tensors for `build`.
            config: passes, schedule, sampling; part of the shape, as it is recorded.

        Returns:
            int64 [B, K, F].

        Raises:
            UsageError: more frames than the largest bucket, or a tensor on another device.
        """
        inputs = self._inputs(codes, known, lengths, seeds, items, condition)
        with self._lock:
            with torch.inference_mode():
                recording = self._recording(inputs, config or DecodeConfig())
                for name, value in inputs.items():
                    recording.inputs[name].copy_(value)
                recording.play()
            return recording.output[..., : codes.shape[-1]].clone()

    def _inputs(
        self,
        codes: Tensor,
        known: Tensor,
        lengths: Tensor,
        seeds: Tensor,
        items: Tensor,
        condition: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """All tensors of a request, padded to its bucket."""
        frames = codes.shape[-1]
        bucket = next((bucket for bucket in self._buckets if bucket >= frames), None)
        if bucket is None:
            raise UsageError(
                f"`codes` must have at most {self._buckets[-1]} frames, but have {frames}; "
                "make the decoder with larger `buckets`."
            )
        end = (0, bucket - frames)
        inputs = {
            "codes": F.pad(codes, end),
            "known": F.pad(known, end, value=True),
            "lengths": lengths,
            "seeds": seeds,
            "items": items,
        }
        for name, value in condition.items():
            if name in self._padding:
                between = (0, 0) * (value.dim() - 2)
                value = F.pad(value, (*between, *end), value=self._padding[name])
            inputs[_CONDITION + name] = value
        for name, value in inputs.items():
            if value.device != self._device:
                raise UsageError(f"`{name}` must be on {self._device}, but is on {value.device}.")
        return inputs

    def _recording(self, inputs: Mapping[str, Tensor], config: DecodeConfig) -> _Recording:
        shapes = tuple((name, x.shape, x.dtype) for name, x in inputs.items())
        key = (config, shapes)
        if key not in self._recordings:
            while len(self._recordings) >= self._capacity:
                self._recordings.popitem(last=False)
            self._recordings[key] = self._record(inputs, config)
        self._recordings.move_to_end(key)
        return self._recordings[key]

    def _record(self, inputs: Mapping[str, Tensor], config: DecodeConfig) -> _Recording:
        own = {name: value.clone() for name, value in inputs.items()}
        _, levels, frames = own["codes"].shape
        plan = plan_decode(config, levels, frames, self._device)
        play, output = self._record_work(lambda: self._decode(own, plan))
        return _Recording(play, own, output, plan)

    def _decode(self, inputs: Mapping[str, Tensor], plan: DecodePlan) -> Tensor:
        condition = {
            name.removeprefix(_CONDITION): value
            for name, value in inputs.items()
            if name.startswith(_CONDITION)
        }
        return decode_fixed(
            self._build(**condition),
            inputs["codes"],
            inputs["known"],
            inputs["lengths"],
            seeds=inputs["seeds"],
            items=inputs["items"],
            plan=plan,
            stage=self._stage,
        )


def _cuda_device(device: torch.device | str) -> torch.device:
    """The device with its number, if graphs can be recorded there."""
    device = torch.device(device)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise BackendUnavailable(
            f"GraphedDecoder needs CUDA, but the device is {device.type!r}"
            f"{'' if torch.cuda.is_available() else ' and torch finds no CUDA device'}; "
            "use `masked_decode` there.",
            plugin="speechloom:decoding/graphs",
        )
    reason = unavailable("triton", device)
    if reason is not None:
        raise BackendUnavailable(
            f"GraphedDecoder needs the Triton kernels: {reason}",
            plugin="speechloom:decoding/graphs",
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.device("cuda", index)
