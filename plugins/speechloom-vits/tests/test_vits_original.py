"""Checkpoints of the original code: every name finds its place, and its voices are converted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import speechloom_vits
from speechloom.errors import RoutingError, UsageError, WeightsError
from speechloom.pipeline import Pipeline
from speechloom.registry import Registry
from speechloom.testing.inputs import made_audio
from speechloom_vits.config import VitsConfig
from speechloom_vits.content import POSTERIOR_SEED, VitsContent
from speechloom_vits.generator import VitsGenerator
from speechloom_vits.network import Vits
from speechloom_vits.speakers import SpeakerTable
from speechloom_vits.spectrum import linear_spectrum
from speechloom_vits.weights import read_original

MODEL = {
    "inter_channels": 8,
    "hidden_channels": 8,
    "filter_channels": 12,
    "n_heads": 2,
    "n_layers": 2,
    "kernel_size": 3,
    "resblock": "2",
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 2]],
    "upsample_rates": [4, 2],
    "upsample_initial_channel": 8,
    "upsample_kernel_sizes": [8, 4],
    "gin_channels": 6,
}
DATA = {
    "sampling_rate": 8000,
    "filter_length": 32,
    "n_speakers": 3,
    "text_cleaners": ["english_cleaners2"],
    "add_blank": True,
}


def separable(stack: Any, name: str) -> Iterator[tuple[str, Any]]:
    for layer in range(len(stack.convs_dilated)):
        yield f"{name}.convs_sep.{layer}", stack.convs_dilated[layer]
        yield f"{name}.convs_1x1.{layer}", stack.convs_pointwise[layer]
        yield f"{name}.norms_1.{layer}", stack.norms_1[layer]
        yield f"{name}.norms_2.{layer}", stack.norms_2[layer]


def gated(stack: Any, name: str) -> Iterator[tuple[str, Any]]:
    yield f"{name}.cond_layer*", stack.cond_layer
    for layer in range(len(stack.in_layers)):
        yield f"{name}.in_layers.{layer}*", stack.in_layers[layer]
        yield f"{name}.res_skip_layers.{layer}*", stack.res_skip_layers[layer]


def spline_flows(flows: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Affine, then a spline and a flip in turns."""
    yield f"{name}.0.m", flows[0].translate
    yield f"{name}.0.logs", flows[0].log_scale
    for number, flow in enumerate(list(flows)[1:]):
        place = f"{name}.{2 * number + 1}"
        yield f"{place}.pre", flow.conv_pre
        yield f"{place}.proj", flow.conv_proj
        yield from separable(flow.conv_dds, f"{place}.convs")


def original_layers(net: Any) -> Iterator[tuple[str, Any]]:
    """What the original calls the layers of a network; ``*`` marks normalised weights."""
    yield "enc_p.emb", net.text_encoder.embed_tokens
    yield "enc_p.proj", net.text_encoder.project
    for number, layer in enumerate(net.text_encoder.encoder.layers):
        base = "enc_p.encoder"
        attention = layer.attention
        for short in "qkv":
            yield f"{base}.attn_layers.{number}.conv_{short}", getattr(attention, f"{short}_proj")
        yield f"{base}.attn_layers.{number}.conv_o", attention.out_proj
        yield f"{base}.attn_layers.{number}.emb_rel_k", attention.emb_rel_k
        yield f"{base}.attn_layers.{number}.emb_rel_v", attention.emb_rel_v
        yield f"{base}.ffn_layers.{number}.conv_1", layer.feed_forward.conv_1
        yield f"{base}.ffn_layers.{number}.conv_2", layer.feed_forward.conv_2
        yield f"{base}.norm_layers_1.{number}", layer.layer_norm
        yield f"{base}.norm_layers_2.{number}", layer.final_layer_norm
    yield "enc_q.pre", net.posterior_encoder.conv_pre
    yield "enc_q.proj", net.posterior_encoder.conv_proj
    yield from gated(net.posterior_encoder.wavenet, "enc_q.enc")
    for number, flow in enumerate(net.flow.flows):
        yield f"flow.flows.{2 * number}.pre", flow.conv_pre
        yield f"flow.flows.{2 * number}.post", flow.conv_post
        yield from gated(flow.wavenet, f"flow.flows.{2 * number}.enc")
    yield "dec.conv_pre", net.decoder.conv_pre
    yield "dec.conv_post", net.decoder.conv_post
    yield "dec.cond", net.decoder.cond
    for number, layer in enumerate(net.decoder.upsampler):
        yield f"dec.ups.{number}*", layer
    for number, block in enumerate(net.decoder.resblocks):
        for inner, layer in enumerate(block.convs1):
            yield f"dec.resblocks.{number}.convs.{inner}*", layer
    yield "emb_g", net.embed_speaker
    yield from durations(net.duration_predictor)


