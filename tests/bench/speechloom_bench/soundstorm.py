"""soundstorm-pytorch as it ships, and the same weights in our execution.

Peer: lucidrains/soundstorm-pytorch 0.6.1 from the package index (MIT): `SoundStorm.generate` with
a `ConformerWrapper`. It is installed without its dependencies: `audiolm-pytorch`,
`spear-tts-pytorch` and `accelerate` bring codecs, a text model and a trainer that no row uses, and
torchaudio, which does not load beside this torch. Empty modules of their names stand in.
"""

from __future__ import annotations

import copy
import importlib
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom.decoding import (
    DecodeConfig,
    Execution,
    ExecutionConfig,
    FrameMemory,
    masked_decode,
    open_after,
)
from speechloom.ops.layers import Layers, Norm, Rotary
from speechloom.ops.masked_decode import SampleConfig
from speechloom_bench.rows import Agreement

LEVELS, SIZE, STEPS, KEPT = 8, 1024, 18, 308  # 308: the top 30 % of 1024, the peer's default

STAND_INS = {
    "accelerate": ("Accelerator", "DistributedType"),
    "audiolm_pytorch": ("FairseqVQWav2Vec", "HubertWithKmeans", "SoundStream"),
    "audiolm_pytorch.data": ("get_dataloader",),
    "audiolm_pytorch.optimizer": ("get_optimizer",),
    "spear_tts_pytorch": ("TextToSemantic",),
}


@contextmanager
def _stand_ins() -> Iterator[None]:
    added = [name for name in STAND_INS if name not in sys.modules]
    for name in added:
        module = types.ModuleType(name)
        for part in STAND_INS[name]:
            setattr(module, part, type(part, (), {}))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def load_peer() -> Any:
    """The module `soundstorm_pytorch.soundstorm`, or skip."""
    pytest.importorskip("soundstorm_pytorch.attend", reason="soundstorm-pytorch is not installed")
    return importlib.import_module("soundstorm_pytorch.soundstorm")


with _stand_ins(), warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        importlib.import_module("soundstorm_pytorch")
    except ModuleNotFoundError:
        pass  # the rows skip themselves


@dataclass(frozen=True)
class Size:
    """Width, layers and heads of a network."""

    name: str
    dim: int
    layers: int

    def flops(self, *frames: int, alone: bool) -> float:
        """Multiplications and additions of the matrix products of a whole decode of ours.

        `alone`: the layers compute rows alone (`Layers.rows_alone`), and what did not change or is
        not wanted is left out.
        """
        passes = [passes_of(count, (STEPS,), "linear") for count in frames]
        heads = 2.0 * self.dim * SIZE * sum(want for own in passes for _, want in own)
        both = zip(frames, passes, strict=True)
        return heads + sum(self.network_flops(count, own, alone=alone) for count, own in both)

    def network_flops(
        self, frames: int, passes: Sequence[tuple[int, int]], *, alone: bool
    ) -> float:
        """The same of the network alone, in passes over so many changed and wanted frames."""
        if not alone:
            return len(passes) * self.forward_flops(frames)
        return sum(self._pass_flops(frames, *pair) for pair in passes)

    def forward_flops(self, frames: int) -> float:
        """The same of one pass of all frames, with the projection of one head and no head."""
        return self._pass_flops(frames, frames, frames)

    def _pass_flops(self, frames: int, changed: int, wanted: int) -> float:
        """Of a pass that begins with some changed frames and ends with some wanted ones."""
        begin, end = 11 * self.dim**2, 10 * self.dim**2  # per frame, of a layer
        layer = 26 * self.dim**2 + 2 * frames * self.dim
        spared = (frames - changed) * begin + (frames - wanted) * end
        return 2.0 * (frames * layer * self.layers - spared + wanted * self.dim**2)


