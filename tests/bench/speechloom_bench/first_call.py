"""A fresh process: a SpeechSEC generator of size S, its warm-up, its first call, later calls.

Prints the seconds of each as JSON. ``python -m speechloom_bench.first_call FRAMES``.
"""

from __future__ import annotations

import json
import sys
import time
from fractions import Fraction

import torch

from speechloom.decoding import DecodeConfig
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Canvas
from speechloom_speechsec.config import SpeechSECConfig
from speechloom_speechsec.generator import SpeechSECGenerator
from speechloom_speechsec.model import SpeechSEC

LEVELS, SIZE = 8, 1024


def build() -> SpeechSECGenerator:
    """A generator of size S with random weights."""
    sizes = SpeechSECConfig(
        content_vocab=512,
        codebooks=LEVELS,
        codebook_size=SIZE,
        dim=512,
        layers=6,
        heads=8,
        conv_expansion=2,
    )
    facts = GeneratorFacts(
        tasks=("synthesize",),
        content=("tokens:bench",),
        gives="codes:bench",
        frame_rate=50,
        codebooks=LEVELS,
        codebook_size=SIZE,
    )
    spec = ComponentSpec(
        id="bench", implementation="bench:Bench", summary="S", license="MIT", facts=facts
    )
    return SpeechSECGenerator(spec, SpeechSEC(sizes), decode=DecodeConfig(steps=(4,)))


def canvas(frames: int) -> Canvas:
    """A request of which nothing is known."""
    ids = torch.zeros(1, LEVELS, frames, dtype=torch.int64)
    zero = torch.zeros(1, dtype=torch.int64)
    return Canvas(
        "synthesize",
        ids=ids,
        known=torch.zeros_like(ids, dtype=torch.bool),
        lengths=zero + frames,
        gives="codes:bench",
        codebook_size=SIZE,
        frame_rate=Fraction(50),
        seeds=zero,
        items=zero,
        content=torch.arange(frames)[None] % 512,
        content_kind="tokens:bench",
    )


def main(frames: int) -> None:
    """Time the calls and print them."""
    generator, request = build(), canvas(frames)
    warm_up, times = generator.warm_up(frames), []
    for _ in range(3):
        begin = time.perf_counter()
        generator.fill(request)
        times.append(time.perf_counter() - begin)
    print(json.dumps({"warm_up": warm_up, "first": times[0], "later": times[1:]}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
