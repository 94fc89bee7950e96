"""Encodes or decodes once or more in a process of its own; prints seconds and memory as JSON.

``python worker.py FOLDER theirs|ours encode|decode SECONDS ROUNDS``. Seconds are those of the
processor on one thread, so that other programs on the machine do not count; memory is the peak of
the process above what it held with the weights loaded.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechloom.testing.inputs import made_audio


def _theirs(folder: Path) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]:
    from speechtokenizer import SpeechTokenizer

    model = SpeechTokenizer.load_from_checkpoint(
        str(folder / "config.json"), str(folder / "SpeechTokenizer.pt")
    ).eval()
    return (
        lambda samples: model.encode(samples[None, None]),
        lambda ids: model.decode(ids[:, None]),
    )


def _ours(folder: Path) -> tuple[Callable[[Tensor], Any], Callable[[Tensor], Any]]:
    from speechloom_speechtokenizer import SpeechTokenizerCodec, spec_for

    network = SpeechTokenizerCodec.from_pretrained(spec_for(folder, id="bench")).network
    return network.encode, network.decode


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    folder, who, what, seconds, rounds = sys.argv[1:]
    warnings.simplefilter("ignore")  # of the original's, which reach standard error otherwise
    torch.set_num_threads(1)
    encode, decode = {"theirs": _theirs, "ours": _ours}[who](Path(folder))
    samples = made_audio(round(float(seconds) * 16_000), 16_000, 1, 2).tensor()[0]
    frames = -(-len(samples) // 320)
    ids = torch.randint(0, 1024, (8, frames), generator=torch.Generator().manual_seed(0))
    call, given = (encode, samples) if what == "encode" else (decode, ids)
    with torch.inference_mode():
        call(given[..., : given.shape[-1] * 1 // round(float(seconds))])  # a second to warm up
        before = _peak_bytes()
        times = []
        for _ in range(int(rounds)):
            start = time.process_time()
            call(given)
            times.append(time.process_time() - start)
    print(json.dumps({"seconds": min(times), "bytes": _peak_bytes() - before}))


if __name__ == "__main__":
    main()
