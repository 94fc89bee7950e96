"""The stages in order, each run once, each resumable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from speechloom.errors import UsageError
from speechloom.training.checkpoints import save_atomically
from speechloom_speechsec.model import SpeechSEC
from speechloom_starter.codec_model import CodecModel
from speechloom_starter.content_model import ContentModel
from speechloom_starter.recipe.config import RecipeConfig
from speechloom_starter.recipe.corpus import make_corpus
from speechloom_starter.recipe.data import Corpus
from speechloom_starter.recipe.encode import EncodedCorpus, Networks, encode_corpus, learn_units
from speechloom_starter.recipe.export import export
from speechloom_starter.recipe.loop import Stage, run_stage
from speechloom_starter.recipe.said import said_units, say_corpus
from speechloom_starter.recipe.stage_codec import CodecStage
from speechloom_starter.recipe.stage_content import ContentStage
from speechloom_starter.recipe.stage_durations import DurationStage
from speechloom_starter.recipe.stage_generate import TextToUnitsStage, UnitsToCodesStage
from speechloom_starter.recipe.stage_polish import PolishStage
from speechloom_starter.recipe.stage_voice import VoiceStage
from speechloom_starter.voice_model import VoiceEncoder
from speechloom_starter.weights import NAMES, read_tensors

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """Everything a run needs to know.

    Attributes:
        config: all numbers.
        text: one sentence a line.
        folder: results: ``weights/``, and ``work/`` with corpus, checkpoints and losses.
        real_speech: optional folder of recordings (wav or flac) to train on as well.
        checkpoint_seconds: time between checkpoints.
        start_from: optional folder of weights, where every training begins instead of from
            nothing; the stages that the configuration calls kept take them over as they are.
    """

    config: RecipeConfig
    text: Path
    folder: Path
    real_speech: Path | None = None
    checkpoint_seconds: float = 120.0
    start_from: Path | None = None

    @property
    def work(self) -> Path:
        """Where unfinished things lie."""
        return self.folder / "work"

    def stages(self) -> dict[str, Callable[[], None]]:
        """All stages by name, in the order in which they run."""
        stages: dict[str, Callable[[], None]] = {
            "corpus": self._corpus,
            "content": lambda: self._train(self.content_stage()),
            "codec": lambda: self._train(self.codec_stage()),
            "voice": lambda: self._train(self.voice_stage()),
            "durations": lambda: self._train(self.duration_stage()),
            "units": self._units,
            "encode": self._encode,
            "t2u": lambda: self._train(self.t2u_stage()),
            "said": self._say,
            "u2c": lambda: self._train(self.u2c_stage()),
            "polish": lambda: self._train(self.polish_stage()),
            "export": lambda: export(self),
        }
        return stages | {name: partial(self._keep, name) for name in self.config.kept}

    def run(self, only: str | None = None) -> None:
        """Run all stages that are not finished, or just one (again behind its checkpoint).

        Raises:
            UsageError: there is no stage of that name, or it needs one that has not run.
        """
        stages = self.stages()
        if only is not None and only not in stages:
            raise UsageError(f"there is no stage {only!r}; the stages are {', '.join(stages)}")
        for name, run in stages.items():
            marker = self.work / "done" / name
            if only not in (None, name) or (only is None and marker.exists()):
                continue
            run()
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()

    def corpus(self, split: str = "train") -> Corpus:
        """The corpus of the ``corpus`` stage."""
        return Corpus(self.work / "corpus", split)

    def state(self, stage: str) -> dict[str, Any]:
        """The newest checkpoint of a stage.

        Raises:
            UsageError: the stage has not run.
        """
        path = self.work / f"{stage}.pt"
        if not path.exists():
            raise UsageError(f"{path} is missing: run the stage {stage!r} first")
        state: dict[str, Any] = torch.load(path, weights_only=True)
        return state

    def trained(self, network: Network, stage: str) -> Network:
        """Fill ``network`` with the newest checkpoint of ``stage``, for inference."""
        network.load_state_dict(self.state(stage)["network"])
        return network.eval().requires_grad_(False)

    def codebook(self) -> Tensor:
        """The content units."""
        codebook: Tensor = self.state("units")["codebook"]
        return codebook

    def encoded(self) -> EncodedCorpus:
        """The encoded corpus of the ``encode`` stage."""
        return EncodedCorpus(self.work / "encoded")

    def content_stage(self) -> ContentStage:
        """The training of the content network."""
        return ContentStage(self.corpus(), self.config.content_model, self.config.content)

    def codec_stage(self) -> CodecStage:
        """The training of the codec."""
        config = self.config
        return CodecStage(self.corpus(), config.codec_model, config.codec, config.codec_free_steps)

    def voice_stage(self) -> VoiceStage:
        """The training of the voice encoder."""
        return VoiceStage(self.corpus(), self.config.voice_model, self.config.voice)

    def duration_stage(self) -> DurationStage:
        """The training of the duration network."""
        return DurationStage(self.corpus(), self.config.duration_model, self.config.durations)

    def t2u_stage(self) -> TextToUnitsStage:
        """The training of the text-to-units generator."""
        config = self.config
        return TextToUnitsStage(self.corpus(), self.encoded(), config.t2u_model, config.t2u)

    def u2c_stage(self) -> UnitsToCodesStage:
        """The training of the units-to-codes generator."""
        config = self.config
        return UnitsToCodesStage(
            self.corpus(),
            self.encoded(),
            said_units(self.work / "said"),
            config.u2c_model,
            config.u2c,
            config.said_share,
        )

    def polish_stage(self) -> PolishStage:
        """The training of the decoder against discriminators."""
        config = self.config
        codec = self.trained(CodecModel(config.codec_model), "codec")
        return PolishStage(
            self.corpus(),
            codec,
            config.polish,
            config.polish_alone_steps,
            config.polish_adversarial,
        )

    def _corpus(self) -> None:
        make_corpus(self.config.corpus, self.text, self.work / "corpus", self.real_speech)

    def _train(self, stage: Stage) -> None:
        # Polishing begins at the codec of its own run.
        if self.start_from is not None and stage.name != "polish":
            stage.network.load_state_dict(read_tensors(stage.name, self.start_from)[0])
        run_stage(stage, self.work, self.checkpoint_seconds)

    def _keep(self, name: str) -> None:
        if name not in NAMES or self.start_from is None:
            raise UsageError(
                f"the stage {name!r} cannot be kept: give a folder of weights to start from, and "
                f"keep only {', '.join(NAMES)}"
            )
        tensors, _ = read_tensors(name, self.start_from)
        self.work.mkdir(parents=True, exist_ok=True)
        state = tensors if name == "units" else {"network": tensors}
        save_atomically(state, self.work / f"{name}.pt")

    def _units(self) -> None:
        config = self.config
        content = self.trained(ContentModel(config.content_model), "content")
        count = config.t2u_model.codebook_size
        codebook = learn_units(
            content, self.corpus(), count, config.unit_utterances, config.unit_seed
        )
        save_atomically({"codebook": codebook}, self.work / "units.pt")

    def _say(self) -> None:
        network = self.trained(SpeechSEC(self.config.t2u_model), "t2u")
        say_corpus(network, self.corpus(), self.encoded(), self.work / "said")

    def _encode(self) -> None:
        config = self.config
        networks = Networks(
            content=self.trained(ContentModel(config.content_model), "content"),
            codebook=self.codebook(),
            codec=self.trained(CodecModel(config.codec_model), "codec"),
            voice=self.trained(VoiceEncoder(config.voice_model), "voice"),
        )
        encode_corpus(networks, self.corpus(), self.work / "encoded")
