"""A network of the shape of MaskGCT's second stage, the loop that ships with it, and ours.

Re-expressed from reading `models/tts/maskgct/maskgct_s2a.py` (`MaskGCT_S2A.reverse_diffusion`) and
`llama_nar.py` (`DiffLlama`) of open-mmlab/Amphion at commit d3de90f (MIT): what is computed in each
pass, in which order and over which rows, is theirs; the code is not. One thing is left out on both
sides: the gains of the norms follow the diffusion step there and are constant here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom.decoding import DecodeConfig, Execution, masked_decode
from speechloom.decoding.attention import attend
from speechloom.ops.masked_decode import SampleConfig
from speechloom_bench.rows import Agreement

SIZE, KEPT, GUIDANCE, HEAT = 1024, 21, 1.0, 1.5


class RMSNorm(nn.Module):
    """Scale to unit mean square, times a gain."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Block(nn.Module):
    """Llama's block without a causal mask: eager attention, gated feed-forward."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = RMSNorm(dim), RMSNorm(dim)
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(dim, 4 * dim, bias=False) for _ in range(2))
        self.down = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._attend(self.before(x), mask, cos, sin)
        y = self.after(x)
        return x + cast(Tensor, self.down(F.silu(self.gate(y)) * self.up(y)))

    def _attend(self, x: Tensor, mask: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, frames, dim = x.shape
        q, k, v = (
            layer(x).view(batch, frames, self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        q, k = (each * cos + _half_turned(each) * sin for each in (q, k))
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + mask
        mixed = scores.softmax(dim=-1, dtype=torch.float32) @ v
        return cast(Tensor, self.o(mixed.transpose(1, 2).reshape(batch, frames, dim)))


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


class Network(nn.Module):
    """Embeddings, blocks and heads of the second stage."""

    def __init__(self, *, levels: int, dim: int = 1024, layers: int = 16, seed: int = 0) -> None:
        super().__init__()
        self.levels, self.dim, self.head_count = levels, dim, dim // 64
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.tokens = nn.ModuleList(nn.Embedding(SIZE, dim) for _ in range(levels))
            self.mask = nn.Embedding(1, dim)
            self.level = nn.Embedding(levels, dim)
            self.cond = nn.Sequential(nn.Linear(dim, 4 * dim), nn.SiLU(), nn.Linear(4 * dim, dim))
            self.blocks = nn.ModuleList(Block(dim, self.head_count) for _ in range(layers))
            self.norm = RMSNorm(dim)
            self.heads = nn.ModuleList(nn.Linear(dim, SIZE) for _ in range(levels))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, cond: Tensor, real: Tensor) -> Tensor:
        """The peer's estimator: [B, F, D] with conditions [B, F, D], real frames [B, F]."""
        x = x + self.cond(cond)
        frames = x.shape[1]
        mask = (1.0 - real[:, None, None, :].expand(-1, 1, frames, frames)) * -1e38
        rates = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        angles = torch.arange(frames)[:, None] * rates
        angles = torch.cat((angles, angles), dim=-1)
        for block in self.blocks:
            x = block(x, mask, angles.cos(), angles.sin())
        return cast(Tensor, self.norm(x))


def peer_decode(network: Network, cond: Tensor, prompt: Tensor, steps: tuple[int, ...]) -> Tensor:
    """The peer's loop: levels in turn, guidance by two forwards a pass, one item.

    Args:
        network: the weights.
        cond: float32 [1, P + F, D], conditions of prompt and target.
        prompt: int64 [1, P, K].
        steps: passes of each level.

    Returns:
        int64 [1, F, K].
    """
    prompted, frames = prompt.shape[1], cond.shape[1] - prompt.shape[1]
    real = torch.ones(1, frames)
    decided = torch.zeros(1, frames, network.dim)
    result = torch.zeros(1, frames, network.levels, dtype=torch.int64)
    mask_row = network.mask(torch.zeros(1, dtype=torch.int64))[:, None]
    for level, passes in enumerate(steps):
        known = sum(table(prompt[:, :, k]) for k, table in enumerate(network.tokens))
        with_level = cond + network.level(torch.tensor([level]))[:, None]
        open_ = torch.ones(1, frames, 1, dtype=torch.bool)
        codes = torch.zeros(1, frames, dtype=torch.int64)
        for number in range(passes):
            own = network.tokens[level](codes)
            x = decided + open_ * mask_row + (~open_) * own
            x = x + mask_row * (network.levels - 1 - level)
            both = torch.cat((torch.ones(1, prompted), real), dim=1)
            hidden = network(torch.cat((known, x), dim=1), with_level, both)[:, prompted:]
            free = network(x, with_level[:, prompted:], real)
            spread = hidden.std()
            hidden = hidden + GUIDANCE * (hidden - free)
            hidden = hidden * spread / hidden.std()
            logits = network.heads[level](hidden)
            codes, open_ = peer_close(logits, codes, open_, number, passes)
            if not open_.any():
                break
        decided = decided + network.tokens[level](codes)
        result[..., level] = codes
    return result


