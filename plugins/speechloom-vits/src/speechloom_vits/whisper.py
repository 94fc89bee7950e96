"""The encoder of Whisper as content: features of what is said, at 50 Hz."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechloom.checkpoints import (
    find_checkpoint,
    load_exactly,
    read_checkpoint,
    sha256_of,
)
from speechloom.errors import UsageError, WeightsError
from speechloom.published import PublishedComponent
from speechloom.spec import ComponentSpec, TokenizerFacts
from speechloom.values import Audio, Features, frames_in, pad_stack
from speechloom_vits.tiny import build_drawn

__all__ = ["WhisperContent"]

SECONDS = 30
"""What a Whisper encoder sees at once; shorter recordings are followed by silence."""

_PREFIXES = ("model.encoder.", "encoder.")


class WhisperContent(PublishedComponent):
    """Hidden states of a Whisper encoder (arXiv:2212.04356), of any size.

    Recordings are encoded one after the other, each padded to 30 s; the frames of the padding are
    cut off.

    Args:
        spec: made by `speechloom_vits.whisper_spec_for`.
        encoder: of transformers.
        weights: sha256 by file name.
        device: where it runs.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        encoder: WhisperEncoder,
        *,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._encoder = encoder.train(False).requires_grad_(False).to(device)
        self._mels = WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
        self._device = torch.device(device)

    @property
    def encoder(self) -> WhisperEncoder:
        """The network, of transformers."""
        return self._encoder

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> WhisperContent:
        """The checkpoint that ``spec.options`` names; its decoder is not read.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the spec says.
        """
        options = spec.options
        (path,) = find_checkpoint(
            options["checkpoint"],
            [("model.safetensors", "pytorch_model.bin")],
            revision=options["revision"],
            sha256=options["sha256"],
        ).values()
        with torch.device("meta"):
            encoder = WhisperEncoder(WhisperConfig(**options["config"]))
        tensors = {
            name.removeprefix(prefix): value
            for name, value in read_checkpoint(path).items()
            for prefix in _PREFIXES
            if name.startswith(prefix)
        }
        if not tensors:
            raise WeightsError(f"{path} has no encoder; give a Whisper checkpoint")
        load_exactly(encoder, {k: v.float() for k, v in tensors.items()}, path)
        return cls(spec, encoder, weights={path.name: sha256_of(path)}, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> WhisperContent:
        """One layer of the same width."""
        config: dict[str, Any] = {
            **spec.options["config"],
            "encoder_layers": 1,
            "encoder_attention_heads": 1,
            "encoder_ffn_dim": 8,
        }
        return cls(spec, build_drawn(lambda: WhisperEncoder(WhisperConfig(**config)), seed))

    def encode(self, audio: Sequence[Audio]) -> Features:
        """Features [B, D, F] of recordings of any rate and channel count.

        Raises:
            UsageError: a recording is longer than 30 s.
        """
        facts = self._facts
        for one in audio:
            if one.seconds > SECONDS:
                raise UsageError(
                    f"a recording lasts {one.seconds:.1f} s, but Whisper sees at most {SECONDS} s "
                    "at once; cut it"
                )
        with torch.inference_mode():
            rows = [self._one(item).cpu() for item in audio]
        lengths = torch.tensor([row.shape[1] for row in rows])
        return Features(pad_stack(rows, 0.0), facts.vocabulary, facts.frame_rate, lengths)

    def _one(self, audio: Audio) -> Tensor:
        """Features [D, F] of one recording."""
        facts = self._facts
        samples = audio.mono().resampled(facts.sample_rate).samples[0]
        mel = self._mels(
            np.ascontiguousarray(samples[: SECONDS * facts.sample_rate]),
            sampling_rate=facts.sample_rate,
            return_tensors="pt",
        ).input_features
        hidden: Tensor = self._encoder(mel.to(self._device)).last_hidden_state[0]
        return hidden.T[:, : frames_in(audio.length, audio.sample_rate, facts.frame_rate)]

    @property
    def _facts(self) -> TokenizerFacts:
        facts = self.spec.facts
        assert isinstance(facts, TokenizerFacts)
        return facts
