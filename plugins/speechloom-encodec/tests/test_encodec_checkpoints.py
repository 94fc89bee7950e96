"""Checkpoints of both layouts, and refusals of everything else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from speechloom.checkpoints import sha256_of
from speechloom.errors import UsageError, WeightsError
from speechloom.registry import Registry
from speechloom.spec import ComponentSpec
from speechloom.testing.inputs import made_audio
from speechloom_encodec import spec_for
from speechloom_encodec._spec import ENCODEC_24KHZ, ENCODEC_48KHZ
from speechloom_encodec.codec import EncodecCodec

SPECS = (ENCODEC_24KHZ, ENCODEC_48KHZ)
both = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)


def network_config(spec: ComponentSpec, **changes: Any) -> dict[str, Any]:
    tiny = {"model_type": "encodec", "num_filters": 4, "hidden_size": 8}
    return spec.options["network"] | tiny | changes


def hub_layout(folder: Path, spec: ComponentSpec, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(network_config(spec, **changes)))
    save_file(EncodecCodec.from_random(spec)._model.state_dict(), folder / "model.safetensors")
    return folder


def original_name(name: str) -> str:
    """The other way round than the plugin: from the names of transformers to the original's."""
    if name.startswith("quantizer"):
        return re.sub(r"layers\.(\d+)\.codebook", r"vq.layers.\1._codebook", name)
    half, _, rest = name.partition(".layers.")
    transposed = half == "decoder" and re.match(r"(3|6|9|12)\.", rest)
    kind = "convtr" if transposed else "conv"
    rest = re.sub(r"(?<=\.)conv\.", f"{kind}.{kind}.", rest)
    rest = re.sub(r"(?<=\.)norm\.", f"{kind}.norm.", rest)
    return f"{half}.model.{rest}"


def original(folder: Path, spec: ComponentSpec) -> Path:
    """A ``.th`` as the original publishes it: the mono network with weight normalisation."""
    state = {}
    for name, value in EncodecCodec.from_random(spec)._model.state_dict().items():
        theirs = original_name(name)
        if spec is ENCODEC_24KHZ and name.endswith("conv.weight"):
            state[f"{theirs}_g"] = value.norm(dim=(1, 2), keepdim=True)
            state[f"{theirs}_v"] = value * 3
        else:
            state[theirs] = value
    path = folder / "encodec.th"
    torch.save(state, path)
    return path


# Loading ----------------------------------------------------------------------------------


@both
def test_both_layouts_give_the_codes_of_the_network(tmp_path: Path, spec: ComponentSpec) -> None:
    audio = [made_audio(5_000, spec.facts.sample_rate, spec.facts.channels)]
    expected = EncodecCodec.from_random(spec).encode(audio).ids
    for checkpoint in (original(tmp_path, spec), hub_layout(tmp_path / "hub", spec)):
        codec = EncodecCodec.from_pretrained(spec_for(checkpoint, id="mine", codes=spec.id))
        assert torch.equal(codec.encode(audio).ids, expected)
        assert codec.spec.facts == spec.facts
        (digest,) = codec.weights.values()
        assert len(digest) == 64


def test_the_two_layouts_have_other_names() -> None:
    names = list(EncodecCodec.from_random(ENCODEC_48KHZ)._model.state_dict())
    theirs = {original_name(name) for name in names}
    assert "decoder.model.3.convtr.convtr.weight" in theirs
    assert "decoder.model.3.convtr.norm.bias" in theirs
    assert "encoder.model.1.block.3.conv.conv.weight" in theirs
    assert "quantizer.vq.layers.0._codebook.embed" in theirs
    assert "encoder.model.13.lstm.weight_ih_l0" in theirs


@both
def test_facts_follow_the_bandwidth(tmp_path: Path, spec: ComponentSpec) -> None:
    checkpoint = hub_layout(tmp_path / "hub", spec)
    counts = [
        spec_for(checkpoint, id="mine", bandwidth=one).facts.codebooks
        for one in spec.options["network"]["target_bandwidths"]
    ]
    assert counts == ([2, 4, 8, 16, 32] if spec is ENCODEC_24KHZ else [2, 4, 8, 16])
    assert spec_for(checkpoint, id="mine", num_codebooks=3).facts.codebooks == 3


def test_bandwidth_or_codebooks_but_not_both(tmp_path: Path) -> None:
    checkpoint = hub_layout(tmp_path / "hub", ENCODEC_24KHZ)
    with pytest.raises(UsageError, match="give one of them"):
        spec_for(checkpoint, id="mine", bandwidth=6.0, num_codebooks=8)
    with pytest.raises(UsageError, match="num_codebooks must lie in 1 to 32, but is 33"):
        spec_for(checkpoint, id="mine", num_codebooks=33)
    with pytest.raises(UsageError, match="bandwidth must be one of"):
        spec_for(checkpoint, id="mine", bandwidth=7.0)


def test_a_checkpoint_of_one_s_own_is_registered_like_any_component(tmp_path: Path) -> None:
    registry = Registry(entry_points=(), environ={})
    spec = spec_for(hub_layout(tmp_path / "hub", ENCODEC_24KHZ), id="mine", bandwidth=1.5)
    registry.register(EncodecCodec, spec=spec)
    assert registry.load("codec", "mine").encode([made_audio(99)]).kind == "codes:mine"


