"""VITS as a generator: phones or a recording's content to speech, in a voice of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from speechloom.checkpoints import load_exactly
from speechloom.claims import check_canvas, check_phones
from speechloom.decoding import ExecutionConfig
from speechloom.errors import UnsupportedCapability
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, GeneratorFacts
from speechloom.values import Audio, Canvas, Phones, Voice, fit_length, samples_at
from speechloom_vits.config import VitsConfig
from speechloom_vits.fast import FastDecoder
from speechloom_vits.network import Vits
from speechloom_vits.tiny import build_tiny
from speechloom_vits.weights import read_weights

__all__ = ["VitsGenerator", "duration_noise", "prior_noise", "spoken_symbols"]


class VitsGenerator(PublishedComponent):
    """VITS (Kim et al. 2021, arXiv:2106.06103): says phones, or again what `VitsContent` heard.

    Items are spoken one after the other, so that a batch is what its items are alone. What is drawn
    for a frame depends on the seed, the item and the frame; the canvas's temperature scales it.

    Differs from the original in one way: content that is no phone is the pause.

    Args:
        spec: made by `speechloom_vits.specs_for` or by an export.
        network: with weight normalisation folded in.
        weights: sha256 by file name.
        device: where it runs.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: Vits,
        *,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._network = network.train(False).requires_grad_(False).to(device)
        precision = ExecutionConfig(precision=spec.options.get("precision", "float32"))
        self._decoder = FastDecoder(self._network.decoder, precision.on(device).dtype)
        self._device = torch.device(device)
        self._ids = {phone: index for index, phone in enumerate(spec.options["phones"])}
        self._pause = self._ids[spec.options["pause"]]

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> VitsGenerator:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the spec says.
        """
        read = read_weights(spec)
        with torch.device("meta"):
            network = Vits(read.config, posterior=False)
        speaking = {k: v for k, v in read.tensors.items() if not k.startswith("posterior_encoder.")}
        load_exactly(network, speaking, read.source)
        return cls(spec, network, weights=read.hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> VitsGenerator:
        """A tiny one of the same symbols, speakers and frame rate."""
        return cls(spec, build_tiny(spec, seed, posterior=False))

    @torch.inference_mode()
    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Frames that each phone lasts; drawn, where the predictor is stochastic.

        Args:
            phones: B utterances.
            rate: speed of speech; 2.0 is twice as fast.
            voices: one per utterance; where the checkpoint has several and none is given, the
                first.
            seed: names the draw; see `duration_noise`.

        Raises:
            UnsupportedCapability: phones of another alphabet, or voices where it has one.
            UsageError: a rate that is not positive.
        """
        check_phones(self.spec, phones, rate, voices)
        chosen: Sequence[Voice | None] = voices or [None] * len(phones)
        return [
            self._frames(one, rate, voice, seed) for one, voice in zip(phones, chosen, strict=True)
        ]

    @torch.inference_mode()
    def fill(self, canvas: Canvas) -> list[Audio]:
        """Speak every item of a canvas.

        Raises:
            UnsupportedCapability: a task, content or voice that it does not claim.
        """
        facts = check_canvas(self.spec, canvas)
        assert facts.sample_rate is not None
        return [
            Audio(
                fit_length(
                    self._samples(canvas, row).cpu().numpy(),
                    samples_at(int(canvas.lengths[row]), facts.sample_rate, facts.frame_rate),
                ),
                facts.sample_rate,
            )
            for row in range(canvas.batch)
        ]

    # One utterance ------------------------------------------------------------------------

    def _frames(self, phones: Phones, rate: float, voice: Voice | None, seed: int) -> list[int]:
        if not phones.symbols:
            return []
        unknown = sorted({one for one in phones.symbols if one not in self._ids})
        if unknown:
            raise UnsupportedCapability(
                f"{self.spec.id} has no phone {', '.join(unknown)}; use the front end of "
                f"{phones.alphabet}"
            )
        config = self._network.config
        symbols = torch.tensor([[self._ids[one] for one in phones.symbols]], device=self._device)
        vector = None if voice is None else torch.from_numpy(voice.vector)
        noise = duration_noise(len(phones), seed).to(self._device)
        frames = self._network.durations(
            symbols,
            noise * config.duration_noise_scale,
            self._speaker(vector),
            length_scale=config.length_scale / rate,
        )
        return [int(n) for n in frames[0].tolist()]

    def _samples(self, canvas: Canvas, row: int) -> Tensor:
        """Samples [1, T] of one item."""
        speaker = self._speaker(None if canvas.voices is None else canvas.voices[row])
        assert canvas.content_kind is not None
        heard = canvas.content_kind.startswith("features:")
        latent = (self._heard if heard else self._said)(canvas, row, speaker)
        return self._decoder(latent, speaker)[0]

    def _heard(self, canvas: Canvas, row: int, speaker: Tensor | None) -> Tensor:
        """The latent [1, L, F] of what `VitsContent` read off a recording."""
        assert canvas.content is not None
        content = canvas.content[row, :, : int(canvas.lengths[row])][None].to(self._device)
        return self._network.latent_of_content(content, speaker)

    def _said(self, canvas: Canvas, row: int, speaker: Tensor | None) -> Tensor:
        """The latent [1, L, F] of phones in their timing."""
        length = int(canvas.lengths[row])
        assert canvas.content is not None
        segments = canvas.content if canvas.segments is None else canvas.segments
        symbols, frames = spoken_symbols(
            canvas.content[row, :length], segments[row, :length], self._pause
        )
        config = self._network.config
        noise = prior_noise(canvas, row, config.latent_size).to(self._device)
        return self._network.latent_of_text(
            symbols[None].to(self._device),
            frames.to(self._device),
            noise * (config.noise_scale * canvas.temperature),
            speaker,
        )

    def _speaker(self, vector: Tensor | None) -> Tensor | None:
        """A speaker vector [1, S, 1]; the first of the table where none is given."""
        if self._network.config.speakers == 1:
            return None
        if vector is None:
            vector = self._network.embed_speaker.weight[0]
        return vector.to(self._device, torch.float32)[None, :, None]

    @property
    def _facts(self) -> GeneratorFacts:
        facts = self.spec.facts
        assert isinstance(facts, GeneratorFacts)
        return facts

    @property
    def config(self) -> VitsConfig:
        """The sizes of the network."""
        return self._network.config


