"""Encoding and decoding beside encodec: the same weights and input, in one run.

Each measurement is a process of its own, so that its peak memory is its own; times are seconds of
processor time, best of three for ten seconds, which other work on the machine hardly changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("encodec")

pytestmark = [pytest.mark.bench, pytest.mark.filterwarnings("default")]

MEASURE = """
import json, resource, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
which, name, path, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
import encodec
from speechloom.testing.inputs import made_audio
rate, channels = (24_000, 1) if name == "24khz" else (48_000, 2)
audio = made_audio(round(seconds * rate), rate, channels)
if which == "original":
    model = getattr(encodec.EncodecModel, f"encodec_model_{name}")(pretrained=False)
    model.load_state_dict(torch.load(path))
    model.set_target_bandwidth(6.0)
    model.eval()
    samples = torch.from_numpy(audio.samples)[None]
    encode, decode = lambda: model.encode(samples), model.decode
else:
    from speechloom_encodec import spec_for
    from speechloom_encodec.codec import EncodecCodec
    codec = EncodecCodec.from_pretrained(spec_for(path, id="bench"))
    encode, decode = lambda: codec.encode([audio]), codec.decode
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


def measured(which: str, name: str, path: Path, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-c", MEASURE, which, name, str(path), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def saved(folder: Path, name: str) -> Path:
    """Random weights of the public size; codebooks are drawn, since the original has zeros."""
    import encodec
    import torch

    network = getattr(encodec.EncodecModel, f"encodec_model_{name}")(pretrained=False)
    for layer in network.quantizer.vq.layers:
        layer._codebook.embed.normal_(generator=torch.Generator().manual_seed(0))
    path = folder / "encodec.th"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("seconds", [10, 300])
@pytest.mark.parametrize("name", ["24khz", "48khz"])
def test_as_fast_as_the_original_and_in_bounded_memory(
    name: str, seconds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path, name)
    theirs, ours = (measured(which, name, path, seconds) for which in ("original", "ours"))
    with capsys.disabled():
        print(f"\nencodec-{name}, {seconds} s")
        for what in ours:
            ratio = theirs[what] / ours[what]
            print(f"  {what:9}  original {theirs[what]:8.2f}  ours {ours[what]:8.2f}  {ratio:.2f}x")
    assert ours["encode"] <= 1.1 * theirs["encode"]
    assert ours["decode"] <= 1.1 * theirs["decode"]
    # The audio itself is held, a few times over: as float samples, in pieces and joined.
    assert ours["megabytes"] <= max(theirs["megabytes"], 100) + 4 * seconds * 0.4