def test_pinned_hashes_are_listed_and_checked(tmp_path: Path) -> None:
    path = original(tmp_path, ENCODEC_24KHZ)
    good = {"encodec.th": sha256_of(path)}
    spec = spec_for(path, id="mine", sha256=good)
    assert EncodecCodec.from_pretrained(spec).weights == good
    (listed,) = EncodecCodec.weight_files(spec).values()
    assert (listed.path, listed.sha256) == (path, good["encodec.th"])
    with pytest.raises(WeightsError, match="should have SHA-256 00"):
        spec_for(path, id="mine", sha256={"encodec.th": "00"})


def test_the_public_checkpoint_without_a_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: list[str]
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"facebook/encodec_24khz is not in the cache.*local"):
        EncodecCodec.from_pretrained(ENCODEC_24KHZ)


# Refusals ---------------------------------------------------------------------------------


def announced(spec: ComponentSpec, checkpoint: Path) -> ComponentSpec:
    return spec.model_copy(update={"options": spec.options | {"checkpoint": str(checkpoint)}})


def test_another_family_is_refused(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "hub", ENCODEC_24KHZ, model_type="dac")
    with pytest.raises(WeightsError, match="is a checkpoint of 'dac', not of 'encodec'"):
        spec_for(folder, id="mine")


def test_another_family_of_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"model.layers.0.weight": torch.zeros(3)}, tmp_path / "other.th")
    with pytest.raises(WeightsError, match="is no EnCodec checkpoint: it has no encoder.layers"):
        spec_for(tmp_path / "other.th", id="mine")
    torch.save({"state_dict": {}, "metadata": {}}, tmp_path / "dac.pth")
    with pytest.raises(WeightsError, match="should hold tensors by name, but holds state_dict"):
        spec_for(tmp_path / "dac.pth", id="mine")


def test_another_rate_is_refused(tmp_path: Path) -> None:
    stereo = original(tmp_path, ENCODEC_48KHZ)
    with pytest.raises(WeightsError, match="24khz promises sample rate 24000, but .* has 48000"):
        EncodecCodec.from_pretrained(announced(ENCODEC_24KHZ, stereo))


def test_too_few_codebooks_are_refused(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "hub", ENCODEC_24KHZ, target_bandwidths=[1.5, 3.0])
    with pytest.raises(WeightsError, match="promises 8 codebooks, but .* has 4"):
        EncodecCodec.from_pretrained(announced(ENCODEC_24KHZ, folder))


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "hub", ENCODEC_24KHZ, num_filters=8)
    with pytest.raises(WeightsError, match=r"does not fit EncodecModel: it has encoder.layers.0"):
        EncodecCodec.from_pretrained(announced(ENCODEC_24KHZ, folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"use_causal_conv": False}, "only causal networks for the whole signal"),
        ({"norm_type": "none"}, "norm_type"),
        ({"pad_mode": "mirror"}, "pad_mode"),
        ({"trim_right_ratio": 0.5}, "trim_right_ratio"),
        ({"upsampling_ratios": [8, 0]}, "upsampling_ratios"),
        ({"target_bandwidths": [float("nan")]}, "target_bandwidths"),
    ],
)
def test_networks_of_another_kind_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(network_config(ENCODEC_24KHZ, **changes)))
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match=f"does not describe an EnCodec network.*{message}"):
        spec_for(folder, id="mine")


@pytest.mark.parametrize(
    "changes", [{"overlap": 1.0}, {"chunk_length_s": -1.0}, {"chunk_length_s": 1e-9}]
)
def test_chunks_that_are_none_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = hub_layout(tmp_path / "hub", ENCODEC_48KHZ, **changes)
    with pytest.raises(WeightsError, match=f"does not describe an .*{next(iter(changes))}"):
        spec_for(folder, id="mine")


def test_sizes_of_no_network_are_refused(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "hub", ENCODEC_24KHZ, compress=10**9)
    with pytest.raises(WeightsError, match="no network can be built of the sizes"):
        EncodecCodec.from_pretrained(announced(ENCODEC_24KHZ, folder))


@pytest.mark.parametrize(
    ("first", "codebook", "message"),
    [
        ((2,), (8, 4), "no EnCodec checkpoint"),
        ((2, 1, 7), (8,), "no EnCodec checkpoint"),
        ((2, 1, 7), (1, 4), "codebook_size"),
        ((0, 2, 7), (8, 4), "num_filters"),
    ],
)
def test_shapes_of_no_network_are_refused(
    tmp_path: Path, first: tuple[int, ...], codebook: tuple[int, ...], message: str
) -> None:
    tensors = {
        "encoder.model.0.conv.conv.weight": torch.zeros(first),
        "quantizer.vq.layers.0._codebook.embed": torch.zeros(codebook),
    }
    torch.save(tensors, tmp_path / "encodec.th")
    with pytest.raises(WeightsError, match=message):
        spec_for(tmp_path / "encodec.th", id="mine")


@pytest.mark.parametrize("name", ["encodec.th", "hub/model.safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str) -> None:
    original(tmp_path, ENCODEC_24KHZ)
    hub_layout(tmp_path / "hub", ENCODEC_24KHZ)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:9_000])
    with pytest.raises(WeightsError, match="truncated or something else"):
        EncodecCodec.from_pretrained(announced(ENCODEC_24KHZ, path))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"encoder.model.0.conv.conv.weight": Evil()}, tmp_path / "encodec.th")
    with pytest.raises(WeightsError, match="reading it could run code"):
        spec_for(tmp_path / "encodec.th", id="mine")
    assert not Path("owned").exists()
