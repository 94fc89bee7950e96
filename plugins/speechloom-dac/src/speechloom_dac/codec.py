"""The DAC codec over the networks of transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DacConfig, DacModel

from speechloom.checkpoints import load_exactly, sha256_of
from speechloom.published import (
    PublicCheckpoint,
    PublishedCodec,
    buildable,
    check_promises,
    stacked_codes,
)
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom.values import Audio, Codes
from speechloom.windows import Window, frames_at_once, over_windows, plan_windows
from speechloom_dac.config import NetworkConfig
from speechloom_dac.layers import make_lean
from speechloom_dac.weights import WEIGHT_NAMES, read_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DacCodec"]

WINDOW_SECONDS = 32.0
"""What is encoded or decoded at once; longer signals take as much memory as this.

Up to here a recording is one pass, and its codes are the original's to the bit. A window's products
round differently from those of the whole, and where two entries are almost equally near another one
can be taken: up to two codes in ten thousand were seen.
"""

RESIDUAL_GAIN = 0.3
"""Of random weights: residual units that add little do not amplify rounding errors."""


class DacCodec(PublishedCodec):
    """The Descript Audio Codec (Kumar et al. 2023, arXiv:2306.06546).

    Encoder and decoder are those of transformers' ``DacModel``; quantisation follows the original
    package, whose codes these are. It differs from the original's ``compress`` in three ways:
    nothing is normalised in loudness, codes are those of the whole signal (``compress`` codes
    signals above a second in pieces without padding, which changes their ends), and the audio has
    exactly ``hop`` samples a frame: strides of 5 make the original a few samples shorter (8 at 16
    and 24 kHz), which are silent here.

    Recordings are encoded one after the other, in windows, mono, at the codec's rate.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        config: NetworkConfig,
        model: DacModel,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._config = config
        self._model = model.train(False).requires_grad_(False).to(device)
        make_lean(self._model)
        self._levels = self._model.quantizer.quantizers[: self.facts.codebooks]
        # Codes are looked up by angle: the directions of the entries, once.
        self._directions = [functional.normalize(one.codebook.weight) for one in self._levels]
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> DacCodec:
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
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> DacCodec:
        """A tiny one of the same rates and codebooks."""
        facts = spec.facts
        assert isinstance(facts, CodecFacts)
        rates = tuple(spec.options["rates"])
        config = NetworkConfig(
            sample_rate=facts.sample_rate,
            rates=rates,
            codebooks=facts.codebooks,
            codebook_size=facts.codebook_size,
            codebook_dim=4,
            latent_size=8,
            encoder_size=2,
            decoder_size=2 * 2 ** len(rates),
        )
        model = _network(config)
        load_exactly(model, _drawn(model, seed), "random weights")
        return cls(spec, config, model, weights={})

    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Codes [B, K, F] of recordings of any rate and channel count.

        Args:
            audio: B recordings.
        """
        with torch.inference_mode():
            rows = [self._ids(samples).cpu() for samples in self._prepared(audio)]
        # Stacked outside, so that training may use the ids.
        return stacked_codes(rows, self.facts)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> list[Audio]:
        """Audio of ``hop`` samples per frame.

        Args:
            codes: of this codec; the first levels may be given alone.

        Raises:
            UsageError: the codes are of another codec, have more levels than it uses, or no frames.
        """
        self.check_playable(codes)
        items = [codes.item(index).to(self._device) for index in range(len(codes.lengths))]
        return [Audio(self._samples(ids).cpu().numpy(), self.facts.sample_rate) for ids in items]

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
        entries = self._levels[level].codebook.weight
        projected: Tensor = self._levels[level].out_proj(entries.T[None])[0].T
        return projected.contiguous()

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
        return self._latents(codes.ids.to(self._device))

    # Encoding -----------------------------------------------------------------------------

    def _prepared(self, audio: Sequence[Audio]) -> Iterator[Tensor]:
        """Each recording as float32 [1, 1, F x hop], padded with silence to whole frames."""
        for one in audio:
            samples = one.mono().resampled(self._config.sample_rate).tensor()[None]
            missing = -samples.shape[-1] % self._config.hop
            yield functional.pad(samples, (0, missing)).to(self._device)

    def _ids(self, samples: Tensor) -> Tensor:
        """Ids int64 [K, F] of samples [1, 1, F x hop]."""
        frames = samples.shape[-1] // self._config.hop
        windows = self._windows(frames, self._config.encoder_reach)
        encoded = over_windows(self._model.encoder, samples, windows, takes=self._config.hop)
        return torch.cat([self._quantized(latents) for latents in encoded], -1)

    def _quantized(self, latents: Tensor) -> Tensor:
        """Ids int64 [K, F] of latents [1, D, F], level by level of what is left.

        The arithmetic is that of the original, straight-through sum included, so that near ties
        fall to the same side.
        """
        left = latents
        ids = []
        for level, directions in zip(self._levels, self._directions, strict=True):
            query = level.in_proj(left)
            found = _nearest(query[0].T, directions)
            entry = level.codebook(found).T[None]
            left = left - level.out_proj(query + (entry - query))
            ids.append(found)
        return torch.stack(ids)

    # Decoding -----------------------------------------------------------------------------

    def _samples(self, ids: Tensor) -> Tensor:
        """Samples float32 [1, F x hop] of ids [K, F]."""
        frames, hop = ids.shape[-1], self._config.hop
        windows = self._windows(frames, self._config.decoder_reach)
        pieces = list(over_windows(self._played, ids[None], windows, gives=hop))
        samples = torch.cat(pieces, -1)[0]
        return functional.pad(samples, (0, frames * hop - samples.shape[-1]))

    def _played(self, ids: Tensor) -> Tensor:
        played: Tensor = self._model.decoder(self._latents(ids))
        return played

    def _latents(self, ids: Tensor) -> Tensor:
        """The sum of the projected entries, float32 [B, D, F], of ids [B, k, F]."""
        total: Tensor | int = 0
        for level, row in zip(self._levels, ids.unbind(1), strict=False):
            total = total + level.out_proj(level.codebook(row).transpose(1, 2))
        assert isinstance(total, Tensor)
        return total

    def _windows(self, frames: int, reach: int) -> list[Window]:
        window = frames_at_once(WINDOW_SECONDS, self.facts.frame_rate)
        return plan_windows(frames, window, reach)


def _nearest(queries: Tensor, directions: Tensor) -> Tensor:
    """For each query [F, D] the entry [V, D] of the smallest angle, int64 [F]."""
    unit = functional.normalize(queries)
    lengths = directions.pow(2).sum(1, keepdim=True).T
    distances = unit.pow(2).sum(1, keepdim=True) - 2 * unit @ directions.T + lengths
    return (-distances).max(1).indices


def _check_facts(spec: ComponentSpec, config: NetworkConfig, path: object) -> None:
    facts = spec.facts
    assert isinstance(facts, CodecFacts)
    claims = (
        ("sample rate", facts.sample_rate, config.sample_rate),
        ("strides", tuple(spec.options["rates"]), config.rates),
        ("ids per codebook", facts.codebook_size, config.codebook_size),
    )
    check_promises(spec, path, claims, codebooks=config.codebooks)


def _network(config: NetworkConfig) -> DacModel:
    """A network without memory; its weights are loaded next."""
    sizes = DacConfig(
        encoder_hidden_size=config.encoder_size,
        downsampling_ratios=list(config.rates),
        decoder_hidden_size=config.decoder_size,
        n_codebooks=config.codebooks,
        codebook_size=config.codebook_size,
        codebook_dim=config.codebook_dim,
        sampling_rate=config.sample_rate,
    )
    sizes.hidden_size = config.latent_size  # which DacConfig derives and some checkpoints choose
    with torch.device("meta"):
        return DacModel(sizes)


def _drawn(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random tensors for a network, of a size that keeps signals alive on their way through."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, value in model.state_dict().items():
        if name.endswith("alpha"):
            tensors[name] = torch.ones(value.shape)
            continue
        fan_in = math.prod(value.shape[1:]) if value.ndim > 2 else 1
        gain = RESIDUAL_GAIN if ".res_unit" in name else 1.0
        tensors[name] = torch.randn(value.shape, generator=draw) * gain / math.sqrt(fan_in)
    return tensors
