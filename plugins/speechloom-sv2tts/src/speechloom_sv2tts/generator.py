"""The ``tacotron2`` generators: phones (or characters) and a voice to a mel."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from speechloom.checkpoints import load_exactly, pinned_files, sha256_of
from speechloom.claims import check_canvas, check_phones
from speechloom.errors import UnsupportedCapability, UsageError
from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Canvas, Features, Phones, Voice, pad_stack
from speechloom.weighted import Weighted
from speechloom_sv2tts.config import TacotronConfig
from speechloom_sv2tts.decoding import Drops, FreeWalk, TimedWalk, Unheard, decode
from speechloom_sv2tts.tacotron2 import Tacotron2
from speechloom_sv2tts.weights import local_checkpoint, read_tacotron2

__all__ = ["Tacotron2Generator", "Timing", "trouble"]

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.6
"""The longest time on one symbol; a pause is hardly longer, and a stuck attention is."""

FILL_LEVEL, TIMING_LEVEL = 0, 1
"""Names of the draws in filling and in finding the timing."""

HEARD = 0.2
"""Attention, summed over the steps, below which a phone was left out. One that is shorter than a
step is on no step the best, but has its share of two."""

AT_ONCE = 32
"""Sentences whose timing is found together."""


@dataclass(frozen=True)
class Timing:
    """How long each phone of a sentence lasts, and what had to be put right to find it.

    Attributes:
        frames: at least 1 a phone.
        skipped: phones that the attention left out; they last one frame all the same.
        pushed: phones that it would not leave; it was pushed on.
        stopped: whether the stop token ended the sentence; else patience did.
        attention: float [S, N], a row per decoder step.
    """

    frames: list[int]
    skipped: tuple[int, ...]
    pushed: tuple[int, ...]
    stopped: bool
    attention: Tensor

    @property
    def clean(self) -> bool:
        """Whether nothing had to be put right."""
        return self.stopped and not self.skipped and not self.pushed


class Tacotron2Generator(Weighted):
    """Tacotron 2 with a speaker vector (Shen et al. 2018; Jia et al. 2018).

    `durations` lets the attention find the timing; `fill` speaks in the timing of the canvas, with
    the attention held to the phones of each frame. So the length is known before anything is
    spoken, a phone is never skipped or said twice, and timing from elsewhere (another rate, a
    recording) can be spoken, too. The price is a second run of the decoder.

    The pre-net's dropout is drawn from the canvas's seeds; a temperature of 0 turns it off. The
    timing is the same for every seed.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: Tacotron2,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)
        self._symbols = torch.tensor(spec.options["symbols"])

    @property
    def facts(self) -> GeneratorFacts:
        """What it takes and gives."""
        return cast(GeneratorFacts, self._spec.facts)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Tacotron2Generator:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is of another network.
        """
        tensors, path = read_tacotron2(spec.options["checkpoint"], spec.options.get("sha256"))
        network = Tacotron2(TacotronConfig.model_validate(spec.options["config"]))
        load_exactly(network, tensors, path)
        return cls(spec, network, weights={path.name: sha256_of(path)}, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Tacotron2Generator:
        """A tiny network of the same symbols, bands, voice, reduction and withheld frames."""
        full = TacotronConfig.model_validate(spec.options["config"])
        config = TacotronConfig.tiny(
            symbols=full.symbols, bands=full.bands, voice=full.voice, reduction=full.reduction
        ).model_copy(update={"withheld": full.withheld})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Tacotron2(config)
        return cls(spec, network, weights={})

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The file whose hash the spec pins; nothing is loaded."""
        pinned = spec.options.get("sha256")
        if not pinned:
            return {}
        return pinned_files(local_checkpoint(spec.options["checkpoint"]), sha256=pinned)

    # Filling ------------------------------------------------------------------------------

    @torch.inference_mode()
    def fill(self, canvas: Canvas) -> Features:
        """The mel of a canvas, in its timing.

        Raises:
            UnsupportedCapability: a task, content or voice that it does not claim.
        """
        facts = check_canvas(self.spec, canvas)
        assert canvas.content is not None
        said = [
            _said(content[:frames], None if segments is None else segments[:frames])
            for content, segments, frames in zip(
                canvas.content.cpu(),
                _rows(canvas.segments, canvas.batch),
                canvas.lengths.tolist(),
                strict=True,
            )
        ]
        self._check_ids([one.phones for one in said])
        lengths = torch.tensor([len(one.phones) for one in said])
        reduction = self._network.config.reduction
        walk = TimedWalk([one.frames for one in said], lengths, reduction, self._device)
        drops: Drops | Unheard | None = self._undrawn(canvas.batch)
        if canvas.temperature > 0:
            drops = self._drops(canvas.seeds, canvas.items, FILL_LEVEL)
        voices = None if canvas.voices is None else canvas.voices.float().to(self._device)
        memory = self._memory([one.phones for one in said], lengths, voices)
        decoded = decode(self._network.decoder, memory, walk, drops, max_steps=walk.steps)
        frames = canvas.lengths.to(self._device)
        mel = decoded.frames.transpose(1, 2)[..., : canvas.ids.shape[-1]]
        mel = mel + self._network.postnet(mel, frames)
        there = torch.arange(mel.shape[-1], device=self._device) < frames[:, None]
        values = (mel * there[:, None]).cpu()
        name = facts.gives.removeprefix("features:")
        return Features(values, name, facts.frame_rate, canvas.lengths)

    # Timing -------------------------------------------------------------------------------

    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Frames of each phone, as the attention finds them.

        What had to be put right is logged as a warning; `timings` says it in full.

        Raises:
            UnsupportedCapability: phones or a voice that it does not claim.
            UsageError: a rate that is not positive.
        """
        check_phones(self.spec, phones, rate, voices)
        found = self.timings(phones, voices, seed)
        for one, timing in zip(phones, found, strict=True):
            if not timing.clean:
                logger.warning("%s: %s", self.spec.id, trouble(one, timing))
        return [[max(1, round(n / rate)) for n in timing.frames] for timing in found]

    @torch.inference_mode()
    def timings(
        self, phones: Sequence[Phones], voices: Sequence[Voice] | None = None, seed: int = 0
    ) -> list[Timing]:
        """The timing of sentences and how it was found.

        Args:
            phones: B sentences, at least one phone each.
            voices: one per sentence, where the network takes a voice.
            seed: names what the pre-net drops; a sentence's draws do not depend on its place.

        Raises:
            UnsupportedCapability: phones or a voice that it does not claim, or none where it needs
                one.
            UsageError: a sentence without phones.
        """
        check_phones(self.spec, phones, 1.0, voices)
        if any(len(one) == 0 for one in phones):
            raise UsageError("a sentence has no phones; leave it out")
        vectors = self._vectors(len(phones), voices)
        numbers = {phone: number for number, phone in enumerate(self.spec.options["phones"])}
        ids = [torch.tensor([numbers[symbol] for symbol in one.symbols]) for one in phones]
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        found: dict[int, Timing] = {}
        for at in range(0, len(order), AT_ONCE):
            chosen = order[at : at + AT_ONCE]
            some = None if vectors is None else vectors[chosen]
            timings = self._found([ids[index] for index in chosen], some, seed)
            found |= dict(zip(chosen, timings, strict=True))
        return [found[index] for index in range(len(phones))]

    def _found(self, ids: list[Tensor], voices: Tensor | None, seed: int) -> Iterator[Timing]:
        lengths = torch.tensor([len(one) for one in ids])
        reduction = self._network.config.reduction
        patience = max(1, round(PATIENCE_SECONDS * self.facts.frame_rate / reduction))
        walk = FreeWalk(lengths, patience, self._device)
        first = torch.zeros(len(ids), dtype=torch.int64)
        drops = self._drops(first + seed, first, TIMING_LEVEL)
        memory = self._memory(ids, lengths, voices)
        longest = patience * int(lengths.max()) + 1
        decoded = decode(self._network.decoder, memory, walk, drops, max_steps=longest)
        path = torch.stack(walk.path, 1).cpu()
        for row, symbols in enumerate(lengths.tolist()):
            steps = int(walk.steps[row])
            counts = torch.bincount(path[row, :steps], minlength=symbols)
            attention = decoded.attention[row, :steps, :symbols].cpu()
            unheard = (counts == 0) & (attention.sum(0) < HEARD)
            yield Timing(
                frames=[max(1, reduction * n) for n in counts.tolist()],
                skipped=tuple(torch.nonzero(unheard)[:, 0].tolist()),
                pushed=tuple(torch.nonzero(walk.pushed[row, :symbols])[:, 0].tolist()),
                stopped=bool(walk.stopped[row]),
                attention=attention,
            )

    # Parts --------------------------------------------------------------------------------

    def _memory(self, ids: list[Tensor], lengths: Tensor, voices: Tensor | None) -> Tensor:
        size = self._network.config.voice
        if voices is not None and voices.shape[1] != size:
            raise UsageError(
                f"{self.spec.id} takes voices of {size} values, not of {voices.shape[1]}; take "
                f"them from a speaker encoder that gives {self.facts.voice}"
            )
        symbols = pad_stack([self._symbols[one] for one in ids]).to(self._device)
        return self._network.remember(symbols, lengths, voices)

    def _drops(self, seeds: Tensor, items: Tensor, level: int) -> Drops:
        config = self._network.config
        return Drops(
            seeds.to(self._device), items.to(self._device), config.prenet, level=level,
            withheld=config.withheld,
        )  # fmt: skip

    def _undrawn(self, batch: int) -> Unheard | None:
        """Without draws every step does what most of them did in training."""
        config = self._network.config
        return Unheard(batch, config.prenet, self._device) if config.withheld > 0.5 else None

    def _vectors(self, count: int, voices: Sequence[Voice] | None) -> Tensor | None:
        if voices is not None:
            return torch.stack([torch.from_numpy(one.vector) for one in voices]).to(self._device)
        size = self._network.config.voice
        # The protocol asks for a timing without a voice, too: that of a voice that says nothing.
        return torch.zeros(count, size, device=self._device) if size else None

    def _check_ids(self, ids: list[Tensor]) -> None:
        largest = max(int(one.max()) for one in ids)
        if largest >= len(self._symbols):
            raise UnsupportedCapability(
                f"{self.spec.id} knows {len(self._symbols)} phones, but the canvas has the id "
                f"{largest}; use the front end of its alphabet"
            )


@dataclass(frozen=True)
class _Said:
    """Phone ids int64 [N] of a canvas's item, and which of them each frame says, int64 [F]."""

    phones: Tensor
    frames: Tensor


