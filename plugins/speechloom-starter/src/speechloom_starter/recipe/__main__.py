"""``python -m speechloom_starter.recipe TEXTFILE OUTDIR``: from a text file to weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from speechloom_starter.recipe.config import RecipeConfig
from speechloom_starter.recipe.pipeline import Recipe


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m speechloom_starter.recipe", description=__doc__)
    made.add_argument("text", type=Path, help="text file, one sentence a line")
    made.add_argument("folder", type=Path, help="where corpus, checkpoints and weights go")
    made.add_argument("--real-speech", type=Path, help="folder of recordings to train on as well")
    made.add_argument("--steps-scale", type=float, default=1.0, help="factor on all step counts")
    made.add_argument("--only", metavar="STAGE", help="run just this stage")
    made.add_argument("--config", type=Path, help="a RecipeConfig as JSON instead of the default")
    made.add_argument("--start-from", type=Path, help="folder of weights where trainings begin")
    made.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    made.add_argument("--checkpoint-seconds", type=float, default=120.0)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the recipe; a run that was killed goes on when it is started again."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    config = RecipeConfig()
    if options.config is not None:
        config = RecipeConfig.model_validate_json(options.config.read_text())
    recipe = Recipe(
        config=config if options.steps_scale == 1.0 else config.scaled(options.steps_scale),
        text=options.text,
        folder=options.folder,
        real_speech=options.real_speech,
        checkpoint_seconds=options.checkpoint_seconds,
        start_from=options.start_from,
    )
    recipe.run(options.only)


if __name__ == "__main__":
    main()