def peer_close(
    logits: Tensor, codes: Tensor, open_: Tensor, number: int, passes: int
) -> tuple[Tensor, Tensor]:
    """The peer's sampling step over [1, F, V]: filter, draw, rate, choose what stays open."""
    left = 1.0 - number / passes
    best = logits.topk(KEPT, dim=-1)
    kept = torch.full_like(logits, float("-inf")).scatter_(2, best.indices, best.values)
    if number == passes - 1 and passes > 1:
        drawn = kept.argmax(dim=-1)
    else:
        heat = 0.2 if passes == 1 else HEAT * left
        drawn = (kept / max(heat, 1e-3) + _gumbel(kept)).argmax(dim=-1)
    codes = torch.where(open_[..., 0], drawn, codes)
    sure = kept.softmax(dim=-1).gather(2, drawn[..., None])[..., 0]
    unsure = 1 - (left * _gumbel(sure) + sure)
    share = math.sin((1.0 - (number + 1) / passes) * math.pi / 2)
    again = int(torch.tensor([share * codes.shape[1]]).long()[0].item())
    if again == 0:
        return codes, torch.zeros_like(open_)
    unsure = unsure.masked_fill(~open_[..., 0], -torch.finfo(unsure.dtype).max)
    chosen = unsure.topk(again, dim=-1).indices
    stays = torch.zeros_like(unsure, dtype=torch.bool).scatter(1, chosen, True)
    return codes.masked_fill(stays, 0), stays[..., None]


def _gumbel(like: Tensor) -> Tensor:
    noise = torch.zeros_like(like).uniform_(0, 1)
    return -torch.log(-torch.log(noise + 1e-10) + 1e-10)


@dataclass(frozen=True)
class FastNetwork:
    """A `MaskedNetwork` of the same weights in our execution.

    Attributes:
        network: the weights.
        layers: the blocks, laid out.
        tables: code embeddings of each level, the mask's row at their end.
        cond: float32 [P + F, D].
        start: frames to leave out at the front: the prompt, for the unconditional twin.
        unconditional: the twin.
        level_conds: the condition of each level, computed once.
    """

    network: Network
    layers: list[_FastBlock]
    tables: list[Tensor]
    cond: Tensor
    start: int
    unconditional: FastNetwork | None
    level_conds: dict[int, Tensor]

    @property
    def codebook_size(self) -> int:
        return SIZE

    def hidden(self, codes: Tensor, level: int, lengths: Tensor, items: Tensor) -> Tensor:
        """Hidden states [1, F, D] of the one item; rows of frames left out are zero."""
        own = self.hidden_of(codes[0, :, self.start :], level)
        return F.pad(own, (0, 0, self.start, 0))[None]

    def hidden_of(self, codes: Tensor, level: int) -> Tensor:
        x = self._cond_of(level).clone()
        for k, table in enumerate(self.tables):
            x += F.embedding(codes[k], table)
        frames = len(x)
        rates = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
        angles = (torch.arange(frames)[:, None] * rates)[:, None]
        rotary = angles.cos(), angles.sin()
        scratch = torch.empty(frames * 8 * self.network.dim)
        for layer in self.layers:
            layer.run(x, rotary, scratch)
        return _rms(x, self.network.norm)

    def _cond_of(self, level: int) -> Tensor:
        if level not in self.level_conds:
            own = self.cond[self.start :] + self.network.level.weight[level]
            self.level_conds[level] = self.network.cond(own)
        return self.level_conds[level]

    def head(self, level: int) -> tuple[Tensor, Tensor]:
        head = self.network.heads[level]
        return head.weight, head.bias


