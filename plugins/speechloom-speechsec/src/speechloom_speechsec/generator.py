"""SpeechSEC as a speechloom generator: any weights, any tokens, through the core's loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from speechloom.claims import check_canvas
from speechloom.decoding import DecodeConfig, ExecutionConfig, masked_decode
from speechloom.decoding.graphs import GraphedDecoder
from speechloom.errors import UnsupportedCapability
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Canvas, Codes, Phones, Tokens, Voice
from speechloom_speechsec.conditioned import ConditionedSpeechSEC, condition
from speechloom_speechsec.config import TASKS, SpeechSECConfig, tiny
from speechloom_speechsec.inference import InferenceSpeechSEC
from speechloom_speechsec.model import NO_CONTENT, SpeechSEC
from speechloom_speechsec.weights import read_checkpoint

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SpeechSECGenerator"]

logger = logging.getLogger(__name__)

STAGES = {"tokens": 0, "codes": 1}
"""Number of a generator in its chain; with it two generators of a request draw differently."""


@dataclass(frozen=True)
class _Request:
    """What `masked_decode` and a recording fill in, on the device of the network."""

    codes: Tensor
    known: Tensor
    lengths: Tensor
    seeds: Tensor
    items: Tensor


class SpeechSECGenerator(PublishedComponent):
    """Fills canvases of codes or of content tokens with a `SpeechSEC` network.

    The weights are those of a checkpoint (`speechloom_speechsec.checkpoint`), which the options of
    the spec name. Subclass it to say where else they come from, or what content ids the network
    takes (`content_ids`); everything else is here.

    Args:
        spec: its facts name the tasks, the content and what is filled in.
        network: in eval mode, float32.
        weights: sha256 by file name.
        decode: passes, schedule and sampling.
        free: the same for canvases without content, where cool draws end in a hum; `decode` when
            left out.
        convert: the same for conversions, which follow the units of a recording; `decode` when left
            out.
        device: where it runs.
        execution: number format and layout of the network; see `speechloom.decoding`. It can be
            changed later, also on a generator that a pipeline uses: ``generator.execution = ...``.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: SpeechSEC,
        *,
        weights: Mapping[str, str] | None = None,
        decode: DecodeConfig | None = None,
        free: DecodeConfig | None = None,
        convert: DecodeConfig | None = None,
        device: str = "cpu",
        execution: ExecutionConfig | None = None,
    ) -> None:
        super().__init__(spec, weights)
        self._decode = decode or DecodeConfig()
        self._free = free or self._decode
        self._convert = convert or self._decode
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        self.execution = execution or ExecutionConfig()

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Self:
        """The checkpoint that ``spec.options`` names, decoded as its configuration says.

        Args:
            spec: of `speechloom_speechsec._spec.spec_for`.
            device: where it runs.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the spec says.
        """
        loaded = read_checkpoint(spec)
        config = loaded.config
        return cls(
            spec,
            loaded.generator,
            weights=loaded.weights,
            decode=config.decode.config(),
            free=config.free.config() if config.free else None,
            device=device,
        )

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Self:
        """A tiny network between the same kinds of tokens."""
        return cls(spec, SpeechSEC(tiny_for(spec), seed=seed))

    @property
    def execution(self) -> ExecutionConfig:
        """How the network runs; setting it lays the weights out anew."""
        return self._execution

    @execution.setter
    def execution(self, execution: ExecutionConfig) -> None:
        self._laid_out = InferenceSpeechSEC(self._network, execution.on(self._device))
        self._graphed = self._recording() if execution.graphs else None
        self._execution = execution

    def warm_up(self, frames: int = 500) -> float:
        """Decode an empty canvas, so that the next call is as fast as all later ones.

        What is slow once is compiled or allocated here: the sampling kernel, the network if
        `execution` says so, the memory of a canvas of this length.

        Args:
            frames: of the canvas; the longest that is to come.

        Returns:
            The seconds it took; they are also logged, at level INFO.
        """
        begin = time.perf_counter()
        config = self._network.config
        codes = torch.full((1, config.codebooks, frames), config.mask_id, device=self._device)
        content = torch.full((1, frames), NO_CONTENT, device=self._device)
        one = torch.zeros(1, dtype=torch.int64, device=self._device)
        request = _Request(codes, torch.zeros_like(codes, dtype=torch.bool), one + frames, one, one)
        # A recording is of its settings; for the rest two passes have seen everything.
        settings = self._decode if self._graphed else replace(self._decode, steps=(2,))
        given = {"content": content, "task": one}
        if config.voice_dim:  # as requests have it; a recording without one would be another
            given["voice"] = torch.zeros(1, config.voice_dim, device=self._device)
        for _ in range(2):  # the second call of a compiled network may compile once more
            self._decoded(request, given, settings)
        seconds = time.perf_counter() - begin
        logger.info("%s: warm-up of %d frames took %.1f s", self._spec.id, frames, seconds)
        return seconds

    @torch.inference_mode()
    def fill(self, canvas: Canvas) -> Codes | Tokens:
        """Fill a canvas: 16 passes at the first level, one at each finer level by default.

        Args:
            canvas: ids [B, K, F] of this generator's kind.

        Returns:
            `Codes` [B, K, F], or `Tokens` [B, F] where the facts give tokens; known positions
            are as they were.

        Raises:
            UnsupportedCapability: see `speechloom.claims.check_canvas`.
        """
        facts = check_canvas(self._spec, canvas)
        kind, _, name = facts.gives.partition(":")
        device = self._device
        request = _Request(
            canvas.ids.to(device),
            canvas.known.to(device),
            canvas.lengths.to(device),
            canvas.seeds.to(device),
            canvas.items.to(device),
        )
        filled = self._decoded(request, self._condition(canvas), self._settings(canvas))
        inside = torch.arange(filled.shape[-1], device=device) < canvas.lengths.to(device)[:, None]
        ids = torch.where(inside[:, None], filled, 0).cpu()
        size, rate, lengths = facts.codebook_size, facts.frame_rate, canvas.lengths.cpu()
        if kind == "tokens":
            return Tokens(ids[:, 0], name, size, rate, lengths)
        return Codes(ids, name, size, rate, lengths)

    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Refuse: this generator takes tokens.

        Raises:
            UnsupportedCapability: always.
        """
        raise UnsupportedCapability(f"{self._spec.id} takes no phones and knows no durations")

    def content_ids(self, canvas: Canvas) -> Tensor:
        """Content ids of the network, int64 [B, F], `NO_CONTENT` where there is none."""
        if canvas.content is None:
            batch, _, frames = canvas.ids.shape
            return torch.full((batch, frames), NO_CONTENT, dtype=torch.int64)
        return canvas.content

    def _settings(self, canvas: Canvas) -> DecodeConfig:
        if canvas.content is None:
            return _scaled(self._free, canvas.temperature)
        chosen = self._convert if canvas.task == "convert" else self._decode
        return _scaled(chosen, canvas.temperature)

    def _condition(self, canvas: Canvas) -> dict[str, Tensor]:
        """What the network is conditioned on, by the names of `_network_for`, on the device."""
        tasks = torch.full((canvas.batch,), TASKS.index(canvas.task))
        given = {"content": self.content_ids(canvas), "task": tasks}
        if canvas.voices is not None:
            given["voice"] = canvas.voices
        if canvas.content is None and canvas.task == "continue":
            prompts = torch.where(canvas.known, canvas.ids, canvas.codebook_size)
            given["prompts"] = prompts.transpose(1, 2)
        return {name: value.to(self._device) for name, value in given.items()}

    def _network_for(
        self,
        content: Tensor,
        task: Tensor,
        voice: Tensor | None = None,
        prompts: Tensor | None = None,
        *,
        guided: bool,
        padded: bool = True,
    ) -> ConditionedSpeechSEC:
        """`condition`, with `prompts` [B, F, K]: frames second, as in all that is per frame."""
        if prompts is not None:
            prompts = prompts.transpose(1, 2)
        return condition(
            self._laid_out, content, task, voice, guided=guided, padded=padded, prompts=prompts
        )

    def _recording(self) -> GraphedDecoder:
        guided = any(one.is_guided for one in (self._decode, self._free, self._convert))
        return GraphedDecoder(
            partial(self._network_for, guided=guided),
            frame_padding={"content": NO_CONTENT, "prompts": self._network.config.mask_id},
            stage=self._stage,
            device=self._device,
        )

    def _decoded(
        self, request: _Request, given: Mapping[str, Tensor], config: DecodeConfig
    ) -> Tensor:
        """The codes [B, K, F] of a request, by a recording or by the loop."""
        if self._graphed is not None and request.codes.shape[-1] <= self._graphed.longest:
            return self._graphed(**vars(request), condition=given, config=config)
        padded = bool((request.lengths < request.codes.shape[-1]).any())
        network = self._network_for(**given, guided=config.is_guided, padded=padded)
        return masked_decode(network, **vars(request), stage=self._stage, config=config)

    @property
    def _stage(self) -> int:
        facts = self._spec.facts
        assert isinstance(facts, GeneratorFacts), f"{self._spec.id} is a {self._spec.kind}"
        return STAGES[facts.gives.partition(":")[0]]


def tiny_for(spec: ComponentSpec) -> SpeechSECConfig:
    """The sizes of a tiny network that takes and gives what a spec says."""
    facts = spec.facts
    assert isinstance(facts, GeneratorFacts), f"{spec.id} is a {spec.kind}"
    return tiny(
        content_vocab=spec.options["content_vocab"],
        codebooks=facts.codebooks,
        codebook_size=facts.codebook_size,
        voice_dim=facts.voice_size or 0,
    )


def _scaled(decode: DecodeConfig, temperature: float) -> DecodeConfig:
    """The generator's own randomness times what the caller asks."""
    sample = replace(decode.sample, temperature=decode.sample.temperature * temperature)
    choice = decode.choice_temperature * temperature
    return replace(decode, sample=sample, choice_temperature=choice)
