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
from collections.abc import Callable, Iterator
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
    masked_decode,
    open_after,
)
from speechloom.decoding.attention import attend
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

    def flops(self, *frames: int) -> float:
        """Multiplications and additions of the matrix products of a whole decode of ours."""
        return sum(self._flops_of(count) for count in frames)

    def forward_flops(self, frames: int) -> float:
        """The same of one pass, with the projection of one head and no head."""
        layer = 26 * self.dim**2 + 2 * frames * self.dim
        return 2.0 * frames * (layer * self.layers + self.dim**2)

    def _flops_of(self, frames: int) -> float:
        opened = frames + sum(open_after(frames, STEPS, schedule="linear"))
        rows = opened + (LEVELS - 1) * frames
        passes = STEPS + LEVELS - 1
        return self.forward_flops(frames) * passes + 2.0 * rows * self.dim * SIZE


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
    """A `MaskedNetwork` with the weights of a peer's `ConformerWrapper`, in our execution.

    It computes what the peer computes: half feed-forward, attention with rotary positions and
    values that mix with the first layer's, convolution, half feed-forward, norm. `condition` is
    float32 [F, D] or None; the unconditional twin shares the weights.
    """

    codebook_size = SIZE

    def __init__(
        self, net: nn.Module, execution: Execution, condition: Tensor | None = None
    ) -> None:
        self.execution = execution
        self.condition = condition
        self.unconditional: FastConformer | None = None
        self.layers = [_Layer(layer, execution) for layer in net.conformer.layers]  # type: ignore
        self.codes = net.code_embeds.weight
        projection, norm, mix = net.heads[0], net.to_logits[0], net.to_logits[2]  # type: ignore
        weights = projection.weight.view(LEVELS, -1, projection.in_features)
        biases = projection.bias.view(LEVELS, -1)
        self.projections = [execution.linear(w, b) for w, b in zip(weights, biases, strict=True)]
        self.norm = norm
        self.heads = [weight.t().contiguous() for weight in mix.weight]
        self.biases = list(mix.bias.view(LEVELS, SIZE))
        self.width = max(layer.width for layer in self.layers)
        self.rotary: dict[int, tuple[Tensor, Tensor]] = {}

    def without_condition(self) -> FastConformer:
        """The same weights for an item that has no condition."""
        twin = copy.copy(self)
        twin.condition = None
        return twin

    def hidden(self, codes: Tensor, level: int, lengths: Tensor, items: Tensor) -> Tensor:
        """Hidden states [A, F, D] of some items, one by one."""
        result = torch.zeros(*codes[:, 0].shape, self.codes.shape[1])
        for item, length in enumerate(lengths.tolist()):
            result[item, :length] = self.hidden_of(codes[item, :, :length], level)
        return result

    def hidden_of(self, codes: Tensor, level: int) -> Tensor:
        """Hidden states [F, D] of one item's codes [K, F]."""
        frames = codes.shape[-1]
        offsets = torch.arange(LEVELS)[:, None] * (SIZE + 1)
        x = F.embedding_bag((codes + offsets).t(), self.codes, mode="sum")
        if self.condition is not None:
            x += self.condition[:frames]
        scratch = torch.empty(frames * self.width, dtype=self.execution.dtype)
        first: Tensor | None = None
        for layer in self.layers:
            x, values = layer.run(x, self._rotary(frames), first, scratch)
            first = values if first is None else first
        return self.norm(self.projections[level](x).float())

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        """Output head of a level."""
        return self.heads[level], self.biases[level]

    def _rotary(self, frames: int) -> tuple[Tensor, Tensor]:
        if frames not in self.rotary:
            rates = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
            angles = torch.arange(frames)[:, None] * rates
            dtype = self.execution.dtype
            self.rotary[frames] = angles.cos().to(dtype), angles.sin().to(dtype)
        return self.rotary[frames]


