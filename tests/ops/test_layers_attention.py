"""Attention by blocks of rows gives what torch's own gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.ops.layers import torch_layers
from speechloom.ops.layers.torch_layers import TorchLayers, rotate


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(frames: int, dim: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (draw(2, 3, frames, dim, seed=i) for i in range(3))
    return q, k, v


def some_frames(frames: int) -> Tensor:
    return (torch.arange(frames) < torch.tensor([[frames], [(frames + 1) // 2]]))[:, None, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    return TorchLayers(q.dtype).attend(q, k, v, mask=mask)


def torchs_own(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return torch.cat(list(mixed.unbind(1)), dim=-1)  # a head's numbers beside the next one's


@pytest.mark.parametrize("frames", [1, 2, 7, 40, 129])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "scores"), [(512, 1 << 23), (8, 1 << 23), (512, 100), (1, 1)])
def test_bfloat16_on_a_cpu_is_attention_up_to_its_rounding(
    frames: int, masked: bool, queries: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_layers, "QUERIES", queries)
    monkeypatch.setattr(torch_layers, "SCORES", scores)
    half = [x.bfloat16() for x in inputs(frames, 48)]  # 48: its square root is not exact
    mask = some_frames(frames) if masked else None
    q, k, v = half
    got = attend(q, k, v, mask)
    want = torchs_own(q.double(), k.double(), v.double(), mask)
    assert got.dtype == torch.bfloat16
    assert got.shape == want.shape
    torch.testing.assert_close(got.double(), want, atol=0.03, rtol=0.02)


def test_blocks_change_nothing_but_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [x.bfloat16() for x in inputs(70)]
    whole = attend(*half)
    monkeypatch.setattr(torch_layers, "QUERIES", 33)
    torch.testing.assert_close(attend(*half), whole, atol=0.01, rtol=0.01)


def test_a_hidden_frame_is_not_heard() -> None:
    q, k, v = (x.bfloat16() for x in inputs(9))
    mask = some_frames(9)
    before = attend(q, k, v, mask)
    k[1, :, 5:], v[1, :, 5:] = 50.0, 50.0
    assert torch.equal(attend(q, k, v, mask), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_other_formats_are_torchs_own_bit_for_bit(dtype: torch.dtype, masked: bool) -> None:
    q, k, v = (x.to(dtype) for x in inputs(30))
    mask = some_frames(30) if masked else None
    assert torch.equal(attend(q, k, v, mask), torchs_own(q, k, v, mask))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_queries_and_keys_are_turned_and_values_are_not(dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in inputs(30))
    angles = draw(30, 8, seed=3)
    rotary = angles.cos(), angles.sin()
    got = TorchLayers(dtype).attend(q, k, v, rotary=rotary)
    assert torch.equal(got, attend(rotate(q, rotary), rotate(k, rotary), v))


def test_turning_is_a_product_of_complex_numbers() -> None:
    x, angles = draw(2, 3, 5, 16), draw(5, 8, seed=1)
    turned = rotate(x, (angles.cos(), angles.sin()))
    want = torch.complex(x[..., :8], x[..., 8:]) * torch.polar(torch.ones(5, 8), angles)
    torch.testing.assert_close(turned, torch.cat((want.real, want.imag), dim=-1))


def test_no_frames() -> None:
    q, k, v = (x.bfloat16() for x in inputs(0))
    assert attend(q, k, v).shape == (2, 0, 48)
