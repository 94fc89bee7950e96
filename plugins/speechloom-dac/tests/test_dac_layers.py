"""The lean layers give the bits of those that they stand for."""

from __future__ import annotations

import pytest
import torch
from transformers import DacConfig, DacModel
from transformers.models.dac.modeling_dac import Snake1d

from speechloom_dac import layers
from speechloom_dac.layers import Snake, make_lean


@pytest.mark.parametrize("shape", [(1, 3, 1), (2, 5, 37), (1, 7, 100)])
@pytest.mark.parametrize(("block", "steps"), [(1, 1), (64, 16), (1 << 17, 1 << 14)])
@pytest.mark.parametrize("inplace", [False, True])
def test_the_activation_in_blocks_is_the_whole(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    block: int,
    steps: int,
    inplace: bool,
) -> None:
    monkeypatch.setattr(layers, "BLOCK", block)
    monkeypatch.setattr(layers, "STEPS", steps)
    draw = torch.Generator().manual_seed(0)
    plain = Snake1d(shape[1]).requires_grad_(False)
    plain.alpha.copy_(torch.rand(plain.alpha.shape, generator=draw))
    x = torch.randn(shape, generator=draw)
    expected, given = plain(x), x.clone()
    result = Snake(plain, inplace=inplace)(given)
    assert torch.equal(result, expected)
    assert torch.equal(given, expected if inplace else x)


def test_the_lean_network_is_the_plain_one() -> None:
    sizes = DacConfig(
        encoder_hidden_size=2, downsampling_ratios=[2, 5], decoder_hidden_size=8, n_codebooks=1,
        codebook_size=4, codebook_dim=2,
    )  # fmt: skip
    sizes.hidden_size = 8
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        model = DacModel(sizes).eval()
        names = list(model.state_dict())
        samples, latents = torch.randn(1, 1, 200), torch.randn(1, 8, 20)
        expected = model.encoder(samples), model.decoder(latents)
        make_lean(model)
        assert not [one for one in model.modules() if isinstance(one, Snake1d)]
        assert list(model.state_dict()) == names
        kept = samples.clone(), latents.clone()
        assert torch.equal(model.encoder(samples), expected[0])
        assert torch.equal(model.decoder(latents), expected[1])
        assert torch.equal(samples, kept[0])
        assert torch.equal(latents, kept[1])
