"""X-E-Speech as components: a generator, and the encoder of its styles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from speechloom.checkpoints import find_checkpoint, load_exactly, read_tensors, sha256_of
from speechloom.claims import check_canvas, check_phones
from speechloom.errors import AudioError, UnsupportedCapability, UsageError, WeightsError
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, SpeakerEncoderFacts
from speechloom.values import Audio, Canvas, Phones, Voice, fit_length, samples_at
from speechloom_vits.config import VitsConfig
from speechloom_vits.fast import FastDecoder
from speechloom_vits.generator import duration_noise, prior_noise, spoken_symbols
from speechloom_vits.tiny import build_drawn, tiny_config
from speechloom_vits.xe_config import XEConfig
from speechloom_vits.xe_network import REFERENCE_FRAMES, XESpeech

__all__ = ["XEGenerator", "XEStyle"]

SILENCE_DBFS = -60.0
"""The loudest tenth of a second of a reference must lie above this."""


def _read(spec: ComponentSpec) -> tuple[XESpeech, Mapping[str, str]]:
    """The network that a spec's options name, and the hash of its file."""
    options = spec.options
    config_path, weights_path = find_checkpoint(
        options["checkpoint"],
        ["config.json", "model.safetensors"],
        revision=options["revision"],
        sha256=options["sha256"],
    ).values()
    config = XEConfig.read(config_path)
    if config != XEConfig.model_validate(options["config"]):
        raise WeightsError(
            f"{config_path} is of another network than {spec.id} was made for; make its specs "
            "again with speechloom_vits.x_e_specs_for"
        )
    with torch.device("meta"):
        network = XESpeech(config.sizes)
    load_exactly(network, read_tensors(weights_path), weights_path)
    return network, {weights_path.name: sha256_of(weights_path)}


def _tiny(spec: ComponentSpec, seed: int) -> XESpeech:
    sizes = XEConfig.model_validate(spec.options["config"]).sizes
    small = sizes.model_copy(
        update={
            "voice": tiny_config(sizes.voice),
            "content_layers": 1,
            "attention_layers": min(1, sizes.attention_layers),
            "style_layers": 1,
            "style_hidden": 8,
            "language_size": 4,
        }
    )
    return build_drawn(lambda: XESpeech(small), seed)


