"""Speed and memory beside the original package, on the same weights and input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("speechtokenizer", reason="compares with the original package")
pytestmark = pytest.mark.bench

WORKER = Path(__file__).with_name("worker.py")
CONFIG = {
    "sample_rate": 16_000,
    "strides": [8, 5, 4, 2],
    "n_residual_layers": 1,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "activation": "ELU",
    "lstm_layers": 2,
    "bidirectional": True,
    "semantic_dimension": 768,
    "n_q": 8,
    "codebook_size": 1024,
}
PUBLISHED = {**CONFIG, "n_filters": 64, "dimension": 1024}
NARROW = {**CONFIG, "n_filters": 16, "dimension": 256}
BOUND_BYTES = 700 * 2**20
"""What five minutes may take at the published size, beside the weights."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Path]:
    from speechtokenizer import SpeechTokenizer

    def make(config: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("weights")
        torch.manual_seed(0)
        model = SpeechTokenizer(config)
        for layer in model.quantizer.vq.layers:
            layer._codebook.embed.normal_(std=0.1)
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(model.state_dict(), folder / "SpeechTokenizer.pt")
        return folder

    return make


def _measured(folder: Path, who: str, what: str, seconds: float, rounds: int) -> dict[str, float]:
    command = [sys.executable, str(WORKER), str(folder), who, what, str(seconds), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


@pytest.mark.parametrize(
    ("title", "config", "seconds", "rounds"),
    [
        pytest.param("published size", PUBLISHED, 10, 2, id="published-10s"),
        pytest.param("a quarter of the channels", NARROW, 300, 1, id="quarter-300s"),
        pytest.param("published size", PUBLISHED, 300, 1, id="published-300s"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_as_fast_as_the_original_and_bounded(
    weights: Callable[[dict[str, Any]], Path],
    title: str,
    config: dict[str, Any],
    seconds: float,
    rounds: int,
) -> None:
    folder = weights(config)
    print(f"\n{title}, {seconds} s of audio, one thread, processor seconds, peak beside weights")
    print("| | original | ours | times faster | original MiB | ours MiB |")
    print("|---|---|---|---|---|---|")
    for what in ("encode", "decode"):
        theirs = _measured(folder, "theirs", what, seconds, rounds)
        ours = _measured(folder, "ours", what, seconds, rounds)
        ratio = theirs["seconds"] / ours["seconds"]
        print(
            f"| {what} | {theirs['seconds']:.2f} | {ours['seconds']:.2f} | {ratio:.2f} | "
            f"{theirs['bytes'] / 2**20:.0f} | {ours['bytes'] / 2**20:.0f} |",
            flush=True,
        )
        assert ratio > 0.95, "slower than the original"
        assert ours["bytes"] < BOUND_BYTES