def _said(content: Tensor, segments: Tensor | None) -> _Said:
    """The phones of a canvas's frames; where nothing is said, the phone before goes on."""
    spoken = torch.nonzero(content >= 0)[:, 0]
    if len(spoken) == 0:
        return _Said(torch.zeros(1, dtype=torch.int64), torch.zeros_like(content))
    marks = content if segments is None else segments
    begins = torch.ones(len(spoken), dtype=torch.bool)
    begins[1:] = marks[spoken][1:] != marks[spoken][:-1]
    number = torch.full_like(content, 0)
    number[spoken[begins]] = 1
    return _Said(content[spoken[begins]], (number.cumsum(0) - 1).clamp(min=0))


def _rows(values: Tensor | None, count: int) -> Sequence[Tensor | None]:
    return [None] * count if values is None else list(values.cpu())


def trouble(phones: Phones, timing: Timing) -> str:
    """What had to be put right in the timing of a sentence, in one sentence for people."""
    parts = []
    if timing.skipped:
        parts.append(f"the attention left out {_named(phones, timing.skipped)}")
    if timing.pushed:
        parts.append(f"it had to be pushed on from {_named(phones, timing.pushed)}")
    if not timing.stopped:
        parts.append("the stop token never came")
    text = " ".join(phones.words) or " ".join(phones.symbols)
    return f"in {text[:60]!r} {'; '.join(parts)}: listen to it, or say it in shorter sentences"


def _named(phones: Phones, places: tuple[int, ...]) -> str:
    """The first few of some phones, each with its word."""
    said = []
    for place in places[:5]:
        word = phones.word_at(place)
        of = "" if word is None else f" of {phones.words[word]!r}"
        said.append(phones.symbols[place] + of)
    more = len(places) - len(said)
    return ", ".join(said) + (f" and {more} more" if more else "")
