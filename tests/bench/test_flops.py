"""What the table takes for the work of a decode."""

from __future__ import annotations

from speechloom_bench import soundstorm as storm


def test_passes_by_hand() -> None:
    # Four frames, two passes, then one for each level; each pass finds what the one before closed.
    first, second, *others = storm.passes_of(4, (2,), "linear")
    assert (first, second) == ((4, 4), (2, 2))
    assert others == [(2, 4), *[(4, 4)] * (storm.LEVELS - 2)]


def test_what_is_left_out_is_not_counted() -> None:
    size = storm.Size("tiny", dim=2, layers=3)
    whole = 2 * (5 * 3 * (26 * 4 + 2 * 5 * 2) + 5 * 4)
    assert size.network_flops(5, [(5, 5)], alone=True) == size.forward_flops(5) == whole
    spared = 2 * (4 * 11 * 4 + 3 * (10 * 4 + 4))  # of four frames at the start, three at the end
    assert size.network_flops(5, [(1, 2)], alone=True) == whole - spared
    assert size.network_flops(5, [(1, 2)], alone=False) == whole
