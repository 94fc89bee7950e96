"""A network of the shape of MaskGCT's second stage, the loop that ships with it, and ours.

Re-expressed from reading `models/tts/maskgct/maskgct_s2a.py` (`MaskGCT_S2A.reverse_diffusion`) and
`llama_nar.py` (`DiffLlama`) of open-mmlab/Amphion at commit d3de90f (MIT): what is computed in each
pass, in which order and over which rows, is theirs; the code is not. One thing is left out on both
sides: the gains of the norms follow the diffusion step there and are constant here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from speechloom.decoding import DecodeConfig, Execution, FrameMemory, masked_decode, open_after
from speechloom.ops.layers import Layers, Norm, Rotary
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
    """A `MaskedNetwork` of the same weights in our layers.

    Attributes:
        network: the weights.
        blocks: laid out.
        norm: the last one, laid out.
        tables: code embeddings of each level, the mask's row at their end.
        cond: float32 [P + F, D].
        start: frames to leave out at the front: the prompt, for the unconditional twin.
        unconditional: the twin.
        rows_alone: what does not change between two passes may be kept.
        level_conds: the condition of each level, computed once.
        memory: of the first block.
    """

    network: Network
    blocks: list[_FastBlock]
    norm: Norm
    tables: list[Tensor]
    cond: Tensor
    start: int
    unconditional: FastNetwork | None
    rows_alone: bool
    level_conds: dict[int, Tensor] = field(default_factory=dict)
    memory: FrameMemory = field(default_factory=FrameMemory)

    @property
    def codebook_size(self) -> int:
        return SIZE

    def hidden(
        self,
        codes: Tensor,
        level: int,
        lengths: Tensor,
        items: Tensor,
        rows: Tensor,
        frames: Tensor,
    ) -> Tensor:
        """Hidden states [N, D] of open positions of the one item."""
        return self._at(codes[0, :, self.start :], level, frames - self.start)

    def hidden_of(self, codes: Tensor, level: int) -> Tensor:
        """Hidden states [F, D] of codes [K, F] after the frames that are left out."""
        return self._at(codes, level, torch.arange(codes.shape[-1]))

    def _at(self, codes: Tensor, level: int, wanted: Tensor) -> Tensor:
        x, parts = self._begun(codes, level)
        rotary, last = _rotary_of(len(x)), len(self.blocks) - 1
        for number, block in enumerate(self.blocks):
            parts = block.begin(x) if number else parts
            x = block.end(x, parts, rotary, wanted if number == last else None)
        return self.norm(x)

    def _begun(self, codes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """The input of the first block, which may be changed, and its `begin`."""

        def begin(frames: Tensor) -> tuple[Tensor, Tensor]:
            x = self._embed(codes[:, frames], level, frames)
            return x, self.blocks[0].begin(x)

        if not self.rows_alone:
            return begin(torch.arange(codes.shape[-1]))
        x, parts = self.memory(codes, begin, key=level)
        return x.clone(), parts

    def _embed(self, codes: Tensor, level: int, frames: Tensor) -> Tensor:
        x = self._cond_of(level)[frames]
        for own, table in zip(codes, self.tables, strict=True):
            x += F.embedding(own, table)
        return x

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
    make = execution.layers
    blocks = [_FastBlock(block, make) for block in network.blocks]
    norm = _norm(network.norm, make, result=torch.float32)
    tables = [torch.cat((table.weight, network.mask.weight)) for table in network.tokens]

    def conditioned(start: int, twin: FastNetwork | None) -> FastNetwork:
        return FastNetwork(network, blocks, norm, tables, cond, start, twin, make.rows_alone)

    return conditioned(0, conditioned(prompted, None))


def _norm(norm: RMSNorm, make: Layers, result: torch.dtype | None = None) -> Norm:
    return make.norm(norm.gain, epsilon=1e-6, centred=False, result=result)


def _rotary_of(frames: int) -> Rotary:
    rates = 10000.0 ** (-torch.arange(0, 64, 2) / 64)
    angles = torch.arange(frames)[:, None] * rates
    return angles.cos(), angles.sin()


class _FastBlock:
    def __init__(self, block: Block, make: Layers) -> None:
        self.heads, self.attend, self.together = block.heads, make.attend, make.together
        self.before, self.after = _norm(block.before, make), _norm(block.after, make)
        self.qkv = make.linear(torch.cat([x.weight for x in (block.q, block.k, block.v)]))
        self.o = make.linear(block.o.weight)
        self.wide = make.linear(torch.cat([block.up.weight, block.gate.weight]), end="swiglu")
        self.down = make.linear(block.down.weight)

    def begin(self, x: Tensor) -> Tensor:
        """What each frame [F, D] does by itself: queries, keys and values [F, 3 D]."""
        with self.together():
            return self.qkv(self.before(x))

    def end(self, x: Tensor, parts: Tensor, rotary: Rotary, wanted: Tensor | None) -> Tensor:
        """The rest, which changes its input; of the wanted frames alone if they are given."""
        heads = parts.view(len(x), 3, self.heads, -1).permute(1, 2, 0, 3)
        mixed = self.attend(*heads.split(1), rotary=rotary)[0]  # type: ignore[no-untyped-call]
        if wanted is not None and len(wanted) < len(x):  # each comes once
            x, mixed = x[wanted], mixed[wanted]
        with self.together():
            self.o.add_to(x, mixed)
            self.down.add_to(x, self.wide(self.after(x)))
        return x


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


def flops(
    network: Network, prompted: int, frames: int, steps: tuple[int, ...], *, alone: bool
) -> float:
    """Multiplications and additions of the matrix products of our decode, heads left out.

    `alone`: the layers compute rows alone (`Layers.rows_alone`), and what did not change in a level
    or is not wanted is left out.
    """
    dim, layers = network.dim, len(network.blocks)
    total = 0.0
    for rows in (prompted + frames, frames):
        total += network.levels * 2.0 * rows * 8 * dim**2
        for own in steps:
            stay = open_after(frames, own)
            wanted, changed = [frames, *stay[:-1]], [rows, *_closed(frames, stay)[:-1]]
            for want, change in zip(wanted, changed, strict=True):
                total += 2.0 * rows * layers * (16 * dim**2 + 2 * rows * dim)
                if alone:
                    total -= 2.0 * ((rows - change) * 3 + (rows - want) * 13) * dim**2
    return total


def _closed(frames: int, stay: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip((frames, *stay), stay, strict=False)]


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
