"""Frames per second of the speaking loop, and of the same network run module by module.

The network has the published sizes and random weights; 100 symbols, 200 frames.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import Drops, TimedWalk, decode
from speechloom_sv2tts.tacotron2 import Decoder, Tacotron2

pytestmark = pytest.mark.bench

SYMBOLS, STEPS = 100, 200


def module_by_module(decoder: Decoder, memory: Tensor, walk: TimedWalk, drops: Drops) -> Tensor:
    """The loop as the papers describe it, over the modules."""
    batch, config = len(memory), decoder.config
    keys = decoder.attention.memory(memory)
    frame, context = memory.new_zeros(batch, config.bands), memory.new_zeros(batch, config.memory)
    state = (memory.new_zeros(batch, config.attention_rnn),) * 2
    said = (memory.new_zeros(1, batch, config.decoder_rnn),) * 2
    weights = memory.new_zeros(batch, SYMBOLS)
    total = torch.zeros_like(weights)
    frames = []
    for step in range(STEPS):
        x = decoder.prepared(frame, drops.at(step))
        state = decoder.attention_rnn(torch.cat([x, context], 1), state)
        earlier = torch.stack([weights, total], 1)
        weights = decoder.attention.weights(state[0], keys, earlier, walk.allowed(step))
        total = total + weights
        context = torch.bmm(weights[:, None], memory)[:, 0]
        _, said = decoder.decoder_rnn(torch.cat([state[0], context], 1)[:, None], said)
        heads = torch.cat([said[0][0], context], 1)
        frame = decoder.project(heads)
        decoder.stop(heads)
        frames.append(frame)
    return torch.stack(frames, 1)


def written_out(decoder: Decoder, memory: Tensor, walk: TimedWalk, drops: Drops) -> Tensor:
    return decode(decoder, memory, walk, drops, max_steps=STEPS).frames


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("loop", [module_by_module, written_out])
def test_frames_per_second(
    benchmark: Callable[..., Tensor], loop: Callable[..., Tensor], batch: int
) -> None:
    torch.manual_seed(0)
    network = Tacotron2(TacotronConfig()).eval().requires_grad_(False)
    memory = torch.randn(batch, SYMBOLS, 512)
    lengths = torch.full((batch,), SYMBOLS)
    timing = torch.arange(STEPS) * SYMBOLS // STEPS
    walk = TimedWalk([timing] * batch, lengths, 1, torch.device("cpu"))
    seeds = torch.arange(batch)
    with torch.inference_mode():
        frames = benchmark(loop, network.decoder, memory, walk, Drops(seeds, seeds, 256, level=0))
    assert frames.shape == (batch, STEPS, 80)