def passes_of(frames: int, steps: Sequence[int], schedule: str) -> list[tuple[int, int]]:
    """Frames that changed and frames that are wanted, of each pass over an empty canvas.

    The first pass finds all changed, each other one those that the pass before it closed.
    """
    passes, closed = [], frames
    for level in range(LEVELS):
        count = steps[level] if level < len(steps) else 1
        wanted = frames
        for left in open_after(frames, count, schedule=schedule):
            passes.append((closed, wanted))
            wanted, closed = left, wanted - left
    return passes


S = Size("S", 512, 6)
P = Size("P", 1024, 12)


def build_peer(size: Size, *, steps: int = STEPS) -> Any:
    """A `SoundStorm` with random weights, one residual stream, convolutions over five frames."""
    peer = load_peer()
    torch.manual_seed(0)
    conformer = {
        "dim": size.dim,
        "depth": size.layers,
        "heads": size.dim // 64,
        "conv_kernel_size": 5,
        "num_residual_streams": 1,
    }
    net = peer.ConformerWrapper(codebook_size=SIZE, num_quantizers=LEVELS, conformer=conformer)
    return peer.SoundStorm(net, steps=steps).eval().requires_grad_(False)


def generate(peer: Any, frames: int, **options: Any) -> Tensor:
    """Run the peer's own loop without its progress bar."""
    module = load_peer()
    bar, module.tqdm = module.tqdm, lambda steps, **_: steps
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a torch context manager that it calls
            result: Tensor = peer.generate(num_latents=frames, **options)
    finally:
        module.tqdm = bar
    return result


def peer_step(logits: Tensor, frames: int) -> Callable[[], Tensor]:
    """What `SoundStorm.generate` does after the network in a pass of level 0, by its own parts.

    Re-expressed from `SoundStorm.generate` of soundstorm-pytorch 0.6.1: filter, draw, score and
    rank all levels of all frames.
    """
    peer = load_peer()
    mask_id = SIZE
    state = torch.full((1, frames * LEVELS), mask_id)
    open_ = torch.ones_like(state, dtype=torch.bool)
    keep = torch.tensor([[200]])

    def step() -> Tensor:
        kept = peer.top_k(logits, 0.7)
        drawn = peer.gumbel_sample(kept, temperature=0.9)
        codes = torch.where(open_, drawn, state)
        scores = (1 - kept.softmax(dim=-1)).gather(2, drawn[..., None])[..., 0]
        scores = scores.masked_fill(~open_, -torch.finfo(scores.dtype).max)
        again = scores.argsort(dim=-1, descending=True).argsort(dim=-1) < keep
        by_level = again.view(1, frames, LEVELS)
        by_level[:, :, 1:] = True
        return codes.masked_fill(again, mask_id)

    return step


