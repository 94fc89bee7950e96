"""One side of a comparison in a process of its own, which codes when it is told to.

``python -m speechloom_bench.coder FAMILY theirs|ours FOLDER SECONDS``. It says what it is in a line
of JSON and then answers each line of standard input:

``encode PATH``        encode the recording, save the codes as ``.npy``
``decode CODES PATH``  play those codes, save the samples as ``.npy``

An answer has the seconds of processor time on one thread, which other programs hardly change, and
the peak of memory above what is held with the weights loaded.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from speechloom.testing.inputs import made_audio
from speechloom_bench import machine
from speechloom_bench.families import FAMILIES


def _kilobytes(name: str) -> int:
    """A field of this process's status: ``VmRSS`` (held now) or ``VmHWM`` (the most so far)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0])


def _timed(call: Callable[[], Tensor], held: int) -> tuple[Tensor, dict[str, float]]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.process_time()
    result = call()
    seconds = time.process_time() - start
    return result, {"seconds": seconds, "peak_mib": (_kilobytes("VmHWM") - held) / 1024}


def main() -> None:
    """Load, warm up on a second of audio, and answer until the input ends."""
    name, side, folder, seconds = sys.argv[1:]
    warnings.simplefilter("ignore")  # of the originals
    # Where memory is short, this process is to be ended, not another.
    Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(1)
    family = FAMILIES[name]
    encode, decode = getattr(family, side)(Path(folder))
    rate = family.sample_rate
    with torch.inference_mode():
        ids = encode(made_audio(rate, rate, family.channels))
        if decode is not None:
            decode(ids)
        version = importlib.metadata.version(family.package)
        print(json.dumps({"machine": machine.facts(), "version": version}), flush=True)
        audio = made_audio(round(float(seconds) * rate), rate, family.channels)
        held = _kilobytes("VmRSS")
        for line in sys.stdin:
            command, *paths = line.split()
            if command == "encode":
                result, answer = _timed(lambda: encode(audio), held)
            else:
                assert decode is not None
                codes = torch.from_numpy(np.load(paths[0]))
                player = decode
                result, answer = _timed(lambda: player(codes), held)  # noqa: B023 - called at once
            np.save(paths[-1], result.numpy())
            del result
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
