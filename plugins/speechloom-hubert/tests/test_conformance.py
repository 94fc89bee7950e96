"""The conformance kit on what entry points announce, and on a spec of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speechloom.registry import Registry
from speechloom.testing import check_plugin
from speechloom_hubert import SPECS, spec_for
from speechloom_hubert.units import HubertUnits


def test_published_tokenizers_pass_every_check() -> None:
    statuses = {result.status for result in check_plugin(SPECS[-1])}
    assert statuses <= {"passed", "skipped"}


def test_loaded_tokenizers_pass_every_check(
    checkpoint: Callable[..., Path], kmeans: Callable[..., Path]
) -> None:
    spec = spec_for(checkpoint("wavlm"), layer=2, kmeans=kmeans(), id="mine")
    registry = Registry(entry_points=(), environ={})
    registry.register(HubertUnits, spec=spec)
    statuses = {result.status for result in check_plugin(registry.load("tokenizer", "mine"))}
    assert statuses <= {"passed", "skipped"}


def test_entry_points_announce_the_specs() -> None:
    found = {spec.id: spec for spec in Registry(environ={}).specs("tokenizer")}
    assert {spec.id: spec for spec in SPECS}.items() <= found.items()


def test_licences_are_named() -> None:
    for spec in SPECS:
        assert spec.license == "Apache-2.0"
        assert spec.weights_license is not None
        assert "Apache-2.0 (encoder); MIT (k-means" in spec.weights_license
