"""Recipes: what is wrong with one is said with file and key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from speechloom.errors import UsageError
from speechloom.training.recipe import (
    RecipePath,
    check_settings,
    from_record,
    read_recipe,
    recorded,
)

GOOD = """\
learner: toy
data: {manifest: data/train.jsonl}
batch: {frames: 100}
steps: 10
"""


class Settings(BaseModel):
    layers: int = 2
    codebooks: RecipePath | None = None


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def test_a_short_recipe_has_defaults_and_paths_from_its_own_folder(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, GOOD))
    assert recipe.data.manifest == tmp_path / "data" / "train.jsonl"
    assert recipe.data.cache == tmp_path / "cache"
    assert (recipe.precision, recipe.ema, recipe.seed, recipe.accumulate) == ("auto", None, 0, 1)


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "optimizer: {learning_rate: 1e-4}\n")
    assert read_recipe(path).optimizer.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "stesp: 3\n", r"r\.yaml: stesp: there is no such key"),
        (GOOD.replace("steps: 10", ""), r"r\.yaml: steps: is missing"),
        (GOOD.replace("10", "-1"), r"steps: input should be greater than 0, but is -1"),
        (GOOD + "precision: fp16\n", r"precision: input should be 'auto', 'fp32' or 'bf16'"),
        (GOOD + "ema: 1.5\n", r"ema: input should be less than 1, but is 1.5"),
        (GOOD + "optimizer: {learning_rate: .nan}\n", r"optimizer.learning_rate: .*nan"),
        (GOOD + "optimizer: {betas: [0.9, 2]}\n", r"optimizer.betas.1: .*less than 1"),
        (
            GOOD.replace("manifest", "cuts: c.gz, manifest"),
            r"data: give either manifest .* or cuts",
        ),
        (GOOD + "steps: 11\n", r"r\.yaml:5: the key 'steps' stands twice"),
        (GOOD + "a: [\n", r"r\.yaml:\d: not YAML"),
        ("- a\n", r"a recipe is a mapping .*, not list"),
        ("", r"a recipe is a mapping .*, not empty"),
        ("\tlearner: x", r"r\.yaml:1: not YAML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(write(tmp_path, text))


def test_all_wrong_keys_are_named_together(tmp_path: Path) -> None:
    text = GOOD.replace("steps: 10", "steps: no\nseed: -1\nunknown: 1")
    with pytest.raises(UsageError, match=r"steps: .*; seed: .*; unknown: "):
        read_recipe(write(tmp_path, text))


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the recipe .*nowhere.yaml cannot be read"):
        read_recipe(tmp_path / "nowhere.yaml")


def test_settings_are_checked_by_the_learner(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "settings: {layers: many}\n")
    with pytest.raises(UsageError, match=r"r\.yaml: settings.layers: .*integer.*'many'"):
        check_settings(Settings, read_recipe(path), path)


def test_a_record_does_not_know_where_the_recipe_lies(tmp_path: Path) -> None:
    records = []
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        path = write(
            folder, GOOD + "settings: {codebooks: ../c.safetensors}\nvalidate: {every: 3}\n"
        )
        recipe = read_recipe(path)
        settings = check_settings(Settings, recipe, path)
        assert isinstance(settings, Settings)
        assert settings.codebooks == tmp_path / "c.safetensors"
        records.append(recorded(recipe, settings, folder))
        assert from_record(records[-1], folder).data == recipe.data
    assert records[0] == records[1]
    assert records[0]["settings"] == {"layers": 2, "codebooks": "../c.safetensors"}
    assert records[0]["validate"] == {"every": 3}


def test_the_documented_recipe_shows_the_defaults(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    shown = read_recipe(write(tmp_path, blocks[0])).model_dump()
    defaults = read_recipe(write(tmp_path, GOOD)).model_dump()
    own = {"learner", "data", "steps", "ema"}
    for name in shown.keys() - own - {"batch", "optimizer"}:
        assert shown[name] == defaults[name], name
    assert {**shown["batch"], "frames": 100} == defaults["batch"]
    assert {**shown["optimizer"], "warmup": 0} == defaults["optimizer"]