def spoken_symbols(content: Tensor, segments: Tensor, pause: int) -> tuple[Tensor, Tensor]:
    """What is said on the frames of a canvas, symbol by symbol.

    Args:
        content: int64 [F], the symbol of each frame, -1 for none.
        segments: int64 [F], so that a symbol twice in a row stays two.
        pause: what a frame without a symbol says.

    Returns:
        Symbols int64 [N] and the frames of each, int64 [N]; they add up to F.
    """
    said = torch.where(content < 0, pause, content)
    pairs = torch.stack([said, segments])
    begins = torch.ones(len(content), dtype=torch.bool)
    begins[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(0)
    at = begins.nonzero()[:, 0]
    ends = torch.cat([at[1:], torch.tensor([len(content)])])
    return said[at], ends - at


def duration_noise(phones: int, seed: int) -> Tensor:
    """Standard normal draws of one utterance, float32 [1, 2, N], named by seed and phone."""
    drawn = np.random.default_rng(seed).standard_normal((phones, 2), np.float32)
    return torch.from_numpy(drawn.T[None].copy())


def prior_noise(canvas: Canvas, row: int, size: int) -> Tensor:
    """Standard normal draws for one item, float32 [1, size, F], named by seed, item and frame."""
    names = [int(canvas.seeds[row]), int(canvas.items[row])]
    shape = (int(canvas.lengths[row]), size)
    drawn = np.random.default_rng(names).standard_normal(shape, np.float32)
    return torch.from_numpy(drawn).T[None]
