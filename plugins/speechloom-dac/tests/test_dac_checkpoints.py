"""Checkpoints of both layouts, and refusals of everything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from speechloom.checkpoints import sha256_of
from speechloom.errors import UsageError, WeightsError
from speechloom.published import PublicCheckpoint
from speechloom.registry import Registry
from speechloom.testing.inputs import made_audio
from speechloom_dac import spec_for
from speechloom_dac._spec import DAC_16KHZ
from speechloom_dac.codec import DacCodec
from speechloom_dac.weights import WEIGHT_NAMES, read_weights

ARGUMENTS = {
    "encoder_dim": 2, "encoder_rates": [2, 4, 5, 8], "latent_dim": 8, "decoder_dim": 32,
    "decoder_rates": [8, 5, 4, 2], "n_codebooks": 12, "codebook_size": 1024, "codebook_dim": 4,
    "quantizer_dropout": 0.5, "sample_rate": 16_000,
}  # fmt: skip
CONFIG = {
    "model_type": "dac", "encoder_hidden_size": 2, "downsampling_ratios": [2, 4, 5, 8],
    "decoder_hidden_size": 32, "n_codebooks": 12, "codebook_size": 1024, "codebook_dim": 4,
    "hidden_size": 8, "sampling_rate": 16_000,
}  # fmt: skip
BLOCK = {"res_unit1": 0, "res_unit2": 1, "res_unit3": 2, "snake1": 3, "conv1": 4}
MIRROR = {"snake1": 0, "conv_t1": 1, "res_unit1": 2, "res_unit2": 3, "res_unit3": 4}
UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}


@pytest.fixture(scope="module")
def made() -> DacCodec:
    return DacCodec.from_random(DAC_16KHZ, seed=3)


def original_name(name: str) -> str:
    """The other way round than the plugin: from the names of transformers to the original's."""
    parts = name.split(".")
    if parts[0] == "quantizer":
        return name
    half = f"{parts[0]}.{'block' if parts[0] == 'encoder' else 'model'}"
    if parts[1] != "block":
        return f"{half}.{ {'conv1': 0, 'snake1': 5, 'conv2': 6}[parts[1]] }.{parts[2]}"
    layers = BLOCK if parts[0] == "encoder" else MIRROR
    inner = f".block.{UNIT[parts[4]]}" if parts[3].startswith("res_unit") else ""
    return f"{half}.{int(parts[2]) + 1}.block.{layers[parts[3]]}{inner}.{parts[-1]}"


