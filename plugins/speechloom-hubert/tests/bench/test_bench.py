"""Encode speed and peak memory beside ``transformers`` used directly, on the same weights.

``nox -s bench``. Each measurement is a process of its own that does one thing: load, warm up on a
second of audio, encode. Time is processor time on one thread, so that a busy machine does not
decide; memory is the highest resident size less what there was before encoding.

Both sides give layer 9 of a network of the size of HuBERT base, as its users do who make units of
it: `transformers` through ``output_hidden_states``, ours through `SpeechEncoder.features`.
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

LAYER = 9
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the size of HuBERT base with random weights."""
    import torch
    from transformers import HubertConfig, HubertModel

    path = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    HubertModel(HubertConfig()).save_pretrained(path)
    return path


def measure(side: str, folder: Path, seconds: int, rounds: int) -> dict[str, Any]:
    code = MEASURE.format(side=side)
    words = [sys.executable, "-c", code, str(folder), str(LAYER), str(seconds), str(rounds)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "seconds": statistics.median(result["times"])}


@pytest.mark.parametrize(("seconds", "rounds", "memory"), [(10, 3, 1.1), (300, 1, 0.5)])
def test_beside_transformers(
    benchmark: BenchmarkFixture,
    folder: Path,
    seconds: int,
    rounds: int,
    memory: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    theirs = measure(THEIRS, folder, seconds, rounds)
    run: Callable[..., Any] = measure
    ours = benchmark.pedantic(run, (OURS, folder, seconds, rounds), rounds=1)
    speed, peak = theirs["seconds"] / ours["seconds"], ours["peak"] / theirs["peak"]
    benchmark.extra_info.update(
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
            f"\n{seconds} s of audio, one thread: {ours['seconds']:.2f} s of processor time beside "
            f"{theirs['seconds']:.2f} s ({speed:.2f} times as fast); peak "
            f"{ours['peak'] / 2**20:.0f} MiB beside {theirs['peak'] / 2**20:.0f} MiB ({peak:.2f})"
        )
    assert speed > 1
    assert peak < memory


def test_memory_does_not_grow_with_length(folder: Path) -> None:
    minute, five = (measure(OURS, folder, seconds, 1)["peak"] for seconds in (60, 180))
    features = 120 * 50 * 768 * 4  # what is returned is longer, of course: three copies of it
    assert five - minute < 3 * features + 200 * 2**20
