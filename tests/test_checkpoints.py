"""Checkpoints: found where they are, read safely, refused with the way out."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speechloom.checkpoints import (
    find_checkpoint,
    fold_weight_norm,
    is_at_hand,
    lasting_location,
    load_exactly,
    local_path,
    pinned_files,
    read_checkpoint,
    read_tensors,
    sha256_of,
)
from speechloom.errors import WeightsError

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch owned",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    torch.save(STATE, tmp_path / "weights.pth")
    return tmp_path


# Finding ----------------------------------------------------------------------------------


def test_a_folder_gives_the_files_in_the_order_asked(folder: Path) -> None:
    found = find_checkpoint(folder, ["config.json", ("model.safetensors", "weights.pth")])
    assert list(found) == ["config.json", "weights.pth"]
    assert found["weights.pth"] == folder / "weights.pth"


def test_a_location_is_what_is_here_or_a_hub_id(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "someone" / "on-a-hub").mkdir(parents=True)
    assert local_path("weights.pth") == Path("weights.pth")
    assert local_path("someone/on-a-hub") == Path("someone/on-a-hub")  # what is here goes first
    assert local_path("someone/else") is None
    with pytest.raises(WeightsError, match="does not exist; give a folder, a file or a hub id"):
        local_path("~nobody-of-that-name/weights")


def test_a_lasting_location_holds_from_any_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    here = lasting_location("weights.pth")
    monkeypatch.chdir("/")
    assert local_path(here) == (folder / "weights.pth").resolve()
    assert lasting_location("someone/on-a-hub") == "someone/on-a-hub"
    assert lasting_location(folder / "missing") == str(folder / "missing")


def test_at_hand_is_what_lies_on_this_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    for location in (folder, str(folder / "weights.pth"), "package:some_voice/weights"):
        assert is_at_hand(location)
    unknown = ("someone/on-a-hub", folder / "missing", "https://here/weights", "~nobody/weights")
    for other in (*unknown, 0, 1.5, {"weights": "here"}, ["here"], b"here"):
        assert not is_at_hand(other)


def test_a_hub_id_is_at_hand_when_its_weights_are_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--someone--on-a-hub" / "snapshots" / "c0ffee"
    (snapshot / "inside").mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not is_at_hand("someone/on-a-hub")  # its configuration alone plays nothing
    (snapshot / "inside" / "weights.pth").write_bytes(b"")
    assert is_at_hand("someone/on-a-hub")
    assert not is_at_hand("someone/else")


@pytest.mark.parametrize("name", ["a..b/c", "a--b/c", "a/b.git", "a/" + "b" * 120])
def test_ids_that_no_hub_has_are_refused(name: str, no_network: list[str]) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(WeightsError, match="does not exist here, and the hub has no such ids"):
        find_checkpoint(name, ["config.json"])
    with pytest.raises(WeightsError, match="the hub has no such ids"):
        pinned_files(name, sha256={"config.json": "00"})
    assert not is_at_hand(name)


def test_the_first_alternative_that_exists_is_taken(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    found = find_checkpoint(str(folder), [("model.safetensors", "weights.pth")])
    assert list(found) == ["model.safetensors"]


def test_a_file_stands_for_the_first_name_and_the_others_lie_beside_it(folder: Path) -> None:
    mine = folder / "mine.pt"
    torch.save(STATE, mine)
    found = find_checkpoint(mine, [("model.safetensors", "weights.pth"), "config.json"])
    assert list(found.values()) == [mine, folder / "config.json"]


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="holds no a.bin or b.bin"):
        find_checkpoint(folder, [("a.bin", "b.bin")])


@pytest.mark.parametrize("location", ["./nowhere", "/no/such/folder", "a/b/c", "~/nothing-here"])
def test_a_path_that_does_not_exist_is_no_hub_id(location: str) -> None:
    with pytest.raises(WeightsError, match="does not exist; give a folder, a file or a hub id"):
        find_checkpoint(location, ["config.json"])


def test_a_checkpoint_inside_a_package_is_found_without_importing_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "speechloom_boxed"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "weights.pth").rename(package / "weights" / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for location in (
        "package:speechloom_boxed/weights",
        "package:speechloom_boxed/weights/weights.pth",
    ):
        found = find_checkpoint(location, ["weights.pth"])
        assert found == {"weights.pth": package / "weights" / "weights.pth"}
    pinned = pinned_files("package:speechloom_boxed/weights", sha256={"weights.pth": "0"})
    assert pinned["weights.pth"].path == package / "weights" / "weights.pth"
    with pytest.raises(WeightsError, match="there is no .*boxed/other"):
        find_checkpoint("package:speechloom_boxed/other", ["weights.pth"])


@pytest.mark.parametrize("name", ["speechloom_nowhere", "", "../etc", "a.b"])
def test_a_checkpoint_in_a_package_that_is_not_installed_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="which is not installed"):
        find_checkpoint(f"package:{name}/weights", ["weights.pth"])


def test_a_local_checkpoint_has_no_revision(folder: Path) -> None:
    with pytest.raises(WeightsError, match="revision 'main'.*leave it out"):
        find_checkpoint(folder, ["config.json"], revision="main")


def test_pinned_hashes_are_checked(folder: Path) -> None:
    good = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
    assert sha256_of(folder / "weights.pth") == good
    find_checkpoint(folder, ["weights.pth"], sha256={"weights.pth": good.upper(), "other": "0"})
    with pytest.raises(WeightsError, match="should have SHA-256 00, but has"):
        find_checkpoint(folder, ["weights.pth"], sha256={"weights.pth": "00"})


def test_pinned_files_of_a_folder_and_of_a_file(folder: Path) -> None:
    by_folder = pinned_files(folder, sha256={"weights.pth": "00"})
    by_file = pinned_files(folder / "weights.pth", sha256={"weights.pth": "00", "config.json": "1"})
    assert by_folder["weights.pth"].path == by_file["weights.pth"].path == folder / "weights.pth"
    assert by_file["config.json"].path == folder / "config.json"
    assert by_file["config.json"].sha256 == "1"
    assert pinned_files(folder) == {}


# The hub ----------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]) -> Path:
    """A cache with one repository that holds config.json, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots" / "c0ffee").mkdir(parents=True)
    (repository / "snapshots" / "c0ffee" / "config.json").write_text("{}")
    return repository / "snapshots" / "c0ffee"


