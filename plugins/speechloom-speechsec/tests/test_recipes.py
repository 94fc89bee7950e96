"""The recipes that come with the plugin are read, and build what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechloom_speechsec.learner import SpeechSECLearner, SpeechSECSettings
from speechloom_speechsec.masked_learner import MaskedSettings
from speechloom_speechsec.model import SpeechSEC
from speechloom_speechsec.text_learner import SpeechSECTextLearner

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
LEARNERS = {"speechsec": SpeechSECLearner, "speechsec-text": SpeechSECTextLearner}
MILLIONS = {
    "hubert-dac": 79.2,
    "published-size": 354.5,
    "speechtokenizer": 77.1,
    "starter-text-to-units": 6.24,
    "starter-units-to-codes": 21.2,
}


def test_there_is_a_recipe_of_each_kind() -> None:
    assert sorted(path.stem for path in RECIPES) == sorted(MILLIONS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_and_has_its_size(path: Path) -> None:
    pytest.importorskip("yaml")
    from speechloom.training.recipe import check_settings, read_recipe

    recipe = read_recipe(path)
    settings = check_settings(LEARNERS[recipe.learner].settings_type, recipe, path)
    assert isinstance(settings, MaskedSettings)
    assert settings.decode.config().steps
    size = dict(content_vocab=512, codebooks=8, codebook_size=1024, voice_dim=128)
    if recipe.learner == "speechsec-text":
        size = dict(content_vocab=123, codebooks=1, codebook_size=512, voice_dim=0)
    else:
        assert isinstance(settings, SpeechSECSettings)
        if settings.codec == "dac-16khz":
            size |= {"codebooks": 12}
        weights = settings.masks.level_weights
        assert len(weights) in (0, size["codebooks"])
    network = SpeechSEC(settings.network.between(**size), seed=None)
    assert {one.device for one in network.parameters()} == {torch.device("meta")}
    millions = sum(one.numel() for one in network.parameters()) / 1e6
    assert millions == pytest.approx(MILLIONS[path.stem], rel=0.01)
