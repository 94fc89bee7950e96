"""The ``tacotron2`` learner: teacher-forced, with guided attention.

Loss: L1 and L2 of the mel before and after the post-net, the stop token's cross entropy, and the
guided attention of Tachibana et al. 2018 (arXiv:1710.08969), which pulls the attention to the
diagonal while it is still being found.

Two settings make what is learnt more like what is done in speaking. `withheld` keeps a share of the
frames from the decoder, in training and in speaking: the network then speaks from the text, and a
mistake in one of its frames leads to few in the next. Liu et al. 2019 (arXiv:1909.01145) put the
mean frame in the place of true ones in training; here the pre-net says nothing instead, as it does
before the first frame. `held` holds the attention to the phones of each frame where an alignment is
known, as it is held when the timing is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from speechloom.errors import UsageError
from speechloom.mel import RTVC_SYNTHESIZER, MelSpec
from speechloom.protocols import Frontend, SpeakerEncoder
from speechloom.registry import default_registry
from speechloom.spec import ComponentSpec, FrontendFacts, SpeakerEncoderFacts
from speechloom.training.example import Example
from speechloom.training.learner import Batch, ExportTarget, Item, Learner
from speechloom.values import pad_stack
from speechloom_sv2tts._spec import tacotron2_spec
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import windows
from speechloom_sv2tts.tacotron2 import PRENET_KEPT, Tacotron2, inside

__all__ = ["Sizes", "Tacotron2Learner", "Tacotron2Settings", "guide"]


class Sizes(BaseModel):
    """What of `TacotronConfig` a recipe may choose; the rest follows from the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reduction: int = Field(default=2, gt=0)
    embedding: int = Field(default=512, gt=0)
    encoder: int = Field(default=512, gt=0)
    prenet: int = Field(default=256, gt=0)
    attention_rnn: int = Field(default=1024, gt=0)
    decoder_rnn: int = Field(default=1024, gt=0)
    attention: int = Field(default=128, gt=0)
    location_filters: int = Field(default=32, gt=0)
    location_kernel: int = Field(default=31, gt=0)
    postnet: int = Field(default=512, gt=0)