class _Layer:
    def __init__(self, block: nn.Module, execution: Execution) -> None:
        self.before = _FeedForward(block.ff1.branch.fn, execution)  # type: ignore
        self.after = _FeedForward(block.ff2.branch.fn, execution)  # type: ignore
        self.attention = _Attention(block.attn.branch, execution)  # type: ignore
        self.convolution = _Convolution(block.conv.branch, execution)  # type: ignore
        self.norm = block.post_norm
        self.width = max(
            part.width for part in (self.before, self.after, self.attention, self.convolution)
        )

    def run(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], first: Tensor | None, scratch: Tensor
    ) -> tuple[Tensor, Tensor]:
        x.add_(self.before(x, scratch), alpha=0.5)
        mixed, values = self.attention(x, rotary, first, scratch)
        x.add_(mixed)
        x.add_(self.convolution(x, scratch))
        x.add_(self.after(x, scratch), alpha=0.5)
        return self.norm(x), values  # type: ignore


def _place(scratch: Tensor, rows: int, width: int) -> Tensor:
    return scratch[: rows * width].view(rows, width)


class _FeedForward:
    def __init__(self, prenorm: Any, execution: Execution) -> None:
        inner, out = prenorm.fn.net[0], prenorm.fn.net[3]
        self.norm = prenorm.norm
        self.inner = execution.linear(inner.weight, inner.bias)
        self.out = execution.linear(out.weight, out.bias)
        self.width = inner.out_features

    def __call__(self, x: Tensor, scratch: Tensor) -> Tensor:
        wide = self.inner(self.norm(x), _place(scratch, len(x), self.width))
        return self.out(F.silu(wide, inplace=True))


class _Attention:
    def __init__(self, prenorm: Any, execution: Execution) -> None:
        layer = prenorm.fn
        weights = [layer.to_q.weight, layer.to_kv.weight]
        self.mixes = layer.to_value_residual_mix is not None
        if self.mixes:
            weights.append(layer.to_value_residual_mix[0].weight)
        self.norm, self.heads = prenorm.norm, layer.heads
        self.qkv = execution.linear(torch.cat(weights))
        self.out = execution.linear(layer.to_out.weight, layer.to_out.bias)
        self.width = sum(len(weight) for weight in weights)

    def __call__(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], first: Tensor | None, scratch: Tensor
    ) -> tuple[Tensor, Tensor]:
        frames, dim = x.shape
        parts = self.qkv(self.norm(x), _place(scratch, frames, self.width))
        heads = parts[:, : 3 * dim].unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3)  # type: ignore
        v = heads[2:]
        if first is None:
            v = v.clone()  # later layers mix with it, and the scratch memory does not last
        else:
            v = v.lerp(first, parts[:, 3 * dim :].t()[None, :, :, None].sigmoid())
        mixed = attend(*_turn(heads[:2], rotary).split(1), v)
        return self.out(mixed[0].transpose(0, 1).reshape(frames, dim)), v


def _turn(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class _Convolution:
    def __init__(self, layer: Any, execution: Execution) -> None:
        gated, out = layer.net1[2], layer.net2[2]
        self.norm = layer.net1[0]
        self.gated = execution.linear(gated.weight[:, :, 0], gated.bias)
        self.out = execution.linear(out.weight[:, :, 0], out.bias)
        self.taps = layer.ds_conv.conv.weight[:, 0].t().contiguous()
        self.bias = layer.ds_conv.conv.bias
        self.gain = layer.net2[1].gamma[0, :, 0]
        self.width = gated.out_channels

    def __call__(self, x: Tensor, scratch: Tensor) -> Tensor:
        gated = self.gated(self.norm(x), _place(scratch, len(x), self.width))
        around = len(self.taps) // 2
        padded = F.pad(F.glu(gated).float(), (0, 0, around, around))
        mixed = torch.addcmul(self.bias, padded[: len(x)], self.taps[0])
        for shift, tap in enumerate(self.taps[1:], 1):
            mixed.addcmul_(padded[shift : shift + len(x)], tap)
        F.silu(mixed, inplace=True)
        return self.out(F.layer_norm(mixed, self.gain.shape, self.gain, None, 1e-12))


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
