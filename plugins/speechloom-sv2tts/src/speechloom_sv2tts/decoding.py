"""Tacotron 2 speaking: the autoregressive loop, and what keeps its attention on the text.

The classic faults of Tacotron 2 are words left out, said twice, or never ended. Here the attention
may only look into a window of symbols that moves forward. Two walks use it:

* `FreeWalk` finds the timing: the window follows the attention's best symbol, never back, never
  over more than `AHEAD` symbols; who dwells on one symbol for too long is pushed on; the stop token
  counts at the last symbol only. What had to be forced is reported.
* `TimedWalk` speaks in a given timing: at each step the window lies around the symbols of its
  frames. Nothing can be skipped or repeated, and the length is known.

The step is written out over preallocated buffers, with the products of each LSTM in one and the
two linear location layers folded into one; tests hold it to the modules of
`speechloom_sv2tts.tacotron2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from speechloom.ops.masked_decode.noise import NoiseKeys, uniforms
from speechloom_sv2tts.tacotron2 import PRENET_KEPT, Decoder, inside

__all__ = [
    "Decoded",
    "Drops",
    "FreeWalk",
    "Steps",
    "TimedWalk",
    "Unheard",
    "Walk",
    "decode",
    "windows",
]

BACK = 1
"""Symbols behind the reached one that may still be looked at."""

AHEAD = 3
"""Symbols before the reached one that may be looked at; one fewer can be left out at a time."""

STOP = 0.5
"""Probability of the stop token from which on it stops."""


class Drops:
    """Which units of the pre-net stay, step by step; drawn in blocks, by name.

    A draw depends on (seed, item, step, unit) only, so that an item is the same alone, in a batch
    and on every device.

    Args:
        seeds: int64 [B].
        items: int64 [B].
        units: of a pre-net layer.
        level: keeps the draws of different uses apart.
        withheld: share of the steps that hear no frame: all of their units are dropped.
    """

    block = 64

    def __init__(
        self, seeds: Tensor, items: Tensor, units: int, *, level: int, withheld: float = 0.0
    ) -> None:
        self._seeds, self._items, self._units, self._level = seeds, items, units, level
        self._withheld = withheld
        self._first, self._drawn = 0, torch.empty(0)

    def at(self, step: int) -> Tensor:
        """Bool [B, 2, units]."""
        first = step // self.block * self.block
        if self._drawn.numel() == 0 or first != self._first:
            self._first, self._drawn = first, self._draw(first)
        return self._drawn[:, :, step - first]

    def all(self, steps: int) -> Tensor:
        """Bool [B, steps, 2, units]."""
        return torch.stack([self.at(step) for step in range(steps)], 1)

    def _draw(self, first: int) -> Tensor:
        layers = self._uniforms(first, self._units, stage=0)
        kept = torch.stack([draw < PRENET_KEPT for draw in layers], 1)
        if not self._withheld:
            return kept
        draw, _ = self._uniforms(first, 1, stage=1)
        return kept & (draw >= self._withheld)[:, None]

    def _uniforms(self, first: int, units: int, *, stage: int) -> list[Tensor]:
        """Two draws [B, block, units] for the steps from `first` on."""
        batch, count = len(self._seeds), self.block * units
        positions = torch.arange(count, device=self._seeds.device) + first * units
        keys = NoiseKeys(
            seed=self._seeds.repeat_interleave(count),
            item=self._items.repeat_interleave(count),
            position=positions.repeat(batch),
            level=self._level,
            stage=stage,
        )
        return [draw.view(batch, self.block, units) for draw in uniforms(keys)]


class Unheard:
    """Nothing is drawn: no step hears a frame.

    Args:
        batch: B.
        units: of a pre-net layer.
        device: of the decoding.
    """

    def __init__(self, batch: int, units: int, device: torch.device) -> None:
        self._none = torch.zeros(batch, 2, units, dtype=torch.bool, device=device)

    def at(self, step: int) -> Tensor:
        """Bool [B, 2, units]."""
        return self._none


# Walks ------------------------------------------------------------------------------------


class Walk(Protocol):
    """Decides at each step where the attention may look, and when it is over."""

    def allowed(self, step: int) -> Tensor:
        """Bool [B, N]."""
        ...

    def saw(self, weights: Tensor, stop: Tensor) -> bool:
        """Take notice of a step's attention [B, N] and stop logits [B]; whether all is said."""
        ...


