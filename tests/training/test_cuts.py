"""Cut sets, written by lhotse itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speechloom.errors import UsageError
from speechloom.training.cuts import read_cuts
from speechloom.training.manifest import read_manifest
from speechloom.training.train import train

WriteRecipe = Callable[..., Path]


@pytest.fixture
def lhotse() -> Any:
    return pytest.importorskip("lhotse", reason="cut sets are read by lhotse")


def cut_set(lhotse: Any, corpus: Path, **changes: Any) -> Any:
    """The corpus as a cut set with a supervision each, and an alignment of the first."""
    cuts = []
    for example in read_manifest(corpus):
        recording = lhotse.Recording.from_file(example.audio)
        said = lhotse.SupervisionSegment(
            id=recording.id,
            recording_id=recording.id,
            start=0.0,
            duration=recording.duration,
            text=example.text,
            speaker=example.speaker,
            language="en",
        )
        cuts.append(
            lhotse.MonoCut(
                id=recording.id,
                start=0.0,
                duration=recording.duration,
                channel=0,
                recording=recording,
                supervisions=[said],
            )
        )
    return lhotse.CutSet.from_cuts(cuts)


@pytest.mark.parametrize("name", ["cuts.jsonl.gz", "cuts.jsonl"])
def test_a_cut_set_gives_the_examples_of_its_manifest(
    lhotse: Any, corpus: Path, tmp_path: Path, name: str
) -> None:
    cut_set(lhotse, corpus).to_file(tmp_path / name)
    for ours, theirs in zip(read_cuts(tmp_path / name), read_manifest(corpus), strict=True):
        assert (ours.audio, ours.text, ours.speaker, ours.language, ours.start) == (
            theirs.audio, theirs.text, theirs.speaker, theirs.language, theirs.start,
        )  # fmt: skip
        assert ours.load().samples.tolist() == theirs.load().samples.tolist()


def test_a_part_of_a_recording_is_that_part(lhotse: Any, corpus: Path, tmp_path: Path) -> None:
    cut = cut_set(lhotse, corpus)[2].truncate(offset=0.05, duration=0.1)
    item = lhotse.supervision.AlignmentItem
    cut.supervisions[0].alignment = {"phone": [item("l", 0.0, 0.04), item("aa", 0.04, 0.06)]}
    lhotse.CutSet.from_cuts([cut]).to_file(tmp_path / "c.jsonl.gz")
    (example,) = read_cuts(tmp_path / "c.jsonl.gz")
    assert (example.start, example.end) == (0.05, 0.15)
    assert example.alignment == (("l", 0.04), ("aa", 0.1))
    assert example.load().samples[0].tolist() == cut.load_audio()[0].tolist()


def test_cuts_that_cannot_be_used_are_reported_together(
    lhotse: Any, corpus: Path, tmp_path: Path
) -> None:
    cuts = list(cut_set(lhotse, corpus))
    cuts[1] = cuts[1].pad(duration=2.0)
    cuts[3] = cuts[3].perturb_speed(1.1)
    cuts[5].supervisions.append(cuts[5].supervisions[0])
    path = tmp_path / "c.jsonl.gz"
    lhotse.CutSet.from_cuts(cuts).to_file(path)
    with pytest.raises(UsageError) as caught:
        read_cuts(path)
    message = str(caught.value)
    assert message.startswith("3 cuts cannot be used: ")
    assert "has no single recording" in message
    assert "is changed while it is read" in message
    assert "has 2 supervisions; cut them apart" in message


def test_something_else_is_no_cut_set(lhotse: Any, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl.gz").write_bytes(b"RIFF")
    with pytest.raises(UsageError, match="cannot be read as a lhotse cut set"):
        read_cuts(tmp_path / "c.jsonl.gz")


def test_training_on_cuts(
    lhotse: Any, corpus: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    cut_set(lhotse, corpus).to_file(tmp_path / "c.jsonl.gz")
    recipe = write_recipe(data={"cuts": "c.jsonl.gz", "validation": "c.jsonl.gz"}, steps=2)
    assert train(recipe, run=tmp_path / "run", cpu=True, quiet=True).step == 2
