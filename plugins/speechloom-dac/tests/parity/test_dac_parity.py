"""The same weights in descript-audio-codec and here: equal codes, equal audio.

The original is built with random weights, saved by itself as ``weights.pth``, and read by the
plugin. Channels are fewer than in the public networks, so that 31 s take seconds; one test has the
public sizes. Speech is a file of the folder that SPEECHLOOM_SPEECH names, else it is synthesised.
"""

from __future__ import annotations

import copy
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
from speechloom.values import Audio
from speechloom_dac import spec_for
from speechloom_dac.codec import DacCodec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    dac = pytest.importorskip("dac")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default")]

NETWORKS = {
    "16khz": {"sample_rate": 16_000, "encoder_rates": [2, 4, 5, 8], "n_codebooks": 12},
    "24khz": {"sample_rate": 24_000, "encoder_rates": [2, 4, 5, 8], "n_codebooks": 32},
    "44khz": {"sample_rate": 44_100, "encoder_rates": [2, 4, 8, 8], "n_codebooks": 9},
}
SEED = 7

NARROW = {"encoder_dim": 8, "latent_dim": 64, "decoder_dim": 96}
TOLERANCE = 1e-4
LENGTHS = ("1 sample", "1 frame", "1 frame + 1", "3.7 s", "31 s")


def gain(name: str) -> float:
    """Of a weight-normalised layer: residual units add little, each level takes a part away."""
    if "quantizer" in name:
        return 0.2 if "out_proj" in name else 1.0
    inside_units = name.count(".block.") == 2
    return 0.3 if inside_units else 1.5


