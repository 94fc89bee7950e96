"""Attention by blocks of rows gives what torch's own gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from speechloom.decoding import attention
from speechloom.decoding.attention import attend


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(frames: int, dim: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = (draw(2, 3, frames, dim, seed=i) for i in range(3))
    return q, k, v


def some_frames(frames: int) -> Tensor:
    return (torch.arange(frames) < torch.tensor([[frames], [(frames + 1) // 2]]))[:, None, None]


@pytest.mark.parametrize("frames", [1, 2, 7, 40, 129])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("queries", "scores"), [(512, 1 << 23), (8, 1 << 23), (512, 100), (1, 1)])
def test_bfloat16_on_a_cpu_is_attention_up_to_its_rounding(
    frames: int, masked: bool, queries: int, scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "QUERIES", queries)
    monkeypatch.setattr(attention, "SCORES", scores)
    half = [x.bfloat16() for x in inputs(frames, 48)]  # 48: its square root is not exact
    mask = some_frames(frames) if masked else None
    got = attend(*half, mask)
    want = F.scaled_dot_product_attention(*(x.double() for x in half), attn_mask=mask)
    assert got.dtype == torch.bfloat16
    assert got.shape == want.shape
    torch.testing.assert_close(got.double(), want, atol=0.03, rtol=0.02)


def test_blocks_change_nothing_but_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    half = [x.bfloat16() for x in inputs(70)]
    whole = attend(*half)
    monkeypatch.setattr(attention, "QUERIES", 33)
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
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.equal(attend(q, k, v, mask), want)


def test_no_frames() -> None:
    q, k, v = (x.bfloat16() for x in inputs(0))
    assert attend(q, k, v).shape == (2, 3, 0, 16)
