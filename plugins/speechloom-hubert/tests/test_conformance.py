"""The conformance kit on what entry points announce, and on a spec of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from speechloom.registry import Registry
from speechloom.testing import check_plugin
from speechloom.testing.inputs import made_audio
from speechloom_hubert import SPECS, spec_for
from speechloom_hubert.units import HubertUnits


def test_published_tokenizers_pass_every_check() -> None:
    statuses = {result.status for result in check_plugin(SPECS[-1])}
    assert statuses <= {"passed", "skipped"}


def test_one_of_ones_own_is_registered_and_loaded(
    checkpoint: Callable[..., Path], kmeans: Callable[..., Path]
) -> None:
    spec = spec_for(checkpoint("wavlm"), layer=2, kmeans=kmeans(), id="mine")
    registry = Registry(entry_points=(), environ={})
    registry.register(HubertUnits, spec=spec)
    tokens = registry.load("tokenizer", "mine").encode([made_audio(8_000)])  # type: ignore[attr-defined]
    assert (tokens.kind, tokens.ids.shape) == ("tokens:mine", (1, 25))


def test_entry_points_announce_the_specs() -> None:
    found = {spec.id: spec for spec in Registry(environ={}).specs("tokenizer")}
    assert {spec.id: spec for spec in SPECS}.items() <= found.items()


def test_licences_are_named() -> None:
    for spec in SPECS:
        assert spec.license == "Apache-2.0"
        assert spec.weights_license is not None
        assert "Apache-2.0 (encoder); MIT (k-means" in spec.weights_license
