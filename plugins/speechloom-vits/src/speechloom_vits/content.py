"""What a recording says, as a VITS of several speakers sees it: the latent of its prior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from speechloom.checkpoints import load_exactly
from speechloom.errors import WeightsError
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Features, frames_in, pad_stack
from speechloom_vits.network import Vits
from speechloom_vits.spectrum import linear_spectrum
from speechloom_vits.tiny import build_tiny
from speechloom_vits.weights import read_weights

__all__ = ["VitsContent"]

POSTERIOR_SEED = 0
"""Content must not depend on the seed of a request: one draw from the posterior for all."""


class VitsContent(PublishedComponent):
    """The first half of VITS's voice conversion (section 4.5 of arXiv:2106.06103).

    Posterior encoder and flow take the speaker out of a recording. They must be told who speaks,
    so there is a component for each speaker: its spec's ``source``.

    Args:
        spec: made by `speechloom_vits.specs_for` or by an export.
        network: with its posterior encoder, and weight normalisation folded in.
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
        self._speaker = self._network.embed_speaker.weight[spec.options["source"]][None, :, None]
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> VitsContent:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, is not what the spec says, or has no
                posterior encoder.
        """
        read = read_weights(spec)
        if not any(name.startswith("posterior_encoder.") for name in read.tensors):
            raise WeightsError(
                f"{read.source} has no posterior encoder, so that it cannot read recordings; give "
                "a checkpoint that was not cut down to text to speech"
            )
        with torch.device("meta"):
            network = Vits(read.config)
        load_exactly(network, read.tensors, read.source)
        return cls(spec, network, weights=read.hashes, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> VitsContent:
        """A tiny one of the same speakers and frame rate."""
        return cls(spec, build_tiny(spec, seed, posterior=True))

    def encode(self, audio: Sequence[Audio]) -> Features:
        """Features [B, L, F] of recordings of any rate and channel count, one after the other."""
        with torch.inference_mode():
            rows = [self._one(item).cpu() for item in audio]
        lengths = torch.tensor([row.shape[1] for row in rows])
        return Features(
            pad_stack(rows, 0.0), self._facts.vocabulary, self._facts.frame_rate, lengths
        )

    def _one(self, audio: Audio) -> Tensor:
        """Features [L, F] of one recording."""
        config, facts = self._network.config, self._facts
        frames = frames_in(audio.length, audio.sample_rate, facts.frame_rate)
        samples = audio.mono().resampled(config.sample_rate).tensor()
        missing = frames * config.hop - samples.shape[-1]
        spectrum = linear_spectrum(
            functional.pad(samples, (0, missing)).to(self._device),
            config.window_samples,
            config.hop,
        )
        draw = np.random.default_rng(POSTERIOR_SEED)
        noise = draw.standard_normal((frames, config.latent_size), np.float32)
        return self._network.prior_latent_of_speech(
            spectrum, torch.from_numpy(noise.T[None].copy()).to(self._device), self._speaker
        )[0]

    @property
    def _facts(self) -> TokenizerFacts:
        facts = self.spec.facts
        assert isinstance(facts, TokenizerFacts)
        return facts
