"""``speechloom hubert``: what it does, and that it is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from speechloom.errors import UsageError, WeightsError
from speechloom.hooks import Hooks
from speechloom.testing.inputs import made_audio
from speechloom_hubert import SPECS, published, spec_for
from speechloom_hubert.commands import hubert
from speechloom_hubert.kmeans import read_kmeans
from speechloom_hubert.published import PUBLISHED, PublishedKMeans, kmeans_folder, published_path
from speechloom_hubert.units import HubertUnits


def run(*words: object) -> str:
    result = CliRunner().invoke(hubert, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def array(tmp_path: Path) -> Path:
    path = tmp_path / "km.npy"
    np.save(path, np.random.default_rng(0).standard_normal((7, 16)))
    return path


def test_the_command_line_finds_it() -> None:
    app = typer.Typer()
    hooks = Hooks(environ={})
    hooks.register_commands(app)
    assert "hubert" in [group.name for group in app.registered_groups]
    (record,) = [one for one in hooks.records() if one.name == "hubert"]
    assert record.error is None


def test_fit_makes_units_that_the_tokenizer_takes(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    audio, folder, output = tmp_path / "audio", checkpoint(), tmp_path / "km.safetensors"
    audio.mkdir()
    for i in range(3):
        soundfile.write(audio / f"{i}.wav", made_audio(20_000, number=i).samples[0], 16_000)
    words = "--layer 2 --clusters 5 --batch-frames 80 --passes 2 --workers 2 --seed 4".split()
    shown = run("fit", audio, "-o", output, "--encoder", folder, *words)
    assert "step 1: " in shown
    assert f"[5, 16], layer 2 of {folder}" in shown
    tokenizer = HubertUnits.from_pretrained(spec_for(folder, layer=2, kmeans=output))
    assert set(tokenizer.encode([made_audio(30_000)]).item(0).tolist()) <= set(range(5))


def test_convert_writes_what_it_was_told(array: Path, tmp_path: Path) -> None:
    output = tmp_path / "km.safetensors"
    facts = "--layer 6 --encoder lab/model --family wavlm --frame-rate 25".split()
    assert "[7, 16]" in run("convert", array, output, *facts)
    units = read_kmeans(output)
    assert np.array_equal(units.centroids, np.load(array).astype(np.float32))
    assert (units.layer, units.encoder, units.family, units.frame_rate) == (
        6, "lab/model", "wavlm", 25,
    )  # fmt: skip


def test_published_kmeans_go_where_their_tokenizer_looks(
    array: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = SPECS[-1].id
    digest = hashlib.sha256(array.read_bytes()).hexdigest()
    monkeypatch.setenv("SPEECHLOOM_KMEANS", str(tmp_path / "kmeans"))
    with pytest.raises(WeightsError, match=f"is not the published k-means of {id_}"):
        run("convert", array, "--for", id_)
    known = {**PUBLISHED, id_: PublishedKMeans("https://example.org/km.npy", digest)}
    monkeypatch.setattr(published, "PUBLISHED", known)
    run("convert", array, "--for", id_)
    units = read_kmeans(published_path(id_))
    assert (units.layer, units.family, units.encoder) == (9, "hubert", "facebook/hubert-base-ls960")


def test_where_published_kmeans_are_looked_for() -> None:
    assert kmeans_folder({"SPEECHLOOM_KMEANS": "/here"}) == Path("/here")
    assert kmeans_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/speechloom/kmeans")
    assert kmeans_folder({}) == Path.home() / ".cache/speechloom/kmeans"
    assert set(PUBLISHED) == {spec.id for spec in SPECS}
    with pytest.raises(WeightsError, match=r"make the spec with `spec_for\("):
        published_path("unknown")


def test_senseless_commands_are_refused(array: Path, tmp_path: Path) -> None:
    output = tmp_path / "km.safetensors"
    with pytest.raises(UsageError, match="either the path of the output, or --for"):
        run("convert", array)
    with pytest.raises(UsageError, match="--family must be hubert or wavlm, but is cpc"):
        run("convert", array, output, "--family", "cpc")
    with pytest.raises(UsageError, match="--frame-rate must be a number"):
        run("convert", array, output, "--frame-rate", "1/0")
    with pytest.raises(UsageError, match="--for must be one of hubert-base"):
        run("convert", array, "--for", "other")
    with pytest.raises(WeightsError, match="none.npy does not exist"):
        run("convert", tmp_path / "none.npy", "--for", SPECS[0].id)
    with pytest.raises(UsageError, match="must end in .safetensors"):
        run("convert", array, tmp_path / "km.npy")
    with pytest.raises(UsageError, match="the folder .* does not exist"):
        run("convert", array, tmp_path / "none" / "km.safetensors")