def test_cached_files_need_no_network(hub: Path) -> None:
    found = find_checkpoint("owner/name", [("absent.bin", "config.json")])
    assert found["config.json"] == hub / "config.json"
    pinned = pinned_files("owner/name", sha256={"config.json": "1", "model.safetensors": "2"})
    assert pinned["config.json"].path == hub / "config.json"
    assert not pinned["model.safetensors"].path.exists()


def test_a_file_out_of_reach_says_where_it_looked_and_what_to_do(hub: Path) -> None:
    with pytest.raises(WeightsError) as problem:
        find_checkpoint("owner/name", ["model.safetensors"], revision="v2")
    message = str(problem.value)
    for part in ("model.safetensors", "owner/name at revision v2", str(hub.parents[1]), "HF_HUB"):
        assert part in message


def test_the_default_cache_is_used_for_a_hub_id_that_is_not_there(hub: Path) -> None:
    with pytest.raises(WeightsError, match="not in the cache"):
        find_checkpoint("facebook/nothing", ["config.json"])


# Reading ----------------------------------------------------------------------------------


def test_safetensors_and_torch_files_hold_the_same(folder: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(STATE, folder / "model.safetensors")
    for name in ("weights.pth", "model.safetensors"):
        tensors = read_tensors(folder / name)
        assert list(tensors) == list(STATE) or set(tensors) == set(STATE)
        for key, value in STATE.items():
            assert torch.equal(tensors[key], value)


def test_nested_content_comes_back_whole(tmp_path: Path) -> None:
    content = {"state_dict": OrderedDict(STATE), "metadata": {"kwargs": {"rates": [2, 4]}}}
    torch.save(content, tmp_path / "nested.pt")
    back = read_checkpoint(tmp_path / "nested.pt")
    assert back["metadata"] == content["metadata"]
    assert torch.equal(back["state_dict"]["bias"], STATE["bias"])
    with pytest.raises(WeightsError, match="holds state_dict, metadata that are none"):
        read_tensors(tmp_path / "nested.pt")


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="holds a list"):
        read_tensors(tmp_path / "list.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_code_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pt", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"posix\.system.*safetensors.*allow_pickle=True"):
        read_checkpoint(Path("evil.pt"))
    assert not Path("owned").exists()