class Tacotron2Settings(BaseModel):
    """Settings of the learner.

    Attributes:
        frontend: id of the front end that gives the phones. Examples with an alignment take their
            phones from it; those must be phones of this front end.
        voice: id of the speaker encoder whose vector of each recording is given; None trains
            without voices.
        mel: kind of the mel, which the vocoder must take; the project's own by default.
        sizes: of the network.
        guided: weight of the guided attention; 0 for none.
        guided_width: how far from the diagonal the attention is left alone, as a share of the
            sentence.
        guided_steps: the weight falls in a line to 0 by this step.
        held: share of the examples with an alignment in which the attention is held to the phones
            of each frame, as it is when speaking in a given timing.
        withheld: as in `TacotronConfig`. Towards 1, what is learnt is what is done in speaking.
        max_seconds: longer sentences are not claimed by the exported component.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    frontend: str = "starter-english"
    voice: str | None = "ge2e"
    mel: str = RTVC_SYNTHESIZER.kind
    sizes: Sizes = Sizes()
    guided: float = Field(default=1.0, ge=0)
    guided_width: float = Field(default=0.2, gt=0)
    guided_steps: int = Field(default=20_000, gt=0)
    held: float = Field(default=0.0, ge=0, le=1)
    withheld: float = Field(default=0.0, ge=0, le=1)
    max_seconds: float = Field(default=15.0, gt=0)

    @model_validator(mode="after")
    def _mel_is_known(self) -> Tacotron2Settings:
        MelSpec.from_kind(self.mel)
        return self


class Tacotron2Learner(Learner):
    """Trains a `Tacotron2`."""

    settings_type = Tacotron2Settings
    network: Tacotron2
    watch = {
        "mel": "L1 of the mel: 0.8 at first on a scale of -4..4, 0.2 to 0.3 in the end",
        "stop": "0.7 at first, below 0.02",
        "guided": "falls below 0.02 when the attention has found the diagonal",
        "focus": "share of the attention on its best symbol: 0.1 at first, above 0.6 in the end",
    }

    def __init__(self, settings: Tacotron2Settings, *, seed: int) -> None:
        self.settings = settings
        registry = default_registry()
        self._frontend = registry.get("frontend", settings.frontend)
        facts = cast(ComponentSpec, self._frontend.spec).facts
        assert isinstance(facts, FrontendFacts)
        self._facts = facts
        self._mel = MelSpec.from_kind(settings.mel)
        self._voice = _voice_facts(settings.voice)
        # Id 0 is padding; phones follow in the order of their alphabet.
        self._ids = {phone: number for number, phone in enumerate(facts.phones, 1)}
        self.network = Tacotron2(
            TacotronConfig(
                symbols=len(facts.phones) + 1,
                bands=self._mel.bands,
                voice=self._voice.size if self._voice else 0,
                withheld=settings.withheld,
                **settings.sizes.model_dump(),
            )
        )

    # Data -----------------------------------------------------------------------------------

    def cache_key(self) -> str:
        """The mel, the front end's version and the voice's weights."""
        voice: dict[str, Any] = {}
        if self.settings.voice is not None:
            encoder = default_registry().load("speaker_encoder", self.settings.voice)
            voice = {"options": encoder.spec.options, "weights": dict(encoder.weights)}
        frontend = [self._frontend.full_id, self._frontend.version, self._facts.alphabet]
        return json.dumps(["tacotron2-2", self._mel.kind, frontend, voice], sort_keys=True)

    def prepare(self, example: Example) -> Item:
        """Symbols int64 [N], mel float32 [bands, F], and what else there is.

        That is the voice, float32 [D], and of an aligned example ``said``, int64 [F]: which symbol
        each frame says.
        """
        audio = example.load()
        ids = [self._ids[phone] for phone in self._phones(example)]
        item = {
            "symbols": torch.tensor(ids, dtype=torch.int64),
            "mel": self._mel.compute(audio).values[0].contiguous(),
        }
        if example.alignment is not None:
            ends = [end for _, end in example.alignment]
            middles = (torch.arange(item["mel"].shape[-1]) + 0.5) / float(self._mel.frame_rate)
            said = torch.searchsorted(torch.tensor(ends), middles, right=True)
            item["said"] = said.clamp(max=len(ids) - 1)
        if self.settings.voice is not None:
            encoder = cast(
                SpeakerEncoder, default_registry().load("speaker_encoder", self.settings.voice)
            )
            item["voice"] = torch.from_numpy(encoder.embed([audio])[0].vector.copy())
        return item

    def _phones(self, example: Example) -> list[str]:
        if example.alignment is not None:
            phones = [phone for phone, _ in example.alignment]
        elif example.text is not None:
            frontend = cast(Frontend, default_registry().load("frontend", self.settings.frontend))
            sentences = frontend.phonemize(example.text)
            phones = [phone for one in sentences for phone in one.symbols]
        else:
            raise UsageError("an example needs a text or an alignment; give it one")
        unknown = sorted(set(phones) - set(self._ids))
        if unknown or not phones:
            raise UsageError(
                f"the phones {', '.join(unknown) or '(none)'} are not those of "
                f"{self.settings.frontend}: {', '.join(self._facts.phones)}"
            )
        return phones

    def length(self, item: Item) -> int:
        """Frames of the mel."""
        return int(item["mel"].shape[-1])

    def collate(self, items: list[Item], rng: np.random.Generator) -> Batch:
        """Padded to whole decoder steps; padding of the mel is silence."""
        reduction = self.network.config.reduction
        frames = torch.tensor([item["mel"].shape[-1] for item in items])
        mel = pad_stack([item["mel"] for item in items], self._mel.silence)
        missing = -mel.shape[-1] % reduction
        batch: Batch = {
            "symbols": pad_stack([item["symbols"] for item in items]),
            "mel": functional.pad(mel, (0, missing), value=self._mel.silence),
            "frames": frames,
            "steps": -(-frames // reduction),
            "lengths": torch.tensor([len(item["symbols"]) for item in items]),
        }
        if "voice" in items[0]:
            batch["voices"] = torch.stack([item["voice"] for item in items])
        batch["held"] = self._held(items, batch, rng)
        return batch

    def _held(self, items: list[Item], batch: Batch, rng: np.random.Generator) -> Tensor:
        """Where the attention may look, bool [B, S, N]; anywhere, where it is not held."""
        everywhere = inside(batch["lengths"], batch["symbols"].shape[1])[:, None]
        everywhere = everywhere.expand(-1, int(batch["steps"].max()), -1)
        held = torch.from_numpy(rng.random(len(items)) < self.settings.held)
        held &= torch.tensor(["said" in item for item in items])
        if not held.any():
            return everywhere
        said = [item.get("said", item["mel"].new_zeros(1, dtype=torch.int64)) for item in items]
        around = windows(said, batch["lengths"], self.network.config.reduction)
        around = functional.pad(
            around, (0, 0, 0, everywhere.shape[1] - around.shape[1]), value=True
        )
        return torch.where(held[:, None, None], around & everywhere, everywhere)

    # Learning -------------------------------------------------------------------------------

    def loss(
        self, phase: str, batch: Batch, rng: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A scalar: the sum of the losses of the module's docstring."""
        mel, steps = batch["mel"], batch["steps"]
        kept = self._kept(len(mel), int(mel.shape[-1]), rng).to(mel.device)
        symbols = batch["lengths"].cpu()
        said = self.network(
            batch["symbols"], symbols, mel, steps * self.network.config.reduction,
            batch.get("voices"), kept, batch["held"],
        )  # fmt: skip
        valid = inside(batch["frames"], mel.shape[-1])[:, None].expand_as(mel)
        errors = {"coarse": said.coarse - mel, "mel": said.mel - mel}
        absolute = {name: error[valid].abs().mean() for name, error in errors.items()}
        squared = {name: error[valid].square().mean() for name, error in errors.items()}
        stop = _stop_loss(said.stop, steps)
        spoken = inside(steps, said.stop.shape[1])
        wide = guide(symbols, steps.cpu(), self.settings.guided_width).to(mel.device)
        guided = (said.attention * wide).sum(-1)[spoken].mean()
        weight = self.settings.guided * max(0.0, 1 - step / self.settings.guided_steps)
        loss = sum(absolute.values()) + sum(squared.values()) + stop + weight * guided
        numbers = {
            "mel": absolute["mel"],
            "coarse": absolute["coarse"],
            "stop": stop,
            "guided": guided,
            "focus": said.attention.amax(-1)[spoken].mean(),
        }
        return cast(Tensor, loss), {name: value.detach() for name, value in numbers.items()}

    def _kept(self, batch: int, frames: int, rng: torch.Generator) -> Tensor:
        """Which units of the pre-net stay; validation drops them too, as speaking does."""
        config = self.network.config
        steps = (batch, frames // config.reduction)
        kept = torch.rand((*steps, 2, config.prenet), generator=rng) < PRENET_KEPT
        if not config.withheld:
            return kept
        heard = torch.rand(steps, generator=rng) >= config.withheld
        return kept & heard[..., None, None]

    # Keeping --------------------------------------------------------------------------------

    def export(self, target: ExportTarget) -> Sequence[ComponentSpec]:
        """One generator."""
        save_file(
            {name: value.contiguous() for name, value in self.network.state_dict().items()},
            target.folder / "tacotron2.safetensors",
        )
        spec = tacotron2_spec(
            target.checkpoint,
            id=target.id,
            mel=self._mel,
            alphabet=self._facts.alphabet,
            symbols=self._ids,
            config=self.network.config,
            voice=self._voice.voice if self._voice else None,
            languages=self._facts.languages,
            max_seconds=self.settings.max_seconds,
            weights_license=target.weights_license,
        )
        return [spec.model_copy(update={"install": target.install})]


def _voice_facts(encoder: str | None) -> SpeakerEncoderFacts | None:
    if encoder is None:
        return None
    spec = cast(ComponentSpec, default_registry().get("speaker_encoder", encoder).spec)
    return cast(SpeakerEncoderFacts, spec.facts)


def guide(symbols: Tensor, steps: Tensor, width: float) -> Tensor:
    """What attention away from the diagonal costs: 1 - exp(-(n/N - s/S)^2 / (2 width^2)).

    Args:
        symbols: int64 [B].
        steps: int64 [B].
        width: as a share of the sentence.

    Returns:
        float32 [B, max S, max N]; 0 in the padding.
    """
    n = torch.arange(int(symbols.max())) / symbols[:, None]
    s = torch.arange(int(steps.max())) / steps[:, None]
    cost = 1 - torch.exp(-((n[:, None] - s[:, :, None]) ** 2) / (2 * width**2))
    there = (n < 1)[:, None] & (s < 1)[:, :, None]
    return cost * there


def _stop_loss(logits: Tensor, steps: Tensor) -> Tensor:
    """Cross entropy; the last step is said to stop, and those before it to go on."""
    at = torch.arange(logits.shape[1], device=logits.device)
    last = (at == steps[:, None] - 1).float()
    spoken = at < steps[:, None]
    every = functional.binary_cross_entropy_with_logits(
        logits, last, reduction="none", pos_weight=logits.new_tensor(STOP_WEIGHT)
    )
    return every[spoken].mean()


STOP_WEIGHT = 8.0
"""Of the one step that stops, beside the hundreds that go on."""
