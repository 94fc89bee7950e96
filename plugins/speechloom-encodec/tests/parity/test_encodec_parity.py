"""The same weights in encodec and here: equal codes and scales, equal audio, at every bandwidth.

The original is built with random weights, saved as the ``.th`` that it publishes, and read by the
plugin. Channels are fewer than in the public networks, so that 31 s take seconds; one test has the
public sizes. Speech is a file of the folder that SPEECHLOOM_SPEECH names, else it is synthesised.
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechloom.container import load_audio
from speechloom.testing.inputs import made_audio
from speechloom.values import Audio, Codes
from speechloom_encodec import spec_for
from speechloom_encodec.codec import EncodecCodec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    encodec = pytest.importorskip("encodec")
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]

NETWORKS: dict[str, dict[str, Any]] = {
    "24khz": {
        "sample_rate": 24_000, "channels": 1, "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0],
    },
    "48khz": {
        "sample_rate": 48_000, "channels": 2, "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "normalize": True, "segment": 1.0,
    },
}  # fmt: skip
SEED = 5

TOLERANCE = 1e-4
LENGTHS = ("1 sample", "1 frame", "1 frame + 1", "3.7 s", "31 s")


def network(name: str, filters: int, dimension: int) -> Any:
    """The original's own modules, put together as it does for its two models."""
    sizes = NETWORKS[name]
    causal = name == "24khz"
    shape = {
        "channels": sizes["channels"], "n_filters": filters, "dimension": dimension,
        "causal": causal, "norm": "weight_norm" if causal else "time_group_norm",
    }  # fmt: skip
    levels = int(sizes["target_bandwidths"][-1] * 1000 / (sizes["sample_rate"] / 320 * 10))
    quantizer = ResidualVectorQuantizer(dimension=dimension, n_q=levels, bins=1024)
    return encodec.EncodecModel(
        SEANetEncoder(**shape), SEANetDecoder(**shape), quantizer, name=name, **sizes
    )


def drawn(model: Any, seed: int) -> Any:
    """Random weights under which signals keep their size, so that all codes are used."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            random = torch.randn(value.shape, generator=draw)
            if name.endswith("weight_g"):
                value.fill_(0.3 if ".block." in name else 1.5)
            elif name.endswith("embed"):
                level = int(name.split(".")[3])
                value.copy_(random * 0.7 * 0.9**level)
            elif "lstm.weight" in name:
                value.copy_(random / math.sqrt(value.shape[1]))
            elif name.endswith(("norm.weight", "inited")):
                value.fill_(1)
            elif name.endswith("bias") or "lstm.bias" in name:
                value.copy_(0.02 * random)
            elif value.ndim == 3:
                value.copy_(random / math.sqrt(value[0].numel()))
    return model.eval()


def built(name: str, folder: Path, filters: int = 4, dimension: int = 32) -> tuple[Any, Path]:
    """The original, and the file that its weights are in."""
    original = drawn(network(name, filters, dimension), SEED)
    path = folder / f"encodec_{name}.th"
    torch.save(original.state_dict(), path)
    return original, path


def recording(kind: str, length: int, rate: int, channels: int) -> Audio:
    if kind == "noise":
        draw = np.random.default_rng(length)
        return Audio(0.3 * draw.standard_normal((channels, length)).astype(np.float32), rate)
    folder = os.environ.get("SPEECHLOOM_SPEECH")
    if folder is None:
        return made_audio(length, rate, channels, number=3)
    first = sorted([*Path(folder).rglob("*.wav"), *Path(folder).rglob("*.flac")])[0]
    samples = load_audio(first).mono().resampled(rate).samples
    repeated = np.tile(samples, (1, math.ceil(length / samples.shape[1])))[:, :length]
    return Audio(repeated * np.linspace(1, 0.7, channels, dtype=np.float32)[:, None], rate)


def samples_of(length: str, rate: int) -> int:
    short = {"1 sample": 1, "1 frame": 320, "1 frame + 1": 321}
    return short.get(length) or round(float(length.split()[0]) * rate)


def as_sheet(frames: Any, total: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The original's list of chunks as ids [K, F] and scales [F]: 150 frames for each chunk."""
    if frames[0][1] is None:
        return frames[0][0][0], None
    ids = torch.zeros(frames[0][0].shape[1], total, dtype=torch.int64)
    scales = torch.zeros(total)
    for number, (codes, scale) in enumerate(frames):
        at = slice(150 * number, 150 * number + codes.shape[-1])
        ids[:, at], scales[at] = codes[0], scale.flatten()
    return ids, scales


