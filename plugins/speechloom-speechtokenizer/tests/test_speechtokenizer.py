"""SpeechTokenizer: conformance, lengths, windows, streams, sharing and wrong input."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechloom import Audio, Codes, UsageError, WeightsError
from speechloom.spec import CodecFacts
from speechloom.testing import parametrize_with_checks
from speechloom.testing.inputs import made_audio
from speechloom.values import joined
from speechloom.windows import stream_decode
from speechloom_speechtokenizer import (
    SpeechTokenizerCodec,
    SpeechTokenizerUnits,
    _spec,
    network,
    spec_for,
)
from speechloom_speechtokenizer.config import SpeechTokenizerConfig
from speechloom_speechtokenizer.loading import load
from speechloom_speechtokenizer.network import DecoderStream, SpeechTokenizerNetwork
from speechloom_speechtokenizer.seanet import Conv, TransposedConv, reach_of

SPECS = [_spec.HUBERT_AVG_CODEC, _spec.HUBERT_AVG_UNITS]
CHECKS = [
    pytest.param(*one.values, id=f"{spec.id}-{one.id}", marks=one.marks)
    for spec in SPECS
    for one in parametrize_with_checks(spec).args[1]
]
TINY = SpeechTokenizerConfig.tiny(
    sample_rate=1_000, strides=(5, 2), levels=3, size=16, lstm_layers=2
)


@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check: Callable[[], None]) -> None:
    check()


@cache
def _network(seed: int = 0, **sizes: Any) -> SpeechTokenizerNetwork:
    config = TINY.model_copy(update=sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = SpeechTokenizerNetwork(config).eval().requires_grad_(False)
        for codebook in built.quantizer.codebooks:
            codebook.embed.normal_(std=0.1)
    return built


def _samples(length: int, number: int = 0) -> torch.Tensor:
    return made_audio(length, TINY.sample_rate, 1, number).tensor()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint as the original saves it, of a tiny network."""
    return _save(_network(), tmp_path / "checkpoint")


def _save(built: SpeechTokenizerNetwork, folder: Path) -> Path:
    """Files of the original: weights as length and direction, and what only training needs."""
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {"transform.weight": torch.zeros(3, 16)}
    for name, value in built.state_dict().items():
        if name.endswith(("conv.weight", "convtr.weight")):
            dims = tuple(range(1, value.ndim))
            tensors[f"{name}_g"] = value.pow(2).sum(dims, keepdim=True).sqrt()
            tensors[f"{name}_v"] = 3 * value
        else:
            tensors[name] = value
        if name.endswith("embed"):
            tensors[name.replace("embed", "inited")] = torch.ones(1)
            tensors[name.replace("embed", "embed_avg")] = value
            tensors[name.replace("embed", "cluster_size")] = torch.ones(len(value))
    torch.save(tensors, folder / "SpeechTokenizer.pt")
    settings_ = {**built.config.model_dump(), "semantic_dimension": 3, "batch_size": 8}
    (folder / "config.json").write_text(json.dumps(settings_))
    return folder


# Lengths, windows and streams ------------------------------------------------------------


def test_padding_by_hand() -> None:
    """Three positions, reflected by 3 on the left and 3 on the right, need a zero behind them."""
    layer = Conv(1, 1, 7)
    assert (layer.left, layer.right) == (3, 3)
    with torch.no_grad():
        layer.conv["conv"].weight.copy_(torch.tensor([[[1.0, 10, 100, 1e3, 1e4, 1e5, 1e6]]]))
        layer.conv["conv"].bias.zero_()
        out = layer(torch.tensor([[[1.0, 2.0, 3.0]]]))
    # 1 2 3 0 reflected: 0 3 2 [1 2 3 0] 3 2 1, from which the added zero's side is cut.
    assert out.shape == (1, 1, 3)
    assert out[0, 0, 0].item() == 0 + 30 + 200 + 1e3 + 2e4 + 3e5 + 0


def test_reach_by_hand() -> None:
    """A kernel of 7 reaches 3, and through a stride of 2 each of them is two input positions."""
    assert reach_of([Conv(1, 1, 7)]) == 3
    assert reach_of([Conv(1, 1, 4, stride=2), Conv(1, 1, 7)]) == 3 * 2 + 2
    assert reach_of([TransposedConv(1, 1, 2)]) == 1