def windows(symbols: Sequence[Tensor], lengths: Tensor, reduction: int) -> Tensor:
    """Where the attention may look in a given timing: around the symbols of each step's frames.

    Args:
        symbols: per item, which symbol each frame says, int64, in order.
        lengths: int64 [B], symbols of each.
        reduction: frames a step.

    Returns:
        bool [B, S, N]; every symbol of an item once all of its frames are said.
    """
    steps = max(-(-len(one) // reduction) for one in symbols)
    size = int(lengths.max())
    at = torch.arange(size)
    allowed = inside(lengths, size)[:, None].repeat(1, steps, 1)
    for row, one in enumerate(symbols):
        count = -(-len(one) // reduction)
        padded = torch.cat([one, one[-1:].expand(count * reduction - len(one))])
        frames = padded.view(count, reduction)
        first, last = frames.amin(1) - BACK, frames.amax(1) + BACK
        allowed[row, :count] &= (at >= first[:, None]) & (at <= last[:, None])
    return allowed


class TimedWalk:
    """The timing is given.

    Args:
        symbols: per item, which symbol each frame says, in order.
        lengths: int64 [B], symbols of each.
        reduction: frames a step.
        device: of the decoding.

    Attributes:
        steps: that the longest item takes.
    """

    def __init__(
        self, symbols: list[Tensor], lengths: Tensor, reduction: int, device: torch.device
    ) -> None:
        self._allowed = windows(symbols, lengths, reduction).to(device)
        self.steps = self._allowed.shape[1]
        self._seen = 0

    def allowed(self, step: int) -> Tensor:
        """See `Walk`."""
        return self._allowed[:, step]

    def saw(self, weights: Tensor, stop: Tensor) -> bool:
        """See `Walk`; the stop token says nothing here."""
        self._seen += 1
        return self._seen == self.steps


class FreeWalk:
    """The attention finds the timing.

    Args:
        lengths: int64 [B], symbols of each.
        patience: steps on one symbol after which it is pushed on.
        device: of the decoding.

    Attributes:
        path: per step, int64 [B], the symbol that is being said.
        steps: int64 [B], steps of each item once it is over.
        pushed: bool [B, N], symbols that the attention had to be pushed on from.
        stopped: bool [B], whether the stop token ended it.
    """

    def __init__(self, lengths: Tensor, patience: int, device: torch.device) -> None:
        self._lengths = lengths.to(device)
        self._patience = patience
        self._at = torch.arange(int(lengths.max()), device=device)
        self._reached = torch.zeros_like(self._lengths)
        self._dwelt = torch.zeros_like(self._lengths)
        self._over = torch.zeros_like(self._lengths, dtype=torch.bool)
        self.path: list[Tensor] = []
        self.steps = torch.zeros_like(self._lengths)
        self.pushed = torch.zeros(len(lengths), int(lengths.max()), dtype=torch.bool, device=device)
        self.stopped = torch.zeros_like(self._over)

    def allowed(self, step: int) -> Tensor:
        """See `Walk`."""
        low, high = self._reached - BACK, (self._reached + AHEAD).minimum(self._lengths - 1)
        # Pushed on from, a symbol is behind: it may not be gone back to.
        low = torch.where(self._dwelt < 0, self._reached, low)
        return (self._at >= low[:, None]) & (self._at <= high[:, None])

    def saw(self, weights: Tensor, stop: Tensor) -> bool:
        """See `Walk`."""
        best = weights.argmax(1).maximum(self._reached)
        self._dwelt = torch.where(best > self._reached, 1, self._dwelt.clamp(min=0) + 1)
        self._reached = best
        self.path.append(best)
        self.steps += ~self._over
        at_end = best >= self._lengths - 1
        said = at_end & (torch.sigmoid(stop) > STOP) & ~self._over
        tired = (self._dwelt >= self._patience) & ~self._over
        self.stopped |= said
        self.pushed |= (tired & ~said)[:, None] & (self._at == best[:, None])
        self._over = self._over | said | (tired & at_end)
        on = tired & ~at_end
        self._reached = torch.where(on, best + 1, self._reached)
        self._dwelt = torch.where(on, -1, self._dwelt)
        return bool(self._over.all())


# The loop ---------------------------------------------------------------------------------


class Steps:
    """The decoder's step for one batch, over preallocated buffers.

    Args:
        decoder: its weights are read, in evaluation mode.
        memory: float [B, N, memory].
    """

    def __init__(self, decoder: Decoder, memory: Tensor) -> None:
        config, batch = decoder.config, len(memory)
        asking, speaking, size = config.attention_rnn, config.decoder_rnn, config.memory
        self._prenet = [cast(nn.Linear, layer).weight.T for layer in decoder.prenet]
        self._bands, self._split = config.bands, config.bands * config.reduction
        self._memory = memory
        # Torch makes the weights of its LSTMs by name, so that types know nothing of them.
        rnn: Any = decoder.attention_rnn
        speech: Any = decoder.decoder_rnn
        # Rows of the input: pre-net, context, state; and state of the first, context, state.
        self._ask = torch.cat([rnn.weight_ih, rnn.weight_hh], 1).T.contiguous()
        self._ask_bias = rnn.bias_ih + rnn.bias_hh
        self._say = torch.cat([speech.weight_ih_l0, speech.weight_hh_l0], 1).T.contiguous()
        self._say_bias = speech.bias_ih_l0 + speech.bias_hh_l0
        self._heads = torch.cat([decoder.project.weight, decoder.stop.weight]).T.contiguous()
        self._heads_bias = torch.cat([decoder.project.bias, decoder.stop.bias])
        attention = decoder.attention
        self._query, self._score = attention.query.weight.T, attention.score.weight[0]
        conv = attention.location_conv.weight
        self._location = torch.einsum("af,fck->ack", attention.location.weight, conv)
        self._reach = config.location_kernel // 2
        self._keys = attention.memory(memory).transpose(1, 2).contiguous()
        new = memory.new_zeros
        self._asking = new(batch, config.prenet + size + asking)
        self._prepared, self._context, self._asked = torch.split(
            self._asking, [config.prenet, size, asking], 1
        )
        self._saying = new(batch, asking + size + speaking)
        self._heard, self._heard_context, self._said = torch.split(
            self._saying, [asking, size, speaking], 1
        )
        self._ask_gates, self._say_gates = new(batch, 4 * asking), new(batch, 4 * speaking)
        self._ask_cell, self._say_cell = new(batch, asking), new(batch, speaking)
        self._out = new(batch, self._split + 1)
        self._earlier = new(batch, 2, memory.shape[1])

    def __call__(self, kept: Tensor | None, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One step.

        Args:
            kept: bool [B, 2, prenet], or None.
            allowed: bool [B, N].

        Returns:
            Frames float [B, reduction x bands], stop logits [B], attention [B, N]; the first two
            are overwritten by the next step.
        """
        x = self._out[:, self._split - self._bands : self._split]
        for layer, weight in enumerate(self._prenet):
            x = (x @ weight).relu_()
            if kept is not None:
                x.mul_(kept[:, layer]).div_(PRENET_KEPT)
        self._prepared.copy_(x)
        torch.addmm(self._ask_bias, self._asking, self._ask, out=self._ask_gates)
        self._asked.copy_(_lstm(self._ask_gates, self._ask_cell))
        weights = self._attended(allowed)
        self._context.copy_(torch.bmm(weights[:, None], self._memory)[:, 0])
        self._heard.copy_(self._asked)
        self._heard_context.copy_(self._context)
        torch.addmm(self._say_bias, self._saying, self._say, out=self._say_gates)
        self._said.copy_(_lstm(self._say_gates, self._say_cell))
        heads = torch.cat([self._said, self._context], 1)
        torch.addmm(self._heads_bias, heads, self._heads, out=self._out)
        return self._out[:, : self._split], self._out[:, self._split], weights

    def _attended(self, allowed: Tensor) -> Tensor:
        where = torch.conv1d(self._earlier, self._location, padding=self._reach)
        where += self._keys
        where += (self._asked @ self._query)[:, :, None]
        energy = torch.einsum("ban,a->bn", where.tanh_(), self._score)
        weights = torch.softmax(energy.masked_fill_(~allowed, -torch.inf), -1)
        self._earlier[:, 0] = weights
        self._earlier[:, 1] += weights
        return weights


def _lstm(gates: Tensor, cell: Tensor) -> Tensor:
    """The state after a step; `cell` is updated in place, `gates` are used up."""
    enter, forget, new, leave = gates.chunk(4, 1)
    cell.mul_(forget.sigmoid_()).addcmul_(enter.sigmoid_(), new.tanh_())
    return cell.tanh().mul_(leave.sigmoid_())


@dataclass(frozen=True)
class Decoded:
    """What the decoder said.

    Attributes:
        frames: float [B, S x reduction, bands], before the post-net.
        attention: float [B, S, N].
    """

    frames: Tensor
    attention: Tensor


@torch.inference_mode()
def decode(
    decoder: Decoder, memory: Tensor, walk: Walk, drops: Drops | Unheard | None, *, max_steps: int
) -> Decoded:
    """Speak until the walk is over.

    Args:
        decoder: in evaluation mode.
        memory: float [B, N, memory].
        walk: where the attention may look, and when it is over.
        drops: the pre-net's dropout; None drops nothing.
        max_steps: it is over then in any case.
    """
    step_of = Steps(decoder, memory)
    frames, attention = [], []
    for step in range(max_steps):
        kept = None if drops is None else drops.at(step)
        said, stop, weights = step_of(kept, walk.allowed(step))
        frames.append(said.clone())
        attention.append(weights)
        if walk.saw(weights, stop):
            break
    batch, bands = len(memory), decoder.config.bands
    return Decoded(torch.stack(frames, 1).view(batch, -1, bands), torch.stack(attention, 1))
