"""Embeddings that start from the vectors of the tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom.testing.fakes import FakeCodec
from speechloom_speechsec.config import tiny
from speechloom_speechsec.embeddings import code_vectors, content_vectors, start_from_vectors
from speechloom_speechsec.model import SpeechSEC


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def rows(model: SpeechSEC) -> Tensor:
    """Embeddings [K, V, D] of the codes, without those of the mask id."""
    config = model.config
    shape = (config.codebooks, config.codebook_size + 1, config.dim)
    return model.code_embedding.weight.detach().view(shape)[:, :-1]


def ratio(placed: Tensor, vectors: Tensor) -> Tensor:
    """Products of all pairs of rows, before over after."""
    before, after = vectors @ vectors.T, placed @ placed.T
    return after / before


@pytest.mark.parametrize("width", [16, 6])
def test_angles_and_lengths_of_narrow_vectors_are_kept(width: int) -> None:
    """A network of 16 numbers: the codec's vectors are copied, or turned into more dimensions."""
    model = SpeechSEC(tiny(), seed=1)
    vectors = [drawn(11, width) * 0.5**level for level in range(3)]
    start_from_vectors(model, vectors)
    placed = rows(model)
    scale = ratio(placed.flatten(0, 1), torch.cat(vectors))
    torch.testing.assert_close(scale, scale[0, 0].expand_as(scale), rtol=1e-3, atol=0)
    assert float(placed.square().mean().sqrt()) == pytest.approx(0.02, rel=1e-4)
    assert float(placed[2].norm() / placed[0].norm()) == pytest.approx(
        float(vectors[2].norm() / vectors[0].norm()), rel=1e-4
    )


def test_wide_vectors_keep_their_geometry_about() -> None:
    config = tiny(codebooks=1).model_copy(update={"dim": 128})
    model, vectors = SpeechSEC(config, seed=1), drawn(11, 512)
    start_from_vectors(model, [vectors], seed=3)
    placed = rows(model)[0]
    cosines = [torch.corrcoef(x) for x in (placed, vectors)]
    assert float((cosines[0] - cosines[1]).abs().max()) < 0.35
    assert float(placed.norm(dim=1).std() / placed.norm(dim=1).mean()) < 0.2


def test_only_what_is_given_is_changed() -> None:
    config = tiny().model_copy(update={"prompt_embedding": True})
    model, untouched = SpeechSEC(config, seed=1), SpeechSEC(config, seed=1)
    start_from_vectors(model, [drawn(11, 16)] * 3, drawn(7, 16))
    masks = slice(11, None, 12)
    for name, value in model.state_dict().items():
        same = untouched.state_dict()[name]
        if name in ("code_embedding.weight", "prompt_embedding.weight"):
            assert torch.equal(value[masks], same[masks])
            assert torch.equal(
                value.view(3, 12, 16)[:, :-1], rows(model)
            )  # the second as the first
            assert not torch.equal(value, same)
        elif name == "content_embedding.weight":
            assert torch.equal(value[-1], same[-1])
            assert not torch.equal(value[:-1], same[:-1])
        else:
            assert torch.equal(value, same)


def test_the_seed_decides() -> None:
    first, again, other = (SpeechSEC(tiny(), seed=1) for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        start_from_vectors(model, [drawn(11, 5)] * 3, seed=seed)
    assert torch.equal(rows(first), rows(again))
    assert not torch.equal(rows(first), rows(other))


def test_empty_codebooks_are_no_fault() -> None:
    model = SpeechSEC(tiny(), seed=1)
    start_from_vectors(model, [torch.zeros(11, 16)] * 3)
    assert not rows(model).any()


def test_vectors_of_other_tokens_are_refused() -> None:
    model = SpeechSEC(tiny(), seed=1)
    with pytest.raises(UsageError, match="3 levels of 11 codes"):
        start_from_vectors(model, [drawn(11, 16)] * 2)
    with pytest.raises(UsageError, match="7 content ids"):
        start_from_vectors(model, content=drawn(8, 16))


def test_a_codec_without_a_look_up_says_what_to_do() -> None:
    codec = FakeCodec.from_random(FakeCodec.default_spec)
    with pytest.raises(UsageError, match="embeddings: random"):
        code_vectors(codec)
    assert content_vectors(codec) is None