class XEGenerator(PublishedComponent):
    """X-E-Speech: speaks text of several languages, or another's recording, in a reference's style.

    The alphabet of the phones decides the language. Items are made one after the other; what is
    drawn for a frame depends on the seed, the item and the frame.

    Args:
        spec: made by `speechloom_vits.x_e_specs_for` or by an export.
        network: with weight normalisation folded in.
        weights: sha256 by file name.
        device: where it runs.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: XESpeech,
        *,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._config = XEConfig.model_validate(spec.options["config"])
        self._network = network.train(False).requires_grad_(False).to(device)
        self._decoder = FastDecoder(self._network.decoder)
        self._device = torch.device(device)
        ids = {symbol: index for index, symbol in enumerate(self._config.symbols)}
        self._tables = {
            f"phones:{name}": torch.tensor([ids[phone] for phone in one.phones])
            for name, one in self._config.alphabets.items()
        }

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> XEGenerator:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the spec says.
        """
        network, hashes = _read(spec)
        return cls(spec, network, weights=hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> XEGenerator:
        """A tiny one of the same symbols, content and frame rate."""
        return cls(spec, _tiny(spec, seed))

    @torch.inference_mode()
    def durations(
        self,
        phones: Sequence[Phones],
        *,
        rate: float = 1.0,
        voices: Sequence[Voice] | None = None,
        seed: int = 0,
    ) -> list[list[int]]:
        """Frames that each phone lasts, drawn as in `VitsGenerator`.

        Args:
            phones: B utterances.
            rate: speed of speech; 2.0 is twice as fast.
            voices: one per utterance; without them the tempo is of no style.
            seed: names the draw.

        Raises:
            UnsupportedCapability: phones of another alphabet.
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
            UnsupportedCapability: a task or content that it does not claim, or no voice.
        """
        facts = check_canvas(self.spec, canvas)
        assert facts.sample_rate is not None
        made = []
        for row in range(canvas.batch):
            length = samples_at(int(canvas.lengths[row]), facts.sample_rate, facts.frame_rate)
            samples = self._samples(canvas, row).cpu().numpy()
            made.append(Audio(fit_length(samples, length), facts.sample_rate))
        return made

    # One utterance ------------------------------------------------------------------------

    def _frames(self, phones: Phones, rate: float, voice: Voice | None, seed: int) -> list[int]:
        if not phones.symbols:
            return []
        alphabet = self._config.alphabets[phones.alphabet]
        unknown = sorted({one for one in phones.symbols if one not in alphabet.phones})
        if unknown:
            raise UnsupportedCapability(f"{self.spec.id} has no phone {', '.join(unknown)}")
        at = torch.tensor([[alphabet.phones.index(one) for one in phones.symbols]])
        noise = duration_noise(len(phones), seed) * self._voice_config.duration_noise_scale
        style = (
            torch.zeros(1, self._voice_config.speaker_size, 1)
            if voice is None
            else torch.from_numpy(voice.vector)[None, :, None]
        )
        frames = self._network.durations(
            self._tables[f"phones:{phones.alphabet}"][at].to(self._device),
            self._language(alphabet.language),
            style.to(self._device),
            noise.to(self._device),
            self._voice_config.length_scale / rate,
        )
        return [int(n) for n in frames[0].tolist()]

    def _samples(self, canvas: Canvas, row: int) -> Tensor:
        """Samples [1, T] of one item."""
        length = int(canvas.lengths[row])
        assert canvas.content is not None
        assert canvas.content_kind is not None
        assert canvas.voices is not None
        voice = self._voice_config
        noise = prior_noise(canvas, row, voice.latent_size).to(self._device)
        noise = noise * (voice.noise_scale * canvas.temperature)
        style = canvas.voices[row].to(self._device, torch.float32)[None, :, None]
        if canvas.content_kind.startswith("features:"):
            features = canvas.content[row, :, :length][None].to(self._device)
            language = self._language(self._config.content_language)
            content = self._network.content_of_speech(features, language, noise)
        else:
            alphabet = self._config.alphabets[canvas.content_kind.removeprefix("phones:")]
            segments = canvas.content if canvas.segments is None else canvas.segments
            symbols, frames = spoken_symbols(
                canvas.content[row, :length],
                segments[row, :length],
                alphabet.phones.index(alphabet.pause),
            )
            symbols = self._tables[canvas.content_kind][symbols]
            content = self._network.content_of_text(
                symbols[None].to(self._device),
                frames.to(self._device),
                self._language(alphabet.language),
                noise,
            )
        return self._decoder(self._network.speech_latent(content, style), style)[0]

    def _language(self, code: str) -> Tensor:
        index = self._config.sizes.languages.index(code)
        return torch.tensor([index], device=self._device)

    @property
    def _voice_config(self) -> VitsConfig:
        return self._network.sizes.voice


class XEStyle(PublishedComponent):
    """The style encoder of X-E-Speech: who speaks, and in what mood, as one vector.

    Recordings are looked at one after the other: their middle six seconds; shorter ones are
    repeated up to that, as in training.

    Args:
        spec: made by `speechloom_vits.x_e_specs_for` or by an export.
        network: the whole network.
        weights: sha256 by file name.
        device: where it runs.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: XESpeech,
        *,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._encoder = network.style_encoder.train(False).requires_grad_(False).to(device)
        self._mel = network.sizes.mel
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> XEStyle:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the spec says.
        """
        network, hashes = _read(spec)
        return cls(spec, network, weights=hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> XEStyle:
        """A tiny one that gives vectors of the same size."""
        return cls(spec, _tiny(spec, seed))

    @torch.inference_mode()
    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """The style of each recording.

        Raises:
            AudioError: a recording is too short or silent.
        """
        return [Voice(self._vector(one), self._facts.voice) for one in audio]

    def named(self, name: str) -> Voice:
        """Refuse: it has no voices of its own.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"no voice is called {name!r}: {self.spec.id} has none; give a recording")

    def _vector(self, audio: Audio) -> NDArray[np.float32]:
        self._check(audio)
        mel = self._mel.compute(audio).values[0]
        repeated = mel.repeat(1, math.ceil(REFERENCE_FRAMES / mel.shape[1]))
        first = (repeated.shape[1] - REFERENCE_FRAMES) // 2
        middle = repeated[:, first : first + REFERENCE_FRAMES]
        vector: Tensor = self._encoder(middle[None].to(self._device))[0]
        return np.asarray(vector.cpu().numpy(), np.float32)

    def _check(self, audio: Audio) -> None:
        least = self._facts.min_seconds
        if audio.seconds < least:
            raise AudioError(
                f"the reference lasts {audio.seconds:.2f} s; at least {least:g} s are needed, and "
                "3 to 6 s are good"
            )
        block = max(1, audio.sample_rate // 10)
        samples = audio.mono().samples[0]
        blocks = samples[: len(samples) // block * block].reshape(-1, block)
        loudest = float(np.sqrt(np.square(blocks, dtype=np.float64).mean(axis=1)).max(initial=0.0))
        if 20 * math.log10(max(loudest, 1e-12)) < SILENCE_DBFS:
            raise AudioError("the reference is silent; give a recording with speech")

    @property
    def _facts(self) -> SpeakerEncoderFacts:
        facts = self.spec.facts
        assert isinstance(facts, SpeakerEncoderFacts)
        return facts
