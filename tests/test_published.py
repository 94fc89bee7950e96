"""What components over public checkpoints share: layouts, promises, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from speechloom.errors import UsageError, WeightsError
from speechloom.published import (
    PublicCheckpoint,
    PublishedCodec,
    buildable,
    check_promises,
    checkpoint_options,
    read_json,
    stacked_codes,
    stacked_tokens,
)
from speechloom.spec import CodecFacts, TokenizerFacts
from speechloom.testing.canvases import codes_for
from speechloom.testing.fake_specs import CODEC, TOKENIZER

torch = pytest.importorskip("torch")

NAMES = ("model.safetensors", "weights.pth")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine"}))
    (tmp_path / "model.safetensors").write_bytes(b"tensors")
    (tmp_path / "weights.pth").write_bytes(b"pickle")
    return tmp_path


def test_a_folder_is_of_the_layout_of_its_first_file(folder: Path) -> None:
    found = PublicCheckpoint(folder, NAMES)
    assert found.weights() == folder / "model.safetensors"
    assert found.config() == {"model_type": "mine"}
    (folder / "model.safetensors").unlink()
    assert found.weights() == folder / "weights.pth"
    assert found.config() is None  # the original's file says itself what it is


def test_a_file_stands_for_the_weights(folder: Path) -> None:
    assert PublicCheckpoint(folder / "weights.pth", NAMES).config() is None
    assert PublicCheckpoint(folder / "model.safetensors", NAMES).config() == {"model_type": "mine"}


def test_a_file_of_the_original_may_lie_in_a_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = folder / "some_voice"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "weights.pth").write_bytes(b"pickle")
    monkeypatch.syspath_prepend(folder)
    found = PublicCheckpoint("package:some_voice", NAMES)
    assert found.weights() == package / "weights.pth"
    assert found.config() is None


def test_pins_are_checked_and_missing_files_named(folder: Path) -> None:
    pinned = PublicCheckpoint(folder, NAMES, sha256={"model.safetensors": "0" * 64})
    with pytest.raises(WeightsError, match="should have SHA-256 0000"):
        pinned.weights()
    with pytest.raises(WeightsError, match="holds no other.bin"):
        PublicCheckpoint(folder, ("other.bin",)).weights()
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"holds no config\.json"):
        PublicCheckpoint(folder, NAMES).config()


@pytest.mark.parametrize(("text", "why"), [("{", "not JSON"), ("[1]", "not the configuration")])
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=why):
        read_json(path)


def test_options_are_plain_data() -> None:
    options = checkpoint_options(Path("here"), revision=None, sha256={"a": "b"}, layer=6)
    assert options == {"checkpoint": "here", "revision": None, "sha256": {"a": "b"}, "layer": 6}
    assert checkpoint_options("me/mine", revision="v1", sha256=None)["sha256"] is None


def test_whatever_a_constructor_raises_is_one_error() -> None:
    with buildable("here"):
        pass
    for error in (RuntimeError("no memory\nat 0x1"), KeyError("gelu"), ZeroDivisionError()):
        with pytest.raises(WeightsError, match="no network can be built of the sizes in here"):
            with buildable("here"):
                raise error


def test_promises_are_kept_or_named() -> None:
    kept = [("sample rate", 16_000, 16_000)]
    check_promises(CODEC, "here", kept, codebooks=8)
    check_promises(TOKENIZER, "here", kept, codebooks=1)
    with pytest.raises(WeightsError, match="promises sample rate 16000, but here has 24000"):
        check_promises(CODEC, "here", [("sample rate", 16_000, 24_000)], codebooks=8)
    with pytest.raises(WeightsError, match="promises 8 codebooks, but here has 7"):
        check_promises(CODEC, "here", kept, codebooks=7)


def test_codes_levels_and_streams_are_refused_with_the_fact_at_fault() -> None:
    codec = PublishedCodec(CODEC, {"a": "b"})
    facts = codec.facts
    codes = codes_for(facts, [3])
    codec.check_single(codes)
    codec.check_codes(replace(codes, ids=codes.ids[:, :1]))
    wrong = (
        (replace(codes, codec="another"), "takes 1 to 8 codebooks of codes:fake-codes"),
        (replace(codes, ids=codes.ids.repeat(1, 2, 1)), "but got 16 of codes:fake-codes"),
        (replace(codes, codebook_size=999), "256 ids per codebook, but the codes have 999"),
    )
    for value, why in wrong:
        with pytest.raises(UsageError, match=why):
            codec.check_codes(value)
    with pytest.raises(UsageError, match="one item can be streamed at a time, not 2"):
        codec.check_single(codes_for(facts, [3, 4]))
    with pytest.raises(UsageError, match=r"no frames: the items have \[3, 0\] frames"):
        codec.check_playable(codes_for(facts, [3, 0]))
    for level in (-1, 8):
        with pytest.raises(UsageError, match=f"has levels 0 to 7, not {level}"):
            codec.check_level(level)
    assert codec.weights == {"a": "b"}


def test_nothing_to_encode_is_refused() -> None:
    assert isinstance(CODEC.facts, CodecFacts)
    assert isinstance(TOKENIZER.facts, TokenizerFacts)
    with pytest.raises(UsageError, match="there is no audio to encode"):
        stacked_codes([], CODEC.facts)
    with pytest.raises(UsageError, match="there is no audio to encode"):
        stacked_tokens([], TOKENIZER.facts)


def test_rows_of_different_lengths_by_hand() -> None:
    assert isinstance(CODEC.facts, CodecFacts)
    assert isinstance(TOKENIZER.facts, TokenizerFacts)
    codes = stacked_codes(
        [torch.ones(8, 2, dtype=torch.int64), torch.full((8, 1), 3)], CODEC.facts,
        [torch.tensor([0.5, 0.25]), torch.tensor([0.125])],
    )  # fmt: skip
    assert codes.ids[:, 0].tolist() == [[1, 1], [3, 0]]
    assert codes.lengths.tolist() == [2, 1]
    assert codes.scales is not None
    assert codes.scales.tolist() == [[0.5, 0.25], [0.125, 0.0]]
    tokens = stacked_tokens([torch.tensor([4]), torch.tensor([5, 6])], TOKENIZER.facts)
    assert tokens.ids.tolist() == [[4, 0], [5, 6]]
    assert tokens.kind == TOKENIZER.facts.gives
