"""Text to samples beside transformers: the published size, the same random weights.

Each side is a process of its own, as what one leaves in the memory allocator decides how fast the
other is; they take turns, so that what else the machine does reaches all. Run with
``-m bench --benchmark-enable -s``.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

SYMBOLS, ROUNDS = 90, 4
SIDES = ("transformers float32", "transformers bfloat16", "ours float32", "ours bfloat16")


def model() -> Any:
    """The network of LJ Speech and MMS voices; nothing that it says is drawn, or clipped."""
    torch.manual_seed(0)
    config = transformers.VitsConfig(noise_scale=0.0, noise_scale_duration=0.0)
    made = transformers.VitsModel(config).eval()
    with torch.no_grad():
        made.duration_predictor.flows[0].translate.sub_(1.2)
        made.decoder.conv_post.weight.mul_(0.02)
    return made.requires_grad_(False)


def speaker(side: str) -> Any:
    """What makes samples [1, T] of symbols [1, N] on one side."""
    theirs = model()
    if side.startswith("transformers"):
        dtype = torch.bfloat16 if side.endswith("bfloat16") else torch.float32
        theirs = theirs.to(dtype)
        return lambda symbols: theirs(symbols).waveform.float()

    from speechloom.checkpoints import fold_weight_norm
    from speechloom_vits.config import VitsConfig
    from speechloom_vits.fast import FastDecoder
    from speechloom_vits.network import Vits

    config = VitsConfig.from_transformers(theirs.config.to_dict(), "config")
    network = Vits(config).eval().requires_grad_(False)
    network.load_state_dict(fold_weight_norm(theirs.state_dict()))
    decoder = FastDecoder(network.decoder, getattr(torch, side.removeprefix("ours ")))

    def speak(symbols: torch.Tensor) -> torch.Tensor:
        count = symbols.shape[1]
        frames = network.durations(symbols, torch.zeros(1, 2, count), None, length_scale=1.0)
        chosen = frames[0].long()
        noise = torch.zeros(1, config.latent_size, int(chosen.sum()))
        return decoder(network.latent_of_text(symbols, chosen, noise, None), None)[:, 0]

    return speak


def work(side: str, threads: int, asked: Connection) -> None:
    """Answer with samples and the seconds that they took, as often as asked."""
    torch.set_num_threads(threads)
    speak = speaker(side)
    symbols = torch.randint(0, 38, (1, SYMBOLS), generator=torch.Generator().manual_seed(0))
    while asked.recv():
        with torch.inference_mode():
            start = time.perf_counter()
            samples = speak(symbols)
            seconds = time.perf_counter() - start
        asked.send((samples.numpy(), seconds))


@pytest.mark.parametrize("threads", [1, 2])
def test_text_to_samples(benchmark: Any, threads: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    asked = {}
    for side in SIDES:
        asked[side], theirs = spawn.Pipe()
        spawn.Process(target=work, args=(side, threads, theirs), daemon=True).start()
    made, seconds = {}, {side: [] for side in SIDES}

    def turns() -> None:
        for side in SIDES:
            asked[side].send(True)
            made[side], spent = asked[side].recv()
            seconds[side].append(spent)

    benchmark.pedantic(turns, rounds=ROUNDS, warmup_rounds=1)
    for side in SIDES:
        asked[side].send(False)
    wanted = torch.from_numpy(made["transformers float32"])
    assert (torch.from_numpy(made["ours float32"]) - wanted).abs().max() < 1e-4
    noise = (torch.from_numpy(made["ours bfloat16"]) - wanted).square().mean()
    assert 10 * torch.log10(wanted.square().mean() / noise) > 30
    base = seconds["transformers float32"][1:]
    for side in SIDES:
        spent = seconds[side][1:]
        ratio = statistics.median(a / b for a, b in zip(base, spent, strict=True))
        benchmark.extra_info[side] = {"seconds": statistics.median(spent), "ratio": ratio}
        print(f"\n{threads} threads, {side}: {statistics.median(spent):.2f} s, {ratio:.2f} times")