def drawn(network: Any, seed: int) -> Any:
    """Random weights under which signals keep their size, so that all codes are used."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("alpha"):
                value.copy_(1 + 0.3 * torch.randn(value.shape, generator=draw))
            elif name.endswith("weight_g"):
                value.fill_(gain(name))
            elif name.endswith("bias"):
                value.copy_(0.02 * torch.randn(value.shape, generator=draw))
            else:
                value.copy_(torch.randn(value.shape, generator=draw))
    return network.eval()


def built(name: str, folder: Path, **sizes: int) -> tuple[Any, DacCodec]:
    """The original, and the plugin over the file that the original wrote."""
    arguments = NETWORKS[name]
    original = drawn(
        dac.DAC(**arguments, **sizes, decoder_rates=arguments["encoder_rates"][::-1]), SEED
    )
    path = folder / "weights.pth"
    original.save(str(path), package=False)
    return original, DacCodec.from_pretrained(spec_for(path, id=f"dac-{name}"))


def recording(kind: str, length: int, rate: int) -> Audio:
    if kind == "noise":
        draw = np.random.default_rng(length)
        return Audio(0.3 * draw.standard_normal((1, length)).astype(np.float32), rate)
    folder = os.environ.get("SPEECHLOOM_SPEECH")
    if folder is None:
        return made_audio(length, rate, number=3)
    first = sorted([*Path(folder).rglob("*.wav"), *Path(folder).rglob("*.flac")])[0]
    samples = load_audio(first).mono().resampled(rate).samples
    repeated = np.tile(samples, (1, math.ceil(length / samples.shape[1])))
    return Audio(repeated[:, :length], rate)


def samples_of(length: str, rate: int, hop: int) -> int:
    short = {"1 sample": 1, "1 frame": hop, "1 frame + 1": hop + 1}
    return short.get(length) or round(float(length.split()[0]) * rate)


@torch.inference_mode()
def gap(original: Any, prepared: torch.Tensor, theirs: torch.Tensor, ours: torch.Tensor) -> float:
    """How far apart two choices lie where codes first differ: squared distances of unit vectors.

    In float64, over the frames that the choice depends on; about 1e-6 is a tie in float32.
    """
    frame = int((ours != theirs).any(1)[0].nonzero()[0])
    level = int((ours != theirs)[0, :, frame].nonzero()[0])
    hop, low = original.hop_length, max(0, frame - 20)
    exact = copy.deepcopy(original).double()
    heard = prepared[..., low * hop : (frame + 21) * hop].double()
    left = exact.encoder(heard)[..., frame - low : frame - low + 1]
    for one, code in zip(exact.quantizer.quantizers[:level], theirs[0, :, frame], strict=False):
        left = left - one.out_proj(one.codebook.weight[code][None, :, None])
    last = exact.quantizer.quantizers[level]
    query = torch.nn.functional.normalize(last.in_proj(left)[..., 0])
    entries = torch.nn.functional.normalize(last.codebook.weight)
    first, second = (
        (query - entries[ids[0, level, frame]]).square().sum() for ids in (theirs, ours)
    )
    return float((first - second).abs())


@torch.inference_mode()
def compared(original: Any, codec: DacCodec, audio: Audio) -> tuple[int, int, float]:
    """Number of codes, of those that differ, and the largest difference of decoded samples."""
    samples = torch.from_numpy(audio.samples)[None]
    prepared = original.preprocess(samples, audio.sample_rate)
    _, theirs, *_ = original.encode(prepared)
    codes = codec.encode([audio])
    assert codes.ids.shape == theirs.shape
    played = original.decode(original.quantizer.from_codes(theirs)[0])[0].numpy()
    (ours,) = codec.decode(codes)
    worst = float(np.abs(ours.samples[:, : played.shape[1]] - played).max())
    if not torch.equal(codes.ids, theirs):
        print(f"codes differ where two lie {gap(original, prepared, theirs, codes.ids):.1e} apart")
    assert np.abs(played).std() > 0.01, "the original plays nothing, so this compares nothing"
    return theirs.numel(), int((codes.ids != theirs).sum()), worst


@pytest.mark.parametrize("name", NETWORKS)
def test_codes_and_audio_are_those_of_the_original(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, codec = built(name, tmp_path, **NARROW)
    rate, hop = codec.spec.facts.sample_rate, int(original.hop_length)
    rows = []
    for kind in ("speech", "noise"):
        for length in LENGTHS:
            audio = recording(kind, samples_of(length, rate, hop), rate)
            rows.append((kind, length, *compared(original, codec, audio)))
    with capsys.disabled():
        print(f"\ndac-{name}: audio, length, codes, codes that differ, largest difference")
        for kind, length, count, differing, worst in rows:
            print(f"  {kind:6}  {length:11}  {count:6}  {differing}  {worst:.1e}")
    assert all(differing == 0 for *_, differing, _ in rows)
    assert all(worst <= TOLERANCE for *_, worst in rows)
    used = codec.encode([recording("speech", 31 * rate, rate)]).ids
    assert min(len(level.unique()) for level in used[0]) > 20, "the codes hardly vary"


def test_the_public_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, codec = built("16khz", tmp_path, encoder_dim=64, latent_dim=1024, decoder_dim=1536)
    audio = recording("speech", samples_of("3.7 s", 16_000, 320), 16_000)
    count, differing, worst = compared(original, codec, audio)
    with capsys.disabled():
        print(f"\ndac-16khz, public size, 3.7 s: {differing} of {count} differ, {worst:.1e}")
    assert differing == 0
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", NETWORKS)
def test_fewer_levels_are_the_original_s_too(name: str, tmp_path: Path) -> None:
    original, _ = built(name, tmp_path, **NARROW)
    spec = spec_for(tmp_path / "weights.pth", id="few", num_codebooks=3)
    codec = DacCodec.from_pretrained(spec)
    rate = codec.spec.facts.sample_rate
    audio = recording("speech", rate, rate)
    with torch.inference_mode():
        prepared = original.preprocess(torch.from_numpy(audio.samples)[None], rate)
        theirs = original.encode(prepared, n_quantizers=3)[1]
    assert torch.equal(codec.encode([audio]).ids, theirs)


def test_embeddings_are_what_the_original_s_decoder_takes(tmp_path: Path) -> None:
    original, codec = built("16khz", tmp_path, **NARROW)
    codes = codec.encode([recording("speech", 16_000, 16_000)])
    with torch.inference_mode():
        theirs = original.quantizer.from_codes(codes.ids)[0]
    torch.testing.assert_close(codec.embed(codes), theirs, rtol=0, atol=1e-5)
