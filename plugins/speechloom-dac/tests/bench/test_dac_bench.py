"""Encoding and decoding beside descript-audio-codec: the same weights and input, in one run.

Each measurement is a process of its own, so that its peak memory is its own; times are seconds of
processor time, best of three, which other work on the machine hardly changes. Ten seconds are coded
by the public sizes, five minutes by narrow networks (SPEECHLOOM_BENCH_FULL=1: by the public ones,
for which the original needs tens of gigabytes).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dac")

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

PUBLIC = {"encoder_dim": 64, "latent_dim": 1024, "decoder_dim": 1536}
NARROW = {"encoder_dim": 8, "latent_dim": 64, "decoder_dim": 96}

MEASURE = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
which, path, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
from speechloom.testing.inputs import made_audio
audio = made_audio(round(seconds * 16_000), 16_000)
if which == "original":
    import dac
    model = dac.DAC.load(path).eval()
    samples = torch.from_numpy(audio.samples)[None]
    encode = lambda: model.encode(model.preprocess(samples, 16_000))[1]
    decode = lambda codes: model.decode(model.quantizer.from_codes(codes)[0])
else:
    from speechloom_dac import spec_for
    from speechloom_dac.codec import DacCodec
    codec = DacCodec.from_pretrained(spec_for(path, id="bench"))
    encode = lambda: codec.encode([audio])
    decode = codec.decode
def best(call):
    times = []
    for _ in range(3 if seconds < 60 else 1):
        start = time.process_time()
        result = call()
        times.append(time.process_time() - start)
    return min(times), result
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with torch.inference_mode():
    encoding, codes = best(encode)
    decoding, _ = best(lambda: decode(codes))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"encode": encoding, "decode": decoding, "megabytes": (peak - before) / 1024}))
"""


def measured(which: str, path: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, which, str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def saved(folder: Path, sizes: dict[str, int]) -> Path:
    import dac

    rates = [2, 4, 5, 8]
    network = dac.DAC(
        **sizes, sample_rate=16_000, encoder_rates=rates, decoder_rates=rates[::-1],
        n_codebooks=12,
    )  # fmt: skip
    path = folder / "weights.pth"
    network.save(str(path), package=False)
    return path


@pytest.mark.parametrize(("seconds", "sizes"), [(10, PUBLIC), (300, NARROW)])
def test_as_fast_as_the_original_and_in_bounded_memory(
    seconds: int, sizes: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = os.environ.get("SPEECHLOOM_BENCH_FULL") == "1"
    path = saved(tmp_path, PUBLIC if full else sizes)
    theirs, ours = (measured(which, path, seconds) for which in ("original", "ours"))
    with capsys.disabled():
        print(f"\ndac-16khz, {seconds} s, {'public size' if full else sizes}")
        for name in ours:
            ratio = theirs[name] / ours[name]
            print(f"  {name:9}  original {theirs[name]:8.2f}  ours {ours[name]:8.2f}  {ratio:.2f}x")
    assert ours["encode"] <= 1.1 * theirs["encode"]
    assert ours["decode"] <= 1.1 * theirs["decode"]
    assert ours["megabytes"] <= max(theirs["megabytes"], 100)