def durations(predictor: Any) -> Iterator[tuple[str, Any]]:
    yield "dp.cond", predictor.cond
    if hasattr(predictor, "conv_1"):
        for name in ("conv_1", "norm_1", "conv_2", "norm_2", "proj"):
            yield f"dp.{name}", getattr(predictor, name)
        return
    for theirs, ours in (("", ""), ("post_", "post_")):
        yield f"dp.{theirs}pre", getattr(predictor, f"{ours}conv_pre")
        yield f"dp.{theirs}proj", getattr(predictor, f"{ours}conv_proj")
        yield from separable(getattr(predictor, f"{ours}conv_dds"), f"dp.{theirs}convs")
        yield from spline_flows(getattr(predictor, f"{ours}flows"), f"dp.{theirs}flows")


def as_original(net: Vits) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, layer in original_layers(net):
        if isinstance(layer, nn.Parameter):
            state[name] = layer.detach()
            continue
        plain = name.removesuffix("*")
        kind = ("gamma", "beta") if isinstance(layer, nn.LayerNorm) else ("weight", "bias")
        weight = layer.weight.detach()
        if name.endswith("*"):
            # A length that is not that of the direction, so that folding shows.
            norm = weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
            state[f"{plain}.weight_g"], state[f"{plain}.weight_v"] = norm, 3 * weight
        elif isinstance(layer, nn.Linear):
            state[f"{plain}.weight"] = weight[..., None]
        else:
            state[f"{plain}.{kind[0]}"] = weight
        if getattr(layer, "bias", None) is not None:
            state[f"{plain}.{kind[1]}"] = layer.bias.detach()
    return state


def written(folder: Path, *, stochastic: bool = True, symbols: int = 178) -> tuple[Path, Vits]:
    content = {"data": DATA, "model": {**MODEL, "use_sdp": stochastic}}
    (folder / "config.json").write_text(json.dumps(content))
    config = VitsConfig.from_original(content, symbols, folder)
    torch.manual_seed(0)
    net = Vits(config)
    path = folder / "G_100.pth"
    torch.save({"model": as_original(net), "iteration": 1, "learning_rate": 0.1}, path)
    return path, net


@pytest.mark.parametrize("stochastic", [True, False])
def test_every_tensor_comes_back(stochastic: bool, tmp_path: Path) -> None:
    path, net = written(tmp_path, stochastic=stochastic)
    config, tensors = read_original(path)
    assert config == net.config
    own = net.state_dict()
    assert set(tensors) == set(own)
    for name, value in own.items():
        assert torch.allclose(tensors[name], value, atol=1e-6), name


