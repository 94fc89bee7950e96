"""The starter's networks: shapes, exact lengths, finite reach, seeds, errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from speechloom.errors import UsageError, WeightsError
from speechloom_starter.align import align
from speechloom_starter.blocks import build_seeded
from speechloom_starter.codec_model import CodecConfig, CodecModel
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.duration_model import DurationConfig, DurationModel
from speechloom_starter.mel import MEL_DIM, log_mel, mel_filters
from speechloom_starter.phones import PAUSE, PHONE_IDS, PHONES
from speechloom_starter.quantizer import QuantizerTrainer, ResidualQuantizer, k_means, nearest
from speechloom_starter.thirds import phone_thirds
from speechloom_starter.voice_model import VoiceConfig, VoiceEncoder
from speechloom_starter.weights import check_manifest, load_codec, write_manifest, write_tensors


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture(scope="module")
def codec() -> CodecModel:
    model = build_seeded(lambda: CodecModel(CodecConfig.tiny()), 1).eval()
    # Fewer codes than vectors, or the first level would hold them all.
    vectors = model.latents(noise(20, 48000)).detach().flatten(0, 1)
    trainer = QuantizerTrainer(model.quantizer)
    trainer.start(vectors, torch.Generator().manual_seed(1))
    return model


@pytest.fixture(scope="module")
def content() -> ContentModel:
    return build_seeded(lambda: ContentModel(ContentConfig.tiny()), 2).eval()


def test_there_are_41_phones_and_the_pause_is_first() -> None:
    assert len(PHONES) == 41
    assert PHONES[PAUSE] == "pau"
    assert PHONE_IDS["zh"] == 40


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (319, 1), (320, 1), (321, 2), (16000, 50)])
def test_lengths_are_exact(codec: CodecModel, samples: int, frames: int) -> None:
    codes = codec.encode(noise(2, samples))
    assert codes.shape == (2, 8, frames)
    assert codec.decode(codes).shape == (2, frames * 320)
    assert log_mel(noise(2, samples)).shape == (2, frames, MEL_DIM)


def test_every_mel_filter_sees_a_bin() -> None:
    for bands, fft in ((100, 1024), (32, 256), (160, 2048)):
        assert (mel_filters(bands, fft, torch.device("cpu")).sum(0) > 0).all()


def test_a_window_with_the_stated_overlap_has_the_codes_of_the_whole(codec: CodecModel) -> None:
    audio = noise(1, 60 * 320)
    whole = codec.latents(audio)
    reach = codec.encoder_reach_frames
    first, last = 20, 30
    piece = codec.latents(audio[:, (first - reach) * 320 : (last + reach) * 320])
    torch.testing.assert_close(piece[:, reach:-reach], whole[:, first:last], rtol=1e-4, atol=1e-4)
    short = codec.latents(audio[:, (first - reach + 1) * 320 : (last + reach) * 320])
    assert (short[:, reach - 1] - whole[:, first]).abs().max() > 1e-4


def test_a_window_with_the_stated_overlap_has_the_samples_of_the_whole(codec: CodecModel) -> None:
    codes = codec.encode(noise(1, 60 * 320))
    whole = codec.decode(codes)
    reach = codec.decoder_reach_frames
    piece = codec.decode(codes[:, :, 20 - reach : 30 + reach])
    inner = piece[:, reach * 320 : -reach * 320]
    torch.testing.assert_close(inner, whole[:, 20 * 320 : 30 * 320], rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing(codec: CodecModel, content: ContentModel) -> None:
    audio = noise(1, 20 * 320)
    padded = torch.nn.functional.pad(audio, (0, 10 * 320))
    lengths = torch.tensor([20])
    codes = codec.encode(audio)
    assert torch.equal(codec.encode(padded, lengths)[:, :, :20], codes)
    more = torch.nn.functional.pad(codes, (0, 10))
    torch.testing.assert_close(
        codec.decode(more, lengths)[:, : 20 * 320], codec.decode(codes), rtol=1e-4, atol=1e-5
    )
    features = content(padded, lengths).features[:, :20]
    torch.testing.assert_close(features, content(audio).features, rtol=1e-4, atol=1e-5)
    voice = build_seeded(lambda: VoiceEncoder(VoiceConfig.tiny()), 3).eval()
    torch.testing.assert_close(voice(padded, lengths), voice(audio), rtol=1e-4, atol=1e-5)


def test_fewer_levels_decode_and_come_nearer_with_each_level(codec: CodecModel) -> None:
    latents = codec.latents(noise(1, 16000, seed=7))[0]
    codes = codec.quantizer.encode(latents)
    with torch.no_grad():
        partial = [codec.quantizer.decode(codes[:, :k]) for k in (1, 4, 8)]
        distances = [float((latents - part).square().mean()) for part in partial]
    assert distances[0] > distances[1] > distances[2]
    assert codec.decode(codes.T[None, :3]).shape == (1, 16000)


def test_content_gives_log_probabilities_and_windows_equal_the_whole(content: ContentModel) -> None:
    audio = noise(1, 60 * 320)
    out = content(audio)
    assert out.phone.shape == (1, 60, 41)
    torch.testing.assert_close(out.phone.exp().sum(-1), torch.ones(1, 60))
    reach = content.reach_frames
    piece = content(audio[:, (20 - reach) * 320 : (30 + reach) * 320])
    torch.testing.assert_close(
        piece.features[:, reach:-reach], out.features[:, 20:30], rtol=1e-4, atol=1e-4
    )
    codebook = noise(5, out.features.shape[-1])
    units = content.units(audio, codebook)
    assert units.shape == (1, 60)
    assert int(units.max()) < 5


def test_a_voice_is_a_unit_vector() -> None:
    voice = build_seeded(lambda: VoiceEncoder(VoiceConfig.tiny()), 3).eval()
    vectors = voice(noise(3, 8000))
    assert vectors.shape == (3, 128)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))


def test_durations_are_whole_positive_and_follow_the_rate() -> None:
    model = build_seeded(lambda: DurationModel(DurationConfig.tiny()), 4).eval()
    phones = torch.arange(41)[None]
    normal, fast = model.frames(phones), model.frames(phones, rate=2.0)
    assert int(normal.min()) >= 1
    assert int(model.frames(phones, rate=100.0).sum()) == 41
    assert float(fast.sum()) < 0.7 * float(normal.sum())
    exact = model(phones).detach().exp().sum()
    assert abs(float(normal.sum() - exact)) <= 1 + int((normal == 1).sum())


def test_padding_phones_changes_no_duration() -> None:
    model = build_seeded(lambda: DurationModel(DurationConfig.tiny()), 4).eval()
    phones = torch.arange(10)[None]
    padded = torch.nn.functional.pad(phones, (0, 5))
    lengths = torch.tensor([10])
    frames = model.frames(padded, lengths=lengths)
    assert torch.equal(frames[:, :10], model.frames(phones))
    assert int(frames[:, 10:].sum()) == 0


def test_building_from_a_seed_is_repeatable_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    one = build_seeded(lambda: CodecModel(CodecConfig.tiny()), 5)
    two = build_seeded(lambda: CodecModel(CodecConfig.tiny()), 5)
    other = build_seeded(lambda: CodecModel(CodecConfig.tiny()), 6)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.read.weight, two.read.weight)
    assert not torch.equal(one.read.weight, other.read.weight)


def test_thirds_of_phones() -> None:
    ids = phone_thirds(np.array([1, 0, 2]), np.array([3, 1, 4]))
    assert ids.tolist() == [3, 4, 5, 0, 6, 6, 7, 8]
    assert phone_thirds(np.array([1, 2]), np.array([0, 2])).tolist() == [6, 7]


def best_by_brute_force(scores: Tensor, phones: list[int], pauses: list[bool]) -> float:
    """The best score of any monotonic labelling, by trying all of them."""
    frames = scores.shape[0]
    best = -float("inf")

    def walk(frame: int, phone: int, in_pause: bool, total: float) -> None:
        nonlocal best
        if frame == frames:
            if phone == len(phones) - 1:
                best = max(best, total)
            return
        if phone >= 0 and not in_pause:
            walk(frame + 1, phone, False, total + float(scores[frame, phones[phone]]))
        if phone + 1 < len(phones):
            walk(frame + 1, phone + 1, False, total + float(scores[frame, phones[phone + 1]]))
        if in_pause or pauses[phone + 1]:
            walk(frame + 1, phone, True, total + float(scores[frame, PAUSE]))

    walk(0, -1, False, 0.0)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_alignment_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = noise(8, 41, seed=seed).mul(20).log_softmax(-1)
    phones = rng.integers(1, 41, int(rng.integers(1, 5))).tolist()
    pauses = (rng.random(len(phones) + 1) < 0.5).tolist()
    spans = align(scores, torch.tensor(phones), torch.tensor(pauses))
    total, end = 0.0, 0
    for index, (start, stop) in enumerate(spans.tolist()):
        assert start >= end
        assert stop > start
        assert start == end or pauses[index]
        total += float(scores[end:start, PAUSE].sum() + scores[start:stop, phones[index]].sum())
        end = stop
    assert end == 8 or pauses[-1]
    total += float(scores[end:, PAUSE].sum())
    assert total == pytest.approx(best_by_brute_force(scores, phones, pauses), abs=1e-4)


def test_alignment_without_pauses_covers_everything() -> None:
    spans = align(noise(9, 41).log_softmax(-1), torch.tensor([3, 3, 7]))
    assert spans[0, 0] == 0
    assert spans[-1, 1] == 9
    assert torch.equal(spans[1:, 0], spans[:-1, 1])


@pytest.mark.parametrize("phones", [[], [1, 2, 3, 4]])
def test_impossible_alignments_are_refused(phones: list[int]) -> None:
    with pytest.raises(UsageError, match="cannot align"):
        align(noise(3, 41), torch.tensor(phones, dtype=torch.int64))


def test_k_means_finds_separate_clusters() -> None:
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    points = (centres[:, None] + noise(3, 50, 2)).reshape(-1, 2)
    found = k_means(points, 3, torch.Generator().manual_seed(1))
    assert nearest(points, found).reshape(3, 50).float().std(1).max() == 0


def test_a_dead_code_moves_to_the_data() -> None:
    quantizer = ResidualQuantizer(width=4, levels=1, size=8)
    quantizer.codebooks[:] = 100.0
    trainer = QuantizerTrainer(quantizer)
    trainer.sums, trainer.sizes = quantizer.codebooks.clone(), torch.ones(1, 8)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        trainer(noise(2, 20, 4), generator)
    assert quantizer.codebooks.abs().max() < 1.0


def test_weights_survive_the_file_and_errors_name_it(tmp_path: Path) -> None:
    model = build_seeded(lambda: CodecModel(CodecConfig.tiny()), 5)
    with pytest.raises(WeightsError, match=r"codec\.safetensors is missing"):
        load_codec(tmp_path)
    write_tensors("codec", model.state_dict(), tmp_path, model.config)
    write_manifest(tmp_path)
    check_manifest(tmp_path)
    loaded = load_codec(tmp_path)
    torch.testing.assert_close(loaded.read.weight, model.read.weight, rtol=1e-3, atol=1e-3)
    assert loaded.config == model.config
    assert not loaded.training
    write_tensors("codec", {"x": torch.zeros(1)}, tmp_path, model.config)
    with pytest.raises(WeightsError, match="SHA-256"):
        check_manifest(tmp_path)
    with pytest.raises(WeightsError, match="same version"):
        load_codec(tmp_path)
    (tmp_path / "codec.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match="readable"):
        load_codec(tmp_path)
