"""Encode speed and peak memory beside ``transformers`` used directly, on the same weights.

``nox -s bench``. Each measurement is a process of its own that does one thing: load, warm up on a
second of audio, encode. Time is processor time on one thread, so that a busy machine does not
decide; memory is the highest resident size less what there was before encoding.

Both sides give one layer, as those do who make units of it: `transformers` through
``output_hidden_states``, ours through `SpeechEncoder.features`. ``base`` is HuBERT base at layer 9;
``quarter`` is a quarter as wide with four layers, at layer 3, so that five minutes end soon.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.bench

SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "base": (9, {}),
    "quarter": (
        3,
        {
            "hidden_size": 192,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "intermediate_size": 768,
            "conv_dim": [128] * 7,
        },
    ),
}
"""The layer that is asked for, and how the network differs from HuBERT base."""
THEIRS = """
from transformers import HubertModel, Wav2Vec2FeatureExtractor
extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
model = HubertModel.from_pretrained(folder).eval()
def encode(audio):
    inputs = extractor(audio.samples[0], sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        return model(inputs, output_hidden_states=True).hidden_states[layer]
"""
OURS = """
from speechloom_hubert.encoder import SpeechEncoder
encoder = SpeechEncoder.from_checkpoint(folder, layers=layer)
def encode(audio):
    return encoder.features([audio], layer).values
"""
MEASURE = """
import json, os, resource, sys, time
import torch
from speechloom.testing.inputs import made_audio
torch.set_num_threads(1)
folder, layer, seconds, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
{side}
encode(made_audio(16000))
audio = made_audio(16000 * seconds)
page = resource.getpagesize()
before = int(open("/proc/self/statm").read().split()[1]) * page
times = []
for _ in range(rounds):
    start = time.process_time()
    frames = encode(audio).numel()
    times.append(time.process_time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(times=times, peak=peak - before, frames=frames)))
"""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """Write a checkpoint of one size with random weights."""

    def make(size: str) -> Path:
        import torch
        from transformers import HubertConfig, HubertModel

        torch.manual_seed(0)
        HubertModel(HubertConfig(**SIZES[size][1])).save_pretrained(tmp_path / size)
        return tmp_path / size

    return make


def measure(side: str, folder: Path, seconds: int, rounds: int) -> dict[str, Any]:
    code = MEASURE.format(side=side)
    layer = SIZES[folder.name][0]
    words = [sys.executable, "-c", code, str(folder), str(layer), str(seconds), str(rounds)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "seconds": statistics.median(result["times"])}


@pytest.mark.parametrize(
    ("size", "seconds", "rounds", "memory"),
    [("base", 10, 3, 1.1), ("quarter", 300, 1, 0.5), ("base", 300, 1, 0.5)],
)
def test_beside_transformers(
    benchmark: BenchmarkFixture,
    checkpoint: Callable[[str], Path],
    size: str,
    seconds: int,
    rounds: int,
    memory: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = checkpoint(size)
    theirs = measure(THEIRS, folder, seconds, rounds)
    run: Callable[..., Any] = measure
    ours = benchmark.pedantic(run, (OURS, folder, seconds, rounds), rounds=1)
    speed, peak = theirs["seconds"] / ours["seconds"], ours["peak"] / theirs["peak"]
    benchmark.extra_info.update(
        network=size,
        audio_seconds=seconds,
        our_seconds=ours["seconds"],
        their_seconds=theirs["seconds"],
        speed_ratio=speed,
        our_peak_mib=ours["peak"] / 2**20,
        their_peak_mib=theirs["peak"] / 2**20,
        peak_ratio=peak,
        machine=platform.processor() or platform.machine(),
    )
    with capsys.disabled():
        print(
            f"\n{size}, {seconds} s of audio: {ours['seconds']:.2f} s of processor time "
            f"beside {theirs['seconds']:.2f} s ({speed:.2f} times as fast); peak "
            f"{ours['peak'] / 2**20:.0f} MiB beside {theirs['peak'] / 2**20:.0f} MiB ({peak:.2f})"
        )
    assert speed > 1
    assert peak < memory


def test_memory_does_not_grow_with_length(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("quarter")
    minute, three = (measure(OURS, folder, seconds, 1)["peak"] for seconds in (60, 180))
    features = 120 * 50 * 192 * 4  # what is returned is longer, of course: a few copies of it
    assert three - minute < 4 * features + 100 * 2**20