def fast(network: Network, cond: Tensor, prompted: int, execution: Execution) -> FastNetwork:
    """Lay the weights out for one request: conditions [P + F, D], P of them prompt."""
    layers = [_FastBlock(block, execution) for block in network.blocks]
    tables = [torch.cat((table.weight, network.mask.weight)) for table in network.tokens]
    twin = FastNetwork(network, layers, tables, cond, prompted, None, {})
    return FastNetwork(network, layers, tables, cond, 0, twin, {})


def _rms(x: Tensor, norm: RMSNorm) -> Tensor:
    return F.rms_norm(x, norm.gain.shape, norm.gain, 1e-6)


class _FastBlock:
    def __init__(self, block: Block, execution: Execution) -> None:
        self.block = block
        self.qkv = execution.linear(torch.cat([x.weight for x in (block.q, block.k, block.v)]))
        self.o = execution.linear(block.o.weight)
        self.wide = execution.linear(torch.cat([block.gate.weight, block.up.weight]))
        self.down = execution.linear(block.down.weight)

    def run(self, x: Tensor, rotary: tuple[Tensor, Tensor], scratch: Tensor) -> None:
        frames, dim = x.shape
        place = scratch[: frames * 3 * dim].view(frames, 3 * dim)
        parts = self.qkv(_rms(x, self.block.before), place).view(frames, 3, self.block.heads, -1)
        q, k, v = parts.unbind(1)
        q, k, v = (y.transpose(0, 1)[None] for y in (_turn(q, rotary), _turn(k, rotary), v))
        mixed = attend(q, k, v)[0].transpose(0, 1)
        x.add_(self.o(mixed.reshape(frames, dim)))
        wide = self.wide(_rms(x, self.block.after), scratch.view(frames, 8 * dim))
        gate, up = wide.chunk(2, dim=-1)
        x.add_(self.down(F.silu(gate).mul_(up)))


def _turn(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1).to(x.dtype)


def decode(network: FastNetwork, prompt: Tensor, steps: tuple[int, ...]) -> Tensor:
    """Our loop on the same request; int64 [1, K, P + F]."""
    prompted, frames = prompt.shape[1], len(network.cond)
    codes = torch.zeros(1, network.network.levels, frames, dtype=torch.int64)
    codes[..., :prompted] = prompt.transpose(1, 2)
    known = torch.zeros_like(codes, dtype=torch.bool)
    known[..., :prompted] = True
    zero = torch.zeros(1, dtype=torch.int64)
    sample = SampleConfig(temperature=HEAT, top_k=KEPT, guidance=1.0 + GUIDANCE)
    config = DecodeConfig(steps=steps, sample=sample)
    return masked_decode(
        network, codes, known, zero + frames, seeds=zero, items=zero, config=config
    )


def flops(network: Network, prompted: int, frames: int, steps: tuple[int, ...]) -> float:
    """Multiplications and additions of the matrix products of our decode, heads left out."""
    dim, layers = network.dim, len(network.blocks)
    total = 0.0
    for rows in (prompted + frames, frames):
        total += sum(steps) * layers * 2.0 * rows * (16 * dim**2 + 2 * rows * dim)
        total += network.levels * 2.0 * rows * 8 * dim**2
    return total


@torch.inference_mode()
def same_hidden(network: Network, laid_out: FastNetwork, *, allowed: float) -> Agreement:
    """Compare hidden states on a canvas that is partly open, with and without the prompt."""
    worst, twin = 0.0, laid_out.unconditional
    assert twin is not None
    generator = torch.Generator().manual_seed(1)
    for own in (laid_out, twin):
        frames = len(laid_out.cond) - own.start
        codes = torch.randint(0, SIZE + 1, (network.levels, frames), generator=generator)
        x = torch.zeros(1, frames, network.dim)
        for k, table in enumerate(network.tokens):
            open_ = (codes[k] == SIZE)[None, :, None]
            x += torch.where(open_, network.mask.weight, table(codes[k].clamp(max=SIZE - 1))[None])
        cond = laid_out.cond[None, own.start :] + network.level.weight[1]
        theirs = network(x, cond, torch.ones(1, frames))[0]
        worst = max(worst, float((own.hidden_of(codes, 1) - theirs).abs().max()))
    return Agreement("hidden states of the peer's network and of ours", worst, allowed)
