"""Speaking beside transformers, the same weights, in turns. Run with ``-m bench``."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from speechloom_vits.config import VitsConfig
from speechloom_vits.fast import FastDecoder
from speechloom_vits.network import Vits

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.bench

FRAMES = 300
ROUNDS = 5


def test_decoder_of_the_published_size(record_property: Any) -> None:
    """HiFi-GAN of the LJ Speech and MMS voices: where 95 % of the time goes."""
    theirs = transformers.VitsModel(transformers.VitsConfig()).eval()
    config = VitsConfig.from_transformers(theirs.config.to_dict(), "config")
    ours = Vits(config).eval().requires_grad_(False)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    ours.decoder.load_state_dict(theirs.decoder.state_dict())
    fast = FastDecoder(ours.decoder)
    latent = torch.randn(1, config.latent_size, FRAMES)
    with torch.inference_mode():
        wanted = theirs.decoder(latent)
        assert (fast(latent, None) - wanted).abs().max() < 1e-4
        best = {"ours": float("inf"), "transformers": float("inf")}
        for _ in range(ROUNDS):
            for name, call in (
                ("ours", lambda: fast(latent, None)),
                ("transformers", lambda: theirs.decoder(latent)),
            ):
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
    ratio = best["transformers"] / best["ours"]
    record_property("seconds", best)
    print(f"\n{best} ratio {ratio:.2f}, {torch.get_num_threads()} threads")
    assert ratio > 1.1