@settings(max_examples=15, deadline=None)  # a busy machine is slow at times
@given(st.integers(1, 200), st.integers(1, 60))
def test_windows_of_any_size_equal_the_whole(length: int, window: int) -> None:
    built, samples = _network(), _samples(length)
    whole = built.latents(samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "WINDOW_SECONDS", window / 100)
        windowed = built.latents(samples)
    assert windowed.shape == whole.shape == (16, -(-length // 10))
    torch.testing.assert_close(windowed, whole, atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)  # a busy machine is slow at times
@given(st.integers(1, 40), st.lists(st.integers(1, 9), max_size=8), st.sampled_from([0, 1, 2]))
def test_a_stream_of_any_pieces_equals_the_whole(
    frames: int, cuts: list[int], lstm_layers: int
) -> None:
    built = _network(lstm_layers=lstm_layers, bidirectional=lstm_layers > 0)
    ids = torch.randint(0, 16, (3, frames), generator=torch.Generator().manual_seed(frames))
    edges = sorted({0, frames, *(cut for cut in np.cumsum(cuts).tolist() if cut < frames)})
    stream = DecoderStream(built)
    pieces = [ids[:, start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    given_ = 0
    parts = []
    for piece in pieces:
        parts.append(stream.push(piece, last=piece is pieces[-1]))
        given_ += piece.shape[1]
        made = sum(len(part) for part in parts)
        assert made == frames * 10 or made >= (given_ - stream.delay_frames) * 10
    torch.testing.assert_close(torch.cat(parts), built.decode(ids), atol=1e-5, rtol=0)


def test_long_recordings_differ_only_by_what_the_lstm_has_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks equal the whole ever better, the more the LSTM hears on either side of them."""
    built, samples = _network(), _samples(4_000)
    whole = built.latents(samples)
    monkeypatch.setattr(network, "WHOLE_SECONDS", 1)
    errors = []
    for context in (0, 0.05, 0.2, 0.8):
        monkeypatch.setattr(network, "CONTEXT_SECONDS", context)
        errors.append((built.latents(samples) - whole).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-5


def test_codecs_stream_and_decode_alike() -> None:
    codec = SpeechTokenizerCodec.from_random(_spec.HUBERT_AVG_CODEC)
    codes = codec.encode([made_audio(20_001)])
    (whole,) = codec.decode(codes)
    for seconds in (0.02, 0.5, 9.0):
        parts = list(stream_decode(codec, codes, seconds=seconds))
        assert (len(parts) > 1) == (seconds < 1)
        np.testing.assert_allclose(joined(parts).samples, whole.samples, atol=1e-5)
    with pytest.raises(UsageError, match="one item"):
        list(codec.stream(codec.encode([made_audio(500), made_audio(700)])))
    with pytest.raises(UsageError, match="takes 1 to 8 codebooks"):
        list(codec.stream(replace(codes, codec="another")))


def _first_levels(codes: Codes, levels: int) -> Codes:
    return Codes(
        codes.ids[:, :levels].contiguous(), codes.codec, codes.codebook_size, codes.frame_rate
    )


# One network, one pass ----------------------------------------------------------------------


def _specs(folder: Path) -> tuple[Any, Any]:
    return (
        spec_for(folder, id="mine"),
        spec_for(folder, id="my-units", kind="tokenizer", codes="mine"),
    )


def test_both_components_use_one_network_and_one_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec_spec, units_spec = _specs(folder)
    codec = SpeechTokenizerCodec.from_pretrained(codec_spec)
    tokenizer = SpeechTokenizerUnits.from_pretrained(units_spec)
    assert tokenizer.network is codec.network
    passes = []
    monkeypatch.setattr(
        codec.network, "latents", lambda samples, run=codec.network.latents: (
            passes.append(1), run(samples))[1],
    )  # fmt: skip
    recordings = [made_audio(700, 1_000, 1, 1), made_audio(333, 8_000, 2, 2)]
    codes, units = codec.encode(recordings), tokenizer.encode(recordings)
    assert len(passes) == 2
    assert torch.equal(units.ids, codes.ids[:, 0])
    assert torch.equal(tokenizer.units_of(codes).ids, units.ids)
    assert codec.weights.keys() == {"SpeechTokenizer.pt", "config.json"}


def test_what_nobody_uses_is_let_go(folder: Path) -> None:
    spec, _ = _specs(folder)
    kept = load(spec, "cpu")
    assert load(spec, "cpu") is kept
    network_ = weakref.ref(kept.network)
    del kept
    gc.collect()
    assert network_() is None


def test_a_replaced_file_is_read_again(folder: Path) -> None:
    spec, _ = _specs(folder)
    before = load(spec, "cpu")
    tensors = torch.load(folder / "SpeechTokenizer.pt")
    tensors["quantizer.vq.layers.0._codebook.embed"] += 1
    (folder / "SpeechTokenizer.pt").unlink()
    torch.save({**tensors, "transform.bias": torch.zeros(3)}, folder / "SpeechTokenizer.pt")
    assert load(spec, "cpu") is not before


def test_codes_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "REMEMBERED_FRAMES", 10)
    recent = network.RecentCodes()
    one, two = made_audio(10, number=1), made_audio(10, number=2)
    recent.get(one, lambda: torch.zeros(1, 6))
    recent.get(two, lambda: torch.ones(1, 6))
    assert recent.get(two, pytest.fail).sum() == 6
    assert recent.get(one, lambda: torch.full((1, 6), 7)).sum() == 42


# Checkpoints --------------------------------------------------------------------------------


def test_files_of_the_original_give_the_network_that_was_saved(folder: Path) -> None:
    built, samples = _network(), _samples(321)
    codec = SpeechTokenizerCodec.from_pretrained(spec_for(folder, id="mine"))
    loaded = codec.network
    torch.testing.assert_close(loaded.latents(samples), built.latents(samples), atol=1e-5, rtol=0)
    ids = built.encode(samples)
    torch.testing.assert_close(loaded.decode(ids), built.decode(ids), atol=1e-5, rtol=0)


def test_a_training_state_and_the_weights_file_itself_are_read(folder: Path) -> None:
    tensors = torch.load(folder / "SpeechTokenizer.pt")
    torch.save(
        {"generator": tensors, "optim_g": {"state": {}}}, folder / "SpeechTokenizerTrainer_1"
    )
    spec = spec_for(folder / "SpeechTokenizerTrainer_1", id="training")
    codec = SpeechTokenizerCodec.from_pretrained(spec)
    assert "SpeechTokenizerTrainer_1" in codec.weights


def test_specs_take_their_facts_from_the_local_configuration(folder: Path) -> None:
    facts = spec_for(folder, id="mine", num_codebooks=2).facts
    assert isinstance(facts, CodecFacts)
    assert (facts.sample_rate, facts.frame_rate, facts.codebooks) == (1_000, 100, 2)
    codec = SpeechTokenizerCodec.from_pretrained(spec_for(folder, id="mine", num_codebooks=2))
    assert codec.encode([made_audio(500, 1_000)]).codebooks == 2
    with pytest.raises(UsageError, match="must lie in 1 to 3"):
        spec_for(folder, id="mine", num_codebooks=4)


def test_levels_can_be_dropped_and_looked_up() -> None:
    codec = SpeechTokenizerCodec.from_random(_spec.HUBERT_AVG_CODEC)
    audio = [made_audio(3_000), made_audio(1_000, number=1)]
    codes = codec.encode(audio)
    three = codec.encode(audio, num_codebooks=3)
    assert torch.equal(three.ids, codes.ids[:, :3])
    expected = sum(codec.codebook(k)[three.ids[:, k]] for k in range(3))
    torch.testing.assert_close(codec.embed(three), expected.transpose(1, 2))
    assert [audio.length for audio in codec.decode(three)] == [3_200, 1_280]
    for wrong in (0, 9):
        with pytest.raises(UsageError, match="levels"):
            codec.encode(audio, num_codebooks=wrong)
    with pytest.raises(UsageError, match="levels 0 to 7"):
        codec.codebook(8)


# Wrong input --------------------------------------------------------------------------------


def _refused(folder: Path, match: str, spec: Any = None) -> None:
    with pytest.raises(WeightsError, match=match):
        SpeechTokenizerCodec.from_pretrained(spec or spec_for(folder, id="mine"))


def test_a_checkpoint_of_another_family_is_refused(folder: Path) -> None:
    torch.save({"encoder.block.0.weight": torch.zeros(2)}, folder / "SpeechTokenizer.pt")
    _refused(folder, r"does not fit SpeechTokenizerNetwork: it lacks encoder\.model")


def test_a_configuration_of_another_family_is_refused(folder: Path) -> None:
    spec = spec_for(folder, id="mine")
    (folder / "config.json").write_text('{"model_type": "dac", "sampling_rate": 16000}')
    _refused(folder, "is not the configuration of a SpeechTokenizer: sample_rate", spec)
    (folder / "config.json").write_text("{")
    _refused(folder, "is not the configuration of a SpeechTokenizer", spec)


def test_a_checkpoint_of_another_rate_is_refused(folder: Path, tmp_path: Path) -> None:
    other = _save(_network(sample_rate=2_000), tmp_path / "other")
    spec = spec_for(other, id="mine")
    spec = spec.model_copy(update={"options": {**spec.options, "checkpoint": str(folder)}})
    _refused(folder, "promises sample rate 2000, but .* has 1000", spec)


def test_other_sizes_than_the_configuration_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dimension": 32}))
    _refused(folder, r"does not fit .* instead of")


@pytest.mark.parametrize("strides", [[0], [-2, 4], 8, None])
def test_strides_that_are_none_are_refused(folder: Path, strides: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "strides": strides}))
    with pytest.raises(WeightsError, match="is not the configuration .*: strides"):
        spec_for(folder, id="mine")


@pytest.mark.parametrize("content", [[1], {"generator": 3}, {"generator": {"encoder": 2}}])
def test_other_content_is_refused(folder: Path, content: object) -> None:
    torch.save(content, folder / "SpeechTokenizer.pt")
    _refused(folder, "tensors by name")


def test_a_spec_holds_from_any_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    spec = spec_for(folder.name, id="mine")
    monkeypatch.chdir("/")
    assert SpeechTokenizerCodec.from_pretrained(spec).spec == spec


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "SpeechTokenizer.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    _refused(folder, "truncated or something else")


class _Dangerous:
    def __reduce__(self) -> Any:
        return (print, ("this must never be printed",))


def test_a_pickle_with_code_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "SpeechTokenizer.pt").open("wb") as file:
        pickle.dump({"encoder.model.0.conv.conv.weight": _Dangerous()}, file)
    _refused(folder, "could run code|cannot be read as a torch file")
    assert "never" not in capsys.readouterr().out


def test_missing_files_are_named(tmp_path: Path) -> None:
    _refused(tmp_path, r"holds no SpeechTokenizer\.pt", spec_for(tmp_path, id="mine"))


def test_a_pinned_hash_is_checked(folder: Path) -> None:
    spec = spec_for(folder, id="mine", sha256={"SpeechTokenizer.pt": "0" * 64})
    _refused(folder, "should have SHA-256", spec)
    files = SpeechTokenizerCodec.weight_files(spec)
    assert files["SpeechTokenizer.pt"].path == folder / "SpeechTokenizer.pt"


def test_nan_audio_is_refused() -> None:
    tokenizer = SpeechTokenizerUnits.from_random(_spec.HUBERT_AVG_UNITS)
    with pytest.raises(UsageError, match="NaN"):
        tokenizer.encode([Audio(np.full((1, 400), np.nan, np.float32), 16_000)])


def test_units_of_foreign_codes_are_refused() -> None:
    tokenizer = SpeechTokenizerUnits.from_random(_spec.HUBERT_AVG_UNITS)
    codec = SpeechTokenizerCodec.from_random(_spec.SNAKE_CODEC)
    with pytest.raises(UsageError, match="not level 1 of codes:speechtokenizer-snake"):
        tokenizer.units_of(codec.encode([made_audio(900)]))
