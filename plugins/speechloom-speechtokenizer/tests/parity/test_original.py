"""The same weights give the same codes and the same audio as the original package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechloom import Audio, Codes
from speechloom.testing.inputs import made_audio

original = pytest.importorskip("speechtokenizer", reason="compares with the original package")

from speechloom_speechtokenizer import SpeechTokenizerCodec  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
from original import NARROW, PUBLISHED, pair  # noqa: E402  # beside this file

pytestmark = [
    pytest.mark.parity,
    # The original uses torch's former weight normalisation.
    pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning"),
]
RATE = 16_000
LENGTHS = {"1 sample": 1, "1 frame": 320, "1 frame + 1": 321, "3.7 s": 59_200, "31 s": 496_000}
SHORT = [name for name in LENGTHS if name != "31 s"]
CASES = [
    *((NARROW, name) for name in LENGTHS),
    *((PUBLISHED, name) for name in SHORT),
    *(({**NARROW, "activation": "Snake"}, name) for name in SHORT),
    *(({**NARROW, "bidirectional": False, "strides": [5, 4, 2]}, name) for name in SHORT),
    *(({**NARROW, "lstm_layers": 0, "bidirectional": False}, name) for name in SHORT),
]


def _recording(source: str, length: int) -> Audio:
    if source == "speech-like":
        return made_audio(length, RATE, 1, 2)
    noise = np.random.default_rng(length).standard_normal(length, np.float32)
    return Audio(0.2 * noise, RATE)


def _title(config: dict[str, object]) -> str:
    return (
        f"{config['n_filters']} filters, {config['activation']}, {config['lstm_layers']} LSTM, "
        f"bidirectional {config['bidirectional']}"
    )


@torch.inference_mode()
def _compare(
    theirs: Any, ours: SpeechTokenizerCodec, source: str, length: int
) -> tuple[int, int, int, float]:
    """Codes, different ids among them, codes that differ, and the largest difference of samples."""
    recording = _recording(source, length)
    expected = theirs.encode(recording.tensor()[None])
    codes = ours.encode([recording])
    played = theirs.decode(expected)[0, 0].numpy()
    theirs_in_ours = Codes(
        expected.transpose(0, 1).contiguous(), codes.codec, codes.codebook_size, codes.frame_rate
    )
    (audio,) = ours.decode(theirs_in_ours)
    differ = int((codes.ids != theirs_in_ours.ids).sum())
    error = float(np.abs(audio.samples[0] - played).max())
    return codes.ids.numel(), len(codes.ids.unique()), differ, error


def test_codes_and_audio_are_those_of_the_original(tmp_path: Path) -> None:
    rows, found = [], {}
    print("\n| network | length | input | codes | kinds of id | codes that differ | audio |")
    print("|---|---|---|---|---|---|---|")
    for config, name in CASES:
        title = _title(config)
        if title not in found:
            folder = tmp_path / str(len(rows))
            folder.mkdir()
            found = {title: pair(config, folder)}  # one at a time: the largest has 400 MB
        theirs, ours = found[title]
        for source in ("speech-like", "noise"):
            count, kinds, differ, error = _compare(theirs, ours, source, LENGTHS[name])
            row = (title, name, source, count, kinds, differ, f"{error:.1e}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            rows.append((differ, error))
    assert all(differ == 0 for differ, _ in rows)
    assert max(error for _, error in rows) < 1e-4
