"""What of the GPU rows can be tried on a CPU: the peers' steps, the arithmetic, the record."""

from __future__ import annotations

import json

import pytest
import torch
from speechloom_bench import gpu
from speechloom_bench.catalogue import GPU
from speechloom_bench.rows import Agreement


def test_the_eager_step_closes_what_is_asked() -> None:
    closes = gpu.eager_level_step(torch.randn(2 * gpu.FRAMES, gpu.SIZE), 2)()
    assert closes.sum(-1).tolist() == [gpu.FRAMES - gpu.STAYS] * 2


def test_the_full_grid_step_leaves_one_level_to_decide() -> None:
    def best(kept: torch.Tensor, temperature: float) -> torch.Tensor:
        return kept.argmax(-1)

    logits = torch.randn(2, 300 * gpu.LEVELS, 16)
    codes = gpu.full_grid_step(logits, lambda x, share: x, best)()
    assert (codes.view(2, 300, gpu.LEVELS)[..., 1:] == 16).all()
    assert (codes.view(2, 300, gpu.LEVELS)[..., 0] < 16).any()


def test_flops_of_the_large_network() -> None:
    per_pass = gpu.decode_flops(1024, 12, 500, 1)
    assert per_pass == pytest.approx(301.7e9, rel=1e-3)


def test_keys_count_positions_and_items() -> None:
    keys = gpu.make_keys(2, torch.device("cpu"))
    assert keys.position.tolist() == [*range(gpu.FRAMES)] * 2
    assert keys.item.tolist() == [0] * gpu.FRAMES + [1] * gpu.FRAMES


def test_a_record_can_be_rendered() -> None:
    entry = GPU[0]
    row = gpu.GpuRow(
        row=entry.row,
        title="a step",
        parity=lambda: Agreement("rows", 0.0, 0.0),
        ours=lambda: None,
        peers={"eager": lambda: None},
        config="two kernels",
        flops=4e9,
    )
    times = {"": [1.0, 2.0, 4.0], "eager": [6.0, 6.0, 6.0]}
    record = gpu.make_record(row, row.parity(), times, {"matmul bfloat16": 8.0}, 1e12)
    assert (record["seconds"], record["spread"], record["of_ceiling"]) == (2.0, 1.5, 0.25)
    assert json.loads(json.dumps(record))["peers"]["eager"]["ratio"] == 3.0
