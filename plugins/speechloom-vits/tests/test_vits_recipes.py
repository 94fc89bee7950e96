"""The recipes that come with the plugin are read, and their networks are possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from speechloom.training.learners import find_learner, find_learners, learner_class
from speechloom.training.recipe import check_settings, read_recipe
from speechloom_vits.learner import VitsSettings
from speechloom_vits.xe_network import XESpeech

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(path: Path) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("transformers")
    recipe = read_recipe(path)
    learner = learner_class(find_learner(recipe.learner, find_learners()))
    settings: Any = check_settings(learner.settings_type, recipe, path)
    if isinstance(settings, VitsSettings):
        settings.config(symbols=40)
        return
    sizes = settings.network(symbols=40, content_size=384, languages=tuple(settings.frontends))
    modules = {f"voice.{name}" for name, _ in XESpeech(sizes).named_modules()}
    assert modules.issuperset(recipe.freeze)


def test_sizes_of_a_recipe_are_the_published_ones_but_for_what_it_says() -> None:
    pytest.importorskip("numba")
    pytest.importorskip("transformers")
    from speechloom_vits.xe_learner import XESettings

    given = {"frontends": {"en": "one"}, "content": "whisper"}
    known: Any = {"symbols": 40, "content_size": 384, "languages": ("en",)}
    published = XESettings.model_validate(given).network(**known).voice
    assert published.speaker_size == 256
    assert published.hop == 320
    smaller = {"voice": {"hidden": 64, "decoder": {"channels": 128}}}
    small = XESettings.model_validate({**given, "sizes": smaller}).network(**known).voice
    changed = {"hidden": 64, "decoder": published.decoder.model_copy(update={"channels": 128})}
    assert small == published.model_copy(update=changed)
    mute = {"voice": {"decoder": {"speaker_size": 0}}}
    with pytest.raises(ValueError, match="that of the style, must be above 0"):
        XESettings.model_validate({**given, "sizes": mute}).network(**known)