def split_weights(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With weight normalisation, as the original stores it."""
    result = {}
    for name, value in tensors.items():
        if name.endswith("weight") and "codebook" not in name:
            dims = tuple(range(1, value.ndim))
            result[f"{name}_g"] = value.norm(dim=dims, keepdim=True)
            result[f"{name}_v"] = value * 3
        else:
            result[name] = value
    return result


@pytest.fixture
def original(tmp_path: Path, made: DacCodec) -> Path:
    state = {original_name(k): v for k, v in split_weights(made._model.state_dict()).items()}
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": state, "metadata": {"kwargs": ARGUMENTS}}, path)
    return path


@pytest.fixture
def hub_layout(tmp_path: Path, made: DacCodec) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(made._model.state_dict(), folder / "model.safetensors")
    return folder


def loaded(checkpoint: Path, **options: Any) -> DacCodec:
    spec = spec_for(checkpoint, id="mine", codes="dac-16khz", **options)
    return DacCodec.from_pretrained(spec)


# Loading ----------------------------------------------------------------------------------


def test_both_layouts_give_the_codes_of_the_network(
    original: Path, hub_layout: Path, made: DacCodec
) -> None:
    audio = [made_audio(5_000)]
    expected = made.encode(audio).ids
    codecs = [loaded(original), loaded(original.parent), loaded(hub_layout)]
    for codec in codecs:
        assert torch.equal(codec.encode(audio).ids, expected)
        assert codec.spec.facts == DAC_16KHZ.facts
    assert codecs[0].weights == {"weights.pth": sha256_of(original)}
    assert set(codecs[2].weights) == {"model.safetensors"}


def test_a_checkpoint_of_one_s_own_is_registered_like_any_component(hub_layout: Path) -> None:
    registry = Registry(entry_points=(), environ={})
    registry.register(DacCodec, spec=spec_for(hub_layout, id="mine", num_codebooks=4))
    codec = registry.load("codec", "mine")
    assert codec.encode([made_audio(999)]).kind == "codes:mine"
    assert codec.spec.facts.codebooks == 4


def test_a_spec_holds_from_any_folder(
    hub_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_for("hub", id="mine")
    monkeypatch.chdir("/")
    assert DacCodec.from_pretrained(spec).encode([made_audio(640)]).ids.shape == (1, 12, 2)


@pytest.mark.parametrize("count", [0, 13])
def test_codebooks_that_do_not_exist_are_refused(hub_layout: Path, count: int) -> None:
    with pytest.raises(UsageError, match="num_codebooks must lie in 1 to 12"):
        spec_for(hub_layout, id="mine", num_codebooks=count)


def test_pinned_hashes_are_listed_and_checked(hub_layout: Path) -> None:
    good = sha256_of(hub_layout / "model.safetensors")
    spec = spec_for(hub_layout, id="mine", sha256={"model.safetensors": good})
    assert DacCodec.from_pretrained(spec).weights == {"model.safetensors": good}
    (listed,) = DacCodec.weight_files(spec).values()
    assert (listed.path, listed.sha256) == (hub_layout / "model.safetensors", good)
    with pytest.raises(WeightsError, match="should have SHA-256 00"):
        spec_for(hub_layout / "model.safetensors", id="mine", sha256={"model.safetensors": "00"})


def test_a_latent_size_of_its_own_is_kept(tmp_path: Path) -> None:
    """The 16 kbit/s network of the original chooses its latent size."""
    torch.save({"state_dict": {}, "metadata": {"kwargs": ARGUMENTS | {"latent_dim": 6}}},
               tmp_path / "weights.pth")  # fmt: skip
    config, _, _ = read_weights(PublicCheckpoint(tmp_path, WEIGHT_NAMES))
    assert config.latent_size == 6


def test_the_public_checkpoint_without_a_network_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_network: list[str]
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"descript/dac_16khz is not in the cache.*local copy"):
        DacCodec.from_pretrained(DAC_16KHZ)


def test_the_public_checkpoint_is_taken_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub_layout: Path, no_network: list[str]
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--descript--dac_16khz"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots").mkdir()
    hub_layout.rename(repository / "snapshots" / "c0ffee")
    codec = DacCodec.from_pretrained(DAC_16KHZ)
    assert codec.encode([made_audio(640)]).ids.shape == (1, 12, 2)


# Refusals ---------------------------------------------------------------------------------


def config_with(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return folder


def test_another_family_is_refused(hub_layout: Path) -> None:
    config_with(hub_layout, model_type="encodec")
    with pytest.raises(WeightsError, match="is a checkpoint of 'encodec', not of 'dac'"):
        spec_for(hub_layout, id="mine")


def test_another_family_of_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.model.0.conv.conv.bias": torch.zeros(3)}, tmp_path / "encodec.th")
    with pytest.raises(WeightsError, match="is no DAC checkpoint.*weights.pth holds state_dict"):
        spec_for(tmp_path / "encodec.th", id="mine")


def test_another_rate_is_refused(hub_layout: Path) -> None:
    options = DAC_16KHZ.options | {"checkpoint": str(config_with(hub_layout, sampling_rate=24_000))}
    spec = DAC_16KHZ.model_copy(update={"options": options})
    with pytest.raises(WeightsError, match=r"dac-16khz promises sample rate 16000, but .* 24000"):
        DacCodec.from_pretrained(spec)


def test_too_few_codebooks_are_refused(hub_layout: Path) -> None:
    options = DAC_16KHZ.options | {"checkpoint": str(config_with(hub_layout, n_codebooks=9))}
    spec = DAC_16KHZ.model_copy(update={"options": options})
    with pytest.raises(WeightsError, match="promises 12 codebooks, but .* has 9"):
        DacCodec.from_pretrained(spec)


def test_weights_that_do_not_fit_their_configuration_are_refused(hub_layout: Path) -> None:
    config_with(hub_layout, encoder_hidden_size=4)
    with pytest.raises(WeightsError, match=r"does not fit DacModel: it has encoder.conv1.weight"):
        loaded(hub_layout)


def test_an_incomplete_configuration_is_refused(hub_layout: Path) -> None:
    config_with(hub_layout, n_codebooks=None, sampling_rate=0)
    with pytest.raises(WeightsError, match="codebooks, sample_rate missing or not usable"):
        spec_for(hub_layout, id="mine")
    (hub_layout / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not JSON"):
        spec_for(hub_layout, id="mine")


def test_a_decoder_that_is_no_mirror_is_refused(tmp_path: Path) -> None:
    arguments = ARGUMENTS | {"decoder_rates": [2, 4, 5, 8]}
    torch.save({"state_dict": {}, "metadata": {"kwargs": arguments}}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="only networks whose decoder mirrors"):
        spec_for(tmp_path, id="mine")


@pytest.mark.parametrize("rates", [[0], [-2, 4], "x", 8, None, [2, 1e30]])
def test_strides_that_are_none_are_refused(hub_layout: Path, tmp_path: Path, rates: Any) -> None:
    config_with(hub_layout, downsampling_ratios=rates)
    with pytest.raises(WeightsError, match="rates missing or not usable"):
        spec_for(hub_layout, id="mine")
    kwargs = ARGUMENTS | {"encoder_rates": rates}
    torch.save({"state_dict": {}, "metadata": {"kwargs": kwargs}}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="rates missing or not usable"):
        spec_for(tmp_path / "weights.pth", id="mine")


def test_sizes_of_no_network_are_refused(hub_layout: Path) -> None:
    config_with(hub_layout, encoder_hidden_size=10**9)
    with pytest.raises(WeightsError, match="no network can be built of the sizes"):
        loaded(hub_layout)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}, "metadata": 3}, "its metadata hold no kwargs"),
        ({"state_dict": {}, "metadata": {}}, "its metadata hold no kwargs"),
        ({"state_dict": 3, "metadata": {"kwargs": ARGUMENTS}}, "holds a int, but tensors by name"),
        (
            {"state_dict": {"a": 2}, "metadata": {"kwargs": ARGUMENTS}},
            "should hold tensors by name, but holds a that are none",
        ),
    ],
)
def test_other_content_of_the_original_s_file_is_refused(
    tmp_path: Path, content: Any, message: str
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message):
        loaded(tmp_path)


def test_a_pickle_of_no_tensors_in_the_layout_of_transformers_is_refused(hub_layout: Path) -> None:
    (hub_layout / "model.safetensors").unlink()
    torch.save([1], hub_layout / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="holds a list, but tensors by name are expected"):
        loaded(hub_layout)


@pytest.mark.parametrize("name", ["weights.pth", "hub/model.safetensors"])
def test_a_truncated_file_is_refused(original: Path, hub_layout: Path, name: str) -> None:
    path = original.parent / name
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(WeightsError, match="truncated or something else"):
        loaded(path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch owned",)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "metadata": Evil()}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="reading it could run code"):
        spec_for(tmp_path, id="mine")
    assert not Path("owned").exists()