def test_it_gets_specs_and_speaks(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    specs = speechloom_vits.specs_for(path, id="old")
    assert [spec.kind for spec in specs] == ["generator", "speaker_encoder", "frontend"]
    assert specs[1].facts.named_voices == ("0", "1", "2")  # type: ignore[union-attr]
    assert specs[2].options["phonemize"] is True
    assert VitsGenerator.from_pretrained(specs[0]).weights.keys() == {"G_100.pth"}


def test_other_symbols_must_be_named(tmp_path: Path) -> None:
    path, _ = written(tmp_path, symbols=4)
    with pytest.raises(WeightsError, match="symbols="):
        speechloom_vits.specs_for(path, id="old")
    specs = speechloom_vits.specs_for(path, id="old", symbols="_ab ")
    assert specs[0].options["phones"] == ["_", "a", "b", "\N{OPEN BOX}"]
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no checkpoint of the original VITS"):
        speechloom_vits.specs_for(path, id="old")


def registered(path: Path, *sources: str, precision: str = "float32") -> Registry:
    specs = speechloom_vits.specs_for(path, id="old", sources=sources, precision=precision)
    generator, table, *readers = specs[:-1]
    registry = Registry()
    registry.register(VitsGenerator.from_pretrained(generator))
    registry.register(SpeakerTable.from_pretrained(table))
    for reader in readers:
        registry.register(VitsContent.from_pretrained(reader))
    return registry


def test_a_recording_of_one_speaker_becomes_another(tmp_path: Path) -> None:
    path, net = written(tmp_path)
    pipeline = Pipeline(registry=registered(path, "1"), parts={"generator": "old"})
    recording = made_audio(4_000, 8_000)
    converted = pipeline.convert(recording, voice="2", seed=0)

    # As the original does it: out of the posterior with one speaker, back in with the other.
    draw = np.random.default_rng(POSTERIOR_SEED).standard_normal((500, 8), np.float32)
    one, two = (net.embed_speaker.weight[number][None, :, None] for number in (1, 2))
    with torch.no_grad():
        spectrum = linear_spectrum(recording.tensor(), 32, 8)
        mean, log_deviation = net.posterior_encoder(spectrum, torch.ones(1, 1, 500), one)
        latent = mean + torch.from_numpy(draw.T[None].copy()) * log_deviation.exp()
        said = net.flow(latent, torch.ones(1, 1, 500), one)
        moved = net.flow(said, torch.ones(1, 1, 500), two, inverse=True)
        wanted = net.decoder(moved, two)[0].numpy()
    assert np.abs(wanted).max() > 0.01
    inner = slice(400, -400)  # the ends are faded
    assert np.abs(converted.audio.samples - wanted)[:, inner].max() < 1e-5
    other = pipeline.convert(recording, voice="0", seed=0)
    assert np.abs(other.audio.samples - wanted).max() > 1e-3


def test_the_speaker_of_a_recording_must_be_known(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    with pytest.raises(UsageError, match="no speaker 7.*speakers are 0, 1, 2"):
        speechloom_vits.specs_for(path, id="old", sources=("7",))
    pipeline = Pipeline(registry=registered(path), parts={"generator": "old"})
    with pytest.raises(RoutingError, match="features:old-content"):
        pipeline.convert(made_audio(4_000, 8_000), voice="2")
    several = Pipeline(
        registry=registered(path, "0", "1"), parts={"generator": "old", "tokenizer": "old-from-1"}
    )
    only = Pipeline(registry=registered(path, "1"), parts={"generator": "old"})
    pair = [one.convert(made_audio(4_000, 8_000), voice="2", seed=0) for one in (several, only)]
    assert np.array_equal(pair[0].audio.samples, pair[1].audio.samples)


def test_a_checkpoint_without_a_posterior_encoder_reads_no_recordings(tmp_path: Path) -> None:
    path, net = written(tmp_path)
    kept = {name: value for name, value in as_original(net).items() if "enc_q" not in name}
    torch.save({"model": kept}, path)
    reader = speechloom_vits.specs_for(path, id="old", sources=("1",))[2]
    with pytest.raises(WeightsError, match="no posterior encoder"):
        VitsContent.from_pretrained(reader)


def test_a_decoder_in_bfloat16_says_the_same_with_a_little_noise(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    said = []
    for precision in ("float32", "bfloat16"):
        registry = registered(path, "1", precision=precision)
        pipeline = Pipeline(registry=registry, parts={"generator": "old"})
        said.append(pipeline.convert(made_audio(4_000, 8_000), voice="2", seed=0).audio.samples)
    noise = np.square(said[1] - said[0]).mean()
    assert 0 < noise < 1e-3 * np.square(said[0]).mean()
    (wrong, *_) = speechloom_vits.specs_for(path, id="old", precision="float8")
    with pytest.raises(UsageError, match="float8"):
        VitsGenerator.from_pretrained(wrong)
