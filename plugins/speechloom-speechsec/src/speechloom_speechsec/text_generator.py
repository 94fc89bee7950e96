"""SpeechSEC from phones: content units of text, and how long each phone lasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from speechloom.claims import check_phones
from speechloom.decoding import DecodeConfig, ExecutionConfig
from speechloom.errors import UnsupportedCapability
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Canvas, Phones, Voice
from speechloom_speechsec.config import DurationConfig
from speechloom_speechsec.convnext import build_seeded
from speechloom_speechsec.duration_model import DurationModel
from speechloom_speechsec.generator import SpeechSECGenerator, tiny_for
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC
from speechloom_speechsec.thirds import thirds_of_segments
from speechloom_speechsec.weights import read_checkpoint

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SpeechSECTextGenerator"]


class SpeechSECTextGenerator(SpeechSECGenerator):
    """Phones to content units, and how long each phone lasts.

    The text side of the paper is not described; this one is ours: the same masked network with one
    level, over phones that are spread over their frames, and a duration network beside it.

    Args:
        spec: its facts name one alphabet of phones, and tokens.
        network: takes `thirds_of_segments` of the phones.
        lengths: the duration network.
        phones: the alphabet in the order of its ids.
        weights: sha256 by file name.
        decode: passes, schedule and sampling.
        free: the same for canvases without content.
        device: where it runs.
        execution: see `SpeechSECGenerator`.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: SpeechSEC,
        lengths: DurationModel,
        phones: Sequence[str],
        *,
        weights: Mapping[str, str] | None = None,
        decode: DecodeConfig | None = None,
        free: DecodeConfig | None = None,
        device: str = "cpu",
        execution: ExecutionConfig | None = None,
    ) -> None:
        super().__init__(
            spec,
            network,
            weights=weights,
            decode=decode,
            free=free,
            device=device,
            execution=execution,
        )
        self._lengths = lengths.eval().requires_grad_(False)
        self._ids = {symbol: index for index, symbol in enumerate(phones)}

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """The checkpoint that ``spec.options`` names; see `SpeechSECGenerator.from_pretrained`."""
        loaded = read_checkpoint(spec)
        config = loaded.config
        assert loaded.durations is not None, "a configuration with phones has durations"
        return cls(
            spec,
            loaded.generator,
            loaded.durations,
            config.phones,
            weights=loaded.weights,
            decode=config.decode.config(),
            free=config.free.config() if config.free else None,
            device=device,
        )

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """Tiny networks of the same alphabet and tokens."""
        phones = spec.options["phones"]
        config = DurationConfig(phones=len(phones), width=16, depth=1)
        lengths = build_seeded(lambda: DurationModel(config), seed)
        return cls(spec, SpeechSEC(tiny_for(spec), seed=seed), lengths, phones)

    @torch.inference_mode()
    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Frames of each phone, the same for every voice.

        Args:
            phones: B utterances.
            rate: speed of speech; 2.0 is twice as fast.
            voices: one per utterance; they change nothing.
            seed: nothing is drawn.

        Raises:
            UnsupportedCapability: phones of another alphabet, or another rate than 1 where the
                facts do not name the style.
            UsageError: a rate that is not positive.
        """
        check_phones(self.spec, phones, rate, voices)
        facts = self.spec.facts
        assert isinstance(facts, GeneratorFacts)
        if rate != 1.0 and "rate" not in facts.styles:
            raise UnsupportedCapability(f"{self.spec.id} speaks at one rate; leave it at 1")
        return [self._frames(one, rate) for one in phones]

    def content_ids(self, canvas: Canvas) -> Tensor:
        """Thirds of phones, int64 [B, F]: whether a frame's phone begins, goes on or ends there."""
        if canvas.content is None or canvas.segments is None:
            return super().content_ids(canvas)
        rows = [
            thirds_of_segments(content, segments, NO_CONTENT)
            for content, segments in zip(
                canvas.content.numpy(), canvas.segments.numpy(), strict=True
            )
        ]
        return torch.from_numpy(np.stack(rows))

    def _frames(self, phones: Phones, rate: float) -> list[int]:
        ids = torch.tensor([[self._ids[symbol] for symbol in phones.symbols]], dtype=torch.int64)
        if not ids.numel():
            return []
        frames: list[int] = self._lengths.frames(ids, rate)[0].tolist()
        return frames