def test_a_bare_pickle_with_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(WeightsError, match="needs more than plain tensors"):
        read_checkpoint(tmp_path / "evil.pkl")


def test_a_pickle_that_needs_more_is_read_when_asked_by_name(tmp_path: Path) -> None:
    torch.save({"means": np.arange(3.0)}, tmp_path / "arrays.pt")
    with pytest.raises(WeightsError, match="allow_pickle"):
        read_checkpoint(tmp_path / "arrays.pt")
    back = read_checkpoint(tmp_path / "arrays.pt", allow_pickle=True)
    assert back["means"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("keep", [0, 1, 20, 0.5, 0.99])
@pytest.mark.parametrize("name", ["weights.pth", "legacy.pth", "model.safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = tmp_path / name
    if name == "model.safetensors":
        pytest.importorskip("safetensors.torch").save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=name == "weights.pth")
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(WeightsError, match="truncated or something else"):
        read_tensors(path)


def test_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="cannot be read as a torch file"):
        read_checkpoint(tmp_path / "page.pt")
    with pytest.raises(WeightsError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing.pt")


# Loading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_weight_norm_is_folded_to_the_bit_as_torch_applies_it(dim: int) -> None:
    torch.manual_seed(0)
    for size in ((4, 3, 5), (1, 3, 5)):
        conv = nn.Conv1d(size[1], size[0], size[2])
        normed = nn.utils.parametrizations.weight_norm(conv, dim=dim)
        with torch.no_grad():
            normed.parametrizations.weight.original0.mul_(1.7)
        new = dict(normed.state_dict())
        old = {
            "weight_g": new["parametrizations.weight.original0"],
            "weight_v": new["parametrizations.weight.original1"],
            "bias": new["bias"],
        }
        for tensors in (new, old):
            folded = fold_weight_norm(tensors)
            assert set(folded) == {"weight", "bias"}
            assert torch.equal(folded["weight"], normed.weight)


def test_names_around_weight_norm_are_kept() -> None:
    length, direction = torch.tensor([[5.0]]), torch.tensor([[3.0, 4.0]])
    folded = fold_weight_norm({"a.b.weight_v": direction, "a.b.weight_g": length, "c": length})
    assert set(folded) == {"a.b.weight", "c"}
    torch.testing.assert_close(folded["a.b.weight"], torch.tensor([[3.0, 4.0]]))


def test_half_a_pair_is_refused() -> None:
    with pytest.raises(WeightsError, match="has x.weight_v, but not x.weight_g"):
        fold_weight_norm({"x.weight_v": torch.ones(2, 2)})


def test_tensors_are_loaded_into_a_network_without_memory() -> None:
    with torch.device("meta"):
        linear = nn.Linear(3, 2)
    load_exactly(linear, {key: value.double() for key, value in STATE.items()}, "here")
    assert linear.weight.dtype == torch.float32
    assert torch.equal(linear.weight, STATE["weight"])


def test_what_does_not_fit_is_listed() -> None:
    wrong = {"weight": torch.zeros(2, 4), **{f"extra{i}": torch.zeros(1) for i in range(7)}}
    with pytest.raises(WeightsError) as problem:
        load_exactly(nn.Linear(3, 2), wrong, "file.pt")
    message = str(problem.value)
    assert message.startswith("file.pt does not fit Linear: it lacks bias; it has unknown extra0")
    assert "extra4 and 2 more" in message
    assert "weight [2, 4] instead of [2, 3]" in message


def test_importing_it_is_light() -> None:
    code = "import sys, speechloom.checkpoints; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
