"""The starter's aligner: Viterbi over the phone posteriors of the content network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechloom.errors import UnsupportedCapability, UsageError
from speechloom.spec import AlignerFacts, ComponentSpec
from speechloom.values import Audio, Phones
from speechloom_starter.align import align
from speechloom_starter.blocks import build_seeded
from speechloom_starter.components.base import StarterComponent, coded, samples_of
from speechloom_starter.content_model import ContentConfig, ContentModel
from speechloom_starter.phones import PAUSE, PHONE_IDS
from speechloom_starter.weights import load_content

__all__ = ["StarterAligner"]


class StarterAligner(StarterComponent):
    """Finds the phones of a known text; pauses may stand between any two words, or nowhere."""

    uses = ("content",)

    def __init__(
        self, spec: ComponentSpec, model: ContentModel, *, trained: bool, device: str = "cpu"
    ) -> None:
        super().__init__(spec, trained=trained)
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterAligner:
        """The shipped content network."""
        return cls(spec, load_content(), trained=True, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterAligner:
        """A tiny network: it aligns, without sense."""
        model = build_seeded(lambda: ContentModel(ContentConfig.tiny()), seed)
        return cls(spec, model, trained=False)

    @torch.inference_mode()
    def align(self, audio: Audio, phones: Sequence[Phones]) -> list[list[tuple[float, float]]]:
        """Start and end in seconds of every phone of consecutive sentences.

        Raises:
            UnsupportedCapability: phones of another alphabet.
            UsageError: no phones, a recording too short for them, or longer than the limit.
        """
        facts = self.spec.facts
        assert isinstance(facts, AlignerFacts)
        for one in phones:
            if one.alphabet != facts.alphabet:
                raise UnsupportedCapability(
                    f"{self.spec.id} takes phones:{facts.alphabet}, not phones:{one.alphabet}"
                )
        if facts.max_seconds is not None and audio.seconds > facts.max_seconds:
            raise UsageError(
                f"{self.spec.id} aligns at most {facts.max_seconds:g} s, but the recording lasts "
                f"{audio.seconds:.0f} s"
            )
        spoken, pauses = _spoken(phones)
        (samples,) = samples_of([audio], self._device)
        posteriors = coded(self._posteriors, samples, self._model.reach_frames)[0].T
        frames = align(posteriors.cpu(), spoken, pauses)
        return _in_seconds(phones, frames, audio.seconds, float(facts.frame_rate))

    def _posteriors(self, samples: Tensor) -> Tensor:
        """Of each phone in each frame, [1, N, F]."""
        posteriors: Tensor = self._model(samples).phone
        return posteriors.transpose(1, 2)


def _spoken(phones: Sequence[Phones]) -> tuple[Tensor, Tensor]:
    """Ids [N] of all phones that are not pauses, and bool [N + 1] where a pause may stand."""
    ids: list[int] = []
    pauses: list[bool] = []
    may_pause = True
    for one in phones:
        starts = {start for start, _ in one.word_spans}
        for at, symbol in enumerate(one.symbols):
            if PHONE_IDS[symbol] == PAUSE:
                may_pause = True
                continue
            pauses.append(may_pause or at in starts)
            ids.append(PHONE_IDS[symbol])
            may_pause = False
    return torch.tensor(ids, dtype=torch.int64), torch.tensor([*pauses, True])


def _in_seconds(
    phones: Sequence[Phones], frames: Tensor, seconds: float, frame_rate: float
) -> list[list[tuple[float, float]]]:
    """Spans per sentence; a pause fills what lies between its neighbours."""
    edges = [
        (min(a / frame_rate, seconds), min(b / frame_rate, seconds)) for a, b in frames.tolist()
    ]
    result = []
    at, before = 0, 0.0
    for one in phones:
        spans = []
        for symbol in one.symbols:
            if PHONE_IDS[symbol] != PAUSE:
                spans.append(edges[at])
                before = edges[at][1]
                at += 1
            else:
                after = edges[at][0] if at < len(edges) else seconds
                spans.append((before, after))
                before = after
        result.append(spans)
    return result
