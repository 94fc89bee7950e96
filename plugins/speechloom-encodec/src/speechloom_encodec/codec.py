"""The EnCodec codec over the networks of transformers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel

from speechloom.checkpoints import load_exactly, sha256_of
from speechloom.published import (
    PublicCheckpoint,
    PublishedCodec,
    buildable,
    check_promises,
    stacked_codes,
)
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom.values import Audio, Codes, fit_length, samples_at
from speechloom.windows import frames_at_once
from speechloom_encodec.config import NetworkConfig
from speechloom_encodec.networks import ChunkedNetwork, Network, StreamNetwork, embedded
from speechloom_encodec.weights import WEIGHT_NAMES, read_weights

__all__ = ["EncodecCodec"]

WINDOW_SECONDS = 32.0
"""What a stream encodes at once; longer signals take as much memory as this.

Up to here a recording is one pass, and its codes are the original's to the bit. Pieces round
differently from the whole, and where two entries are almost equally near another one can be taken:
up to two codes in ten thousand were seen.
"""

PIECE_SECONDS = 2.0
"""What a stream decodes at once: little enough to stay in the processor's cache."""

RESIDUAL_GAIN = 0.3
"""Of random weights: residual units that add little do not amplify rounding errors."""


class EncodecCodec(PublishedCodec):
    """EnCodec (Défossez et al. 2022, arXiv:2210.13438), 24 kHz mono or 48 kHz stereo.

    The networks are those of transformers' ``EncodecModel``, the codes those of the original
    package. It differs from both in this:

    * The 24 kHz model is run piece by piece with its state, so that memory is bounded.
    * The 48 kHz model codes chunks of a second, each 1% over the next, 150 frames each. Here they
      follow each other in one sheet [B, K, F] at 5000/33 = 151.5 frames a second, chunk i at
      frames 150 i. The loudness of each chunk is in ``Codes.scales`` [B, F]; it is 0 at the one or
      two frames by which a chunk at the end of a recording falls short, and these are not played.
      Codes without scales are played at a root mean square of `SPEECH_LEVEL`.

    Recordings are encoded one after the other; mono is given to both channels of the stereo model.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        config: NetworkConfig,
        model: EncodecModel,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._config = config
        self._model = model.train(False).requires_grad_(False).to(device)
        self._network: Network = (StreamNetwork if config.chunk is None else ChunkedNetwork)(
            self._model, config
        )
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> EncodecCodec:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the facts say.
        """
        config, tensors, path = read_weights(PublicCheckpoint.of(spec, WEIGHT_NAMES))
        _check_facts(spec, config, path)
        with buildable(path):
            model = _network(config)
        load_exactly(model, tensors, path)
        return cls(spec, config, model, weights={path.name: sha256_of(path)}, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> EncodecCodec:
        """A tiny one of the same rates, channels, chunks and codebooks."""
        config = NetworkConfig.model_validate(spec.options["network"])
        config = config.model_copy(update={"num_filters": 4, "hidden_size": 8})
        model = _network(config)
        load_exactly(model, _drawn(model, seed), "random weights")
        return cls(spec, config, model, weights={})

    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Codes [B, K, F] of recordings of any rate and channel count, with scales at 48 kHz.

        Args:
            audio: B recordings.
        """
        levels, window = self.facts.codebooks, self._frames(WINDOW_SECONDS)
        with torch.inference_mode():
            rows = [self._network.encode(self._prepared(one), levels, window) for one in audio]
            ids = [row.cpu() for row, _ in rows]
            scales = [scale.cpu() for _, scale in rows if scale is not None]
        # Stacked outside, so that training may use the ids.
        return stacked_codes(ids, self.facts, scales)

    def decode(self, codes: Codes) -> list[Audio]:
        """Audio as long as its frames.

        Args:
            codes: of this codec; the first levels may be given alone.

        Raises:
            UsageError: the codes are of another codec, have more levels than it uses, or no frames.
        """
        self.check_playable(codes)
        rate = self.facts.sample_rate
        played = []
        for item in range(len(codes.lengths)):
            pieces = list(self._pieces(codes, item, self._frames(PIECE_SECONDS)))
            length = samples_at(int(codes.lengths[item]), rate, self.facts.frame_rate)
            played.append(Audio(fit_length(np.concatenate(pieces, 1), length), rate))
        return played

    def stream(self, codes: Codes, *, seconds: float = 1.0) -> Iterator[Audio]:
        """Decode one item piece by piece, so that playing can begin before all is decoded.

        Args:
            codes: of this codec, a single item.
            seconds: about how much to decode at once; the 48 kHz model decodes chunk by chunk.

        Yields:
            Audio whose concatenation is what `decode` gives.

        Raises:
            UsageError: as `decode`, there is not exactly one item, or `seconds` is not above 0.
        """
        self.check_single(codes)
        rate = self.facts.sample_rate
        missing = samples_at(int(codes.lengths[0]), rate, self.facts.frame_rate)
        for piece in self._pieces(codes, 0, self._frames(seconds)):
            samples = piece[:, :missing]
            missing -= samples.shape[1]
            if samples.size:
                yield Audio(samples, rate)
        if missing:
            yield Audio(np.zeros((self.facts.channels, missing), np.float32), rate)

    @torch.no_grad()
    def codebook(self, level: int) -> Tensor:
        """The codebook of a level, in the space that the decoder takes.

        Args:
            level: from 0.

        Returns:
            float32 [V, D]: what each id of this level adds to a frame, so that `embed` is the sum
            over the levels. A generator can start its embeddings from it.

        Raises:
            UsageError: there is no such level.
        """
        self.check_level(level)
        entries: Tensor = self._model.quantizer.layers[level].codebook.embed
        return entries.clone()

    @torch.no_grad()
    def embed(self, codes: Codes) -> Tensor:
        """What the decoder takes for these codes: the sum of their entries over the levels.

        Args:
            codes: of this codec; the first levels may be given alone.

        Returns:
            float32 [B, D, F]; frames past the end of an item are those of id 0.

        Raises:
            UsageError: as `decode`.
        """
        self.check_codes(codes)
        return embedded(self._model, codes.ids.to(self._device))

    def _prepared(self, audio: Audio) -> Tensor:
        """A recording as float32 [C, T] of the network's rate and channels."""
        channels = self.facts.channels
        fitting = audio if audio.channels == channels else audio.mono()
        samples = fitting.resampled(self.facts.sample_rate).tensor().to(self._device)
        return samples.expand(channels, -1)

    def _pieces(self, codes: Codes, item: int, window: int) -> Iterator[np.ndarray]:
        """Samples [C, n] of one item, piece by piece."""
        ids = codes.item(item).to(self._device)
        scales = codes.scales
        if scales is not None:
            scales = scales[item, : ids.shape[-1]].to(self._device)
        pieces = self._network.play(ids, scales, window)
        while True:
            # The mode must not be left on while the caller holds the iterator.
            with torch.inference_mode():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece.cpu().numpy()

    def _frames(self, seconds: float) -> int:
        return frames_at_once(seconds, self.facts.frame_rate)


def _check_facts(spec: ComponentSpec, config: NetworkConfig, path: object) -> None:
    facts = spec.facts
    assert isinstance(facts, CodecFacts)
    claims = (
        ("sample rate", facts.sample_rate, config.sampling_rate),
        ("channels", facts.channels, config.audio_channels),
        ("frame rate", facts.frame_rate, config.frame_rate),
        ("ids per codebook", facts.codebook_size, config.codebook_size),
    )
    check_promises(spec, path, claims, codebooks=config.codebooks)


def _network(config: NetworkConfig) -> EncodecModel:
    """A network with plain weights, which are loaded next."""
    sizes = EncodecConfig(**config.model_dump(mode="json"))
    with torch.random.fork_rng(devices=[]):  # what is drawn for it is replaced
        model = EncodecModel(sizes)
    for module in model.modules():
        if nn.utils.parametrize.is_parametrized(module, "weight"):
            nn.utils.parametrize.remove_parametrizations(module, "weight")
    return model


def _drawn(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random tensors for a network, of a size that keeps signals alive on their way through."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in model.state_dict().items():
        entries = value.ndim < 2 or ".codebook." in name
        fan_in = 1 if entries else math.prod(value.shape[1:])
        gain = RESIDUAL_GAIN if ".block." in name else 1.0
        tensors[name] = torch.randn(value.shape, generator=draw) * gain / math.sqrt(fan_in)
    return tensors