class FastConformer:
    """A `MaskedNetwork` with the weights of a peer's `ConformerWrapper`, in our layers.

    It computes what the peer computes: half feed-forward, attention with rotary positions and
    values that mix with the first layer's, convolution, half feed-forward, norm. `condition` is
    float32 [F, D] or None; the unconditional twin shares the weights.
    """

    codebook_size = SIZE

    def __init__(
        self, net: nn.Module, execution: Execution, condition: Tensor | None = None
    ) -> None:
        make = execution.layers
        self.condition = condition
        self.unconditional: FastConformer | None = None
        self.layers = [_Layer(layer, make) for layer in net.conformer.layers]  # type: ignore
        self.codes = net.code_embeds.weight
        projection, norm, mix = net.heads[0], net.to_logits[0], net.to_logits[2]  # type: ignore
        weights = projection.weight.view(LEVELS, -1, projection.in_features)
        biases = projection.bias.view(LEVELS, -1)
        self.projections = [
            make.linear(w, b, result=torch.float32) for w, b in zip(weights, biases, strict=True)
        ]
        self.norm = _norm(norm, make, result=torch.float32)
        self.heads = [weight.t().contiguous() for weight in mix.weight]
        self.biases = list(mix.bias.view(LEVELS, SIZE))
        self.rotary: dict[int, Rotary] = {}
        self.memories: dict[int, FrameMemory] = {}
        self.rows_alone, self.together = make.rows_alone, make.together

    def without_condition(self) -> FastConformer:
        """The same weights for an item that has no condition."""
        twin = copy.copy(self)
        twin.condition, twin.memories = None, {}
        return twin

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """Hidden states [N, D] of open positions, item by item."""
        counts = torch.bincount(rows, minlength=len(items)).tolist()
        own = zip(codes, lengths.tolist(), items.tolist(), frames.split(counts), strict=True)
        return torch.cat([self._of(one[:, :n], level, item, at) for one, n, item, at in own])

    def hidden_of(self, codes: Tensor, level: int) -> Tensor:
        """Hidden states [F, D] of one item's codes [K, F]."""
        return self._of(codes, level, -1, torch.arange(codes.shape[-1]))

    def _of(self, codes: Tensor, level: int, item: int, at: Tensor) -> Tensor:
        rotary, first = self._rotary(codes.shape[-1]), self.layers[0]

        def begin(frames: Tensor) -> tuple[Tensor, Tensor]:
            return first.begin(self._embed(codes, frames))

        if self.rows_alone:
            x, parts = self.memories.setdefault(item, FrameMemory())(codes, begin)
            x = x.clone()
        else:
            x, parts = begin(torch.arange(codes.shape[-1]))
        values: Tensor | None = None
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            q, k, own = layer.attention.heads_of(parts, values)
            values = own if values is None else values
            with self.together():
                x = layer.end(x, layer.mix(x, q, k, own, rotary))
                parts = following.begin(x)[1]
        last = self.layers[-1]
        heads = last.attention.heads_of(parts, values)
        with self.together():
            mixed = last.mix(x, *heads, rotary)
        if len(at) < len(x):  # each comes once
            x, mixed = x[at], mixed[at]
        with self.together():
            return self.norm(self.projections[level](last.end(x, mixed)))

    def _embed(self, codes: Tensor, frames: Tensor) -> Tensor:
        offsets = torch.arange(LEVELS)[:, None] * (SIZE + 1)
        x = F.embedding_bag((codes[:, frames] + offsets).t(), self.codes, mode="sum")
        return x if self.condition is None else x.add_(self.condition[frames])

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level."""
        return self.heads[level], self.biases[level]

    def _rotary(self, frames: int) -> Rotary:
        if frames not in self.rotary:
            rates = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
            angles = torch.arange(frames)[:, None] * rates
            self.rotary[frames] = angles.cos(), angles.sin()
        return self.rotary[frames]


def _norm(norm: nn.LayerNorm, make: Layers, result: torch.dtype | None = None) -> Norm:
    return make.norm(norm.weight, norm.bias, epsilon=norm.eps, result=result)


class _Layer:
    def __init__(self, block: nn.Module, make: Layers) -> None:
        self.before = _FeedForward(block.ff1.branch.fn, make)  # type: ignore
        self.after = _FeedForward(block.ff2.branch.fn, make)  # type: ignore
        self.attention = _Attention(block.attn.branch, make)  # type: ignore
        self.convolution = _Convolution(block.conv.branch, make)  # type: ignore
        self.norm = _norm(block.post_norm, make, result=torch.float32)  # type: ignore
        self.together = make.together

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What each frame does by itself; changes its input."""
        with self.together():
            self.before.add_to(x)
            return x, self.attention.project(x)

    def mix(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rotary: Rotary) -> Tensor:
        """What a frame hears of the others; changes [F, D]."""
        self.attention.add_to(x, q, k, v, rotary)
        return self.convolution.mix(x)

    def end(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest, again of each frame by itself; changes [F, D]."""
        self.convolution.out.add_to(x, mixed)
        self.after.add_to(x)
        return self.norm(x)


class _FeedForward:
    def __init__(self, prenorm: Any, make: Layers) -> None:
        inner, out = prenorm.fn.net[0], prenorm.fn.net[3]
        self.norm = _norm(prenorm.norm, make)
        self.inner = make.linear(inner.weight, inner.bias, end="silu")
        self.out = make.linear(out.weight, out.bias)

    def add_to(self, x: Tensor) -> None:
        self.out.add_to(x, self.inner(self.norm(x)), scale=0.5)


class _Attention:
    def __init__(self, prenorm: Any, make: Layers) -> None:
        layer = prenorm.fn
        weights = [layer.to_q.weight, layer.to_kv.weight]
        self.mixes = layer.to_value_residual_mix is not None
        if self.mixes:
            weights.append(layer.to_value_residual_mix[0].weight)
        self.norm, self.heads = _norm(prenorm.norm, make), layer.heads
        self.qkv = make.linear(torch.cat(weights))
        self.out = make.linear(layer.to_out.weight, layer.to_out.bias)
        self.attend, self.out_features = make.attend, layer.to_out.out_features

    def project(self, x: Tensor) -> Tensor:
        return self.qkv(self.norm(x))

    def heads_of(self, parts: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [F, H, D]; values mixed with those of the first layer."""
        dim = self.out_features
        q, k, v = parts[:, : 3 * dim].unflatten(1, (3, self.heads, -1)).unbind(1)  # type: ignore
        if first is not None:
            v = v.lerp(first, parts[:, 3 * dim :, None].sigmoid())
        return q, k, v

    def add_to(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, rotary: Rotary) -> None:
        q, k, v = (heads.transpose(0, 1)[None] for heads in (q, k, v))
        self.out.add_to(x, self.attend(q, k, v, rotary=rotary)[0])


class _Convolution:
    def __init__(self, layer: Any, make: Layers) -> None:
        gated, out = layer.net1[2], layer.net2[2]
        self.norm = _norm(layer.net1[0], make)
        self.gated = make.linear(gated.weight[:, :, 0], gated.bias, end="glu", result=torch.float32)
        self.out = make.linear(out.weight[:, :, 0], out.bias)
        taps, bias = layer.ds_conv.conv.weight[:, 0].t(), layer.ds_conv.conv.bias
        norm = make.norm(layer.net2[1].gamma[0, :, 0], epsilon=1e-12)
        self.inner = make.convolution(taps, bias, norm, silu_first=True)

    def mix(self, x: Tensor) -> Tensor:
        return self.inner(self.gated(self.norm(x))[None])[0]


def fast(peer: Any, config: ExecutionConfig | None = None) -> FastConformer:
    """The peer's weights in our execution."""
    return FastConformer(peer.net, (config or ExecutionConfig()).on("cpu"))


DECODE = DecodeConfig(
    steps=(STEPS,),
    schedule="linear",
    sample=SampleConfig(top_k=KEPT),
    choice_temperature=0.0,
)
"""The peer's passes and filter. Ours ranks by the log-probability, which orders alike."""


def decode(network: FastConformer, *frames: int, config: DecodeConfig = DECODE) -> Tensor:
    """Fill empty canvases of some lengths in one batch."""
    batch, longest = len(frames), max(frames)
    codes = torch.zeros(batch, LEVELS, longest, dtype=torch.int64)
    return masked_decode(
        network,
        codes,
        torch.zeros_like(codes, dtype=torch.bool),
        torch.tensor(frames),
        seeds=torch.zeros(batch, dtype=torch.int64),
        items=torch.arange(batch),
        config=config,
    )


@torch.inference_mode()
def same_logits(peer: Any, network: FastConformer, *frames: int, allowed: float) -> Agreement:
    """Compare the logits of all levels on canvases that are partly open."""
    worst = 0.0
    for count in frames:
        generator = torch.Generator().manual_seed(count)
        codes = torch.randint(0, SIZE + 1, (LEVELS, count), generator=generator)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = peer.net(codes.t().reshape(1, -1)).view(count, LEVELS, SIZE)
        for level in range(LEVELS):
            hidden = network.hidden_of(codes, level)
            ours = F.linear(hidden.float(), *network.head(level))
            worst = max(worst, float((ours - theirs[:, level]).abs().max()))
    return Agreement("logits of the peer's network and of ours", worst, allowed)
