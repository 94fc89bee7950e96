"""Frames per second of the speaking loop, and of the same network run module by module.

Random weights, 100 symbols, 200 steps; the published sizes, at which both wait for the weights to
come from memory, and those of the recipe, at which the calls count.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import Drops, TimedWalk, decode
from speechloom_sv2tts.tacotron2 import Decoder, Tacotron2

pytestmark = pytest.mark.bench

SYMBOLS, STEPS = 100, 200
PUBLISHED = TacotronConfig()
RECIPE = TacotronConfig(
    voice=256, reduction=3, embedding=192, encoder=192, prenet=96, attention_rnn=256,
    decoder_rnn=256, attention=96, location_filters=16, location_kernel=21, postnet=128,
)  # fmt: skip


def module_by_module(decoder: Decoder, memory: Tensor, walk: TimedWalk, drops: Drops) -> Tensor:
    """The loop as the papers describe it, over the modules."""
    batch, config = len(memory), decoder.config
    # A cell: the LSTM of whole sequences lays out its weights anew for each call.
    speech = nn.LSTMCell(config.attention_rnn + config.memory, config.decoder_rnn)
    state_dict = decoder.decoder_rnn.state_dict()
    speech.load_state_dict({name.removesuffix("_l0"): w for name, w in state_dict.items()})
    keys = decoder.attention.memory(memory)
    frame, context = memory.new_zeros(batch, config.bands), memory.new_zeros(batch, config.memory)
    state = (memory.new_zeros(batch, config.attention_rnn),) * 2
    said = (memory.new_zeros(batch, config.decoder_rnn),) * 2
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
        said = speech(torch.cat([state[0], context], 1), said)
        heads = torch.cat([said[0], context], 1)
        spoken = decoder.project(heads)
        decoder.stop(heads)
        frame = spoken[:, -config.bands :]
        frames.append(spoken)
    return torch.stack(frames, 1)


def written_out(decoder: Decoder, memory: Tensor, walk: TimedWalk, drops: Drops) -> Tensor:
    return decode(decoder, memory, walk, drops, max_steps=STEPS).frames


@pytest.mark.parametrize("config", [PUBLISHED, RECIPE], ids=["published", "recipe"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("loop", [module_by_module, written_out])
def test_frames_per_second(
    benchmark: Callable[..., Tensor],
    loop: Callable[..., Tensor],
    batch: int,
    config: TacotronConfig,
) -> None:
    torch.manual_seed(0)
    network = Tacotron2(config).eval().requires_grad_(False)
    memory = torch.randn(batch, SYMBOLS, config.memory)
    lengths = torch.full((batch,), SYMBOLS)
    frames = STEPS * config.reduction
    timing = torch.arange(frames) * SYMBOLS // frames
    seeds = torch.arange(batch)

    def run() -> Tensor:
        walk = TimedWalk([timing] * batch, lengths, config.reduction, torch.device("cpu"))
        return loop(network.decoder, memory, walk, Drops(seeds, seeds, config.prenet, level=0))

    with torch.inference_mode():
        said = benchmark(run)
    assert said.numel() == batch * frames * config.bands