@torch.inference_mode()
def compared(original: Any, codec: EncodecCodec, audio: Audio) -> tuple[int, int, float]:
    """Number of codes, of those that differ, and the largest difference of decoded samples."""
    frames = original.encode(torch.from_numpy(audio.samples)[None])
    codes = codec.encode([audio])
    theirs, scales = as_sheet(frames, codes.ids.shape[-1])
    if scales is not None:
        assert codes.scales is not None
        torch.testing.assert_close(codes.scales[0], scales, rtol=1e-6, atol=0)
    played = original.decode(frames)[0].numpy()[:, : audio.length]
    (ours,) = codec.decode(codes)
    worst = float(np.abs(ours.samples[:, : audio.length] - played).max())
    assert np.abs(played).max() > 1e-4, "the original plays nothing, so this compares nothing"
    return theirs.numel(), int((codes.ids[0] != theirs).sum()), worst


CASES = [(name, band) for name, sizes in NETWORKS.items() for band in sizes["target_bandwidths"]]


@pytest.mark.parametrize(("name", "bandwidth"), CASES)
def test_codes_and_audio_are_those_of_the_original(
    name: str, bandwidth: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, path = built(name, tmp_path)
    original.set_target_bandwidth(bandwidth)
    codec = EncodecCodec.from_pretrained(spec_for(path, id="encodec", bandwidth=bandwidth))
    rate, channels = original.sample_rate, original.channels
    rows = []
    for kind in ("speech", "noise"):
        for length in LENGTHS:
            audio = recording(kind, samples_of(length, rate), rate, channels)
            rows.append((kind, length, *compared(original, codec, audio)))
    with capsys.disabled():
        print(f"\nencodec-{name} at {bandwidth:g} kbit/s: audio, length, codes, codes that differ, "
              "largest difference")  # fmt: skip
        for kind, length, count, differing, worst in rows:
            print(f"  {kind:6}  {length:11}  {count:6}  {differing}  {worst:.1e}", flush=True)
    assert all(differing == 0 for *_, differing, _ in rows)
    assert all(worst <= TOLERANCE for *_, worst in rows)
    used = codec.encode([recording("speech", 4 * rate, rate, channels)]).ids
    assert min(len(level.unique()) for level in used[0]) > 20, "the codes hardly vary"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_public_size(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, path = built(name, tmp_path, filters=32, dimension=128)
    original.set_target_bandwidth(6.0)
    codec = EncodecCodec.from_pretrained(spec_for(path, id="encodec"))
    rate = original.sample_rate
    audio = recording("speech", samples_of("3.7 s", rate), rate, original.channels)
    count, differing, worst = compared(original, codec, audio)
    with capsys.disabled():
        print(f"\nencodec-{name}, public size, 3.7 s: {differing} of {count} differ, {worst:.1e}",
              flush=True)  # fmt: skip
    assert differing == 0
    assert worst <= TOLERANCE


def test_embeddings_are_what_the_original_s_decoder_takes(tmp_path: Path) -> None:
    original, path = built("24khz", tmp_path)
    codec = EncodecCodec.from_pretrained(spec_for(path, id="encodec"))
    codes: Codes = codec.encode([recording("speech", 24_000, 24_000, 1)])
    with torch.inference_mode():
        theirs = original.quantizer.decode(codes.ids.transpose(0, 1))
    torch.testing.assert_close(codec.embed(codes), theirs, rtol=0, atol=1e-6)
