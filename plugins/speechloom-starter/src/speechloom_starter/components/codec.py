"""The starter's codec."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from speechloom.errors import UsageError
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom.values import Audio, Codes, pad_stack
from speechloom.windows import over_windows, plan_windows
from speechloom_starter.blocks import build_seeded
from speechloom_starter.codec_model import CodecConfig, CodecModel
from speechloom_starter.components.base import WINDOW_FRAMES, StarterComponent, coded, samples_of
from speechloom_starter.mel import HOP, SAMPLE_RATE
from speechloom_starter.weights import load_codec

__all__ = ["StarterCodec"]


class StarterCodec(StarterComponent):
    """16 kHz mono, 8 codebooks of 1024 at 50 Hz; see `CodecModel`."""

    uses = ("codec",)

    def __init__(
        self, spec: ComponentSpec, model: CodecModel, *, trained: bool, device: str = "cpu"
    ) -> None:
        super().__init__(spec, trained=trained)
        self._model = model.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> StarterCodec:
        """The shipped codec."""
        return cls(spec, load_codec(), trained=True, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> StarterCodec:
        """A tiny one of the same layout."""
        return cls(spec, build_seeded(lambda: CodecModel(CodecConfig.tiny()), seed), trained=False)

    @torch.inference_mode()
    def encode(self, audio: Sequence[Audio]) -> Codes:
        """Codes [B, 8, F]; recordings are coded one by one, long ones in windows."""
        facts = self._facts
        rows = [
            coded(self._model.encode, samples, self._model.encoder_reach_frames)[0]
            for samples in samples_of(audio, self._device)
        ]
        lengths = torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
        ids = pad_stack([row.cpu() for row in rows])
        return Codes(ids, facts.codes, facts.codebook_size, facts.frame_rate, lengths)

    def codebook(self, level: int) -> Tensor:
        """The vectors of a level, for generators whose embeddings start from them.

        Args:
            level: from 0.

        Returns:
            float32 [V, D]: what each id of this level adds to a frame.

        Raises:
            UsageError: there is no such level.
        """
        levels = self._facts.codebooks
        if not 0 <= level < levels:
            raise UsageError(f"{self.spec.id} has levels 0 to {levels - 1}, not {level}")
        return self._model.quantizer.codebooks[level].clone()

    @torch.inference_mode()
    def decode(self, codes: Codes) -> list[Audio]:
        """Audio of 320 samples per frame; the first k <= 8 codebooks may be given alone.

        Raises:
            UsageError: the codes are of another codec, or of more codebooks.
        """
        facts = self._facts
        if codes.codec != facts.codes or codes.codebooks > facts.codebooks:
            raise UsageError(
                f"{self.spec.id} decodes up to {facts.codebooks} codebooks of codes:{facts.codes}, "
                f"but got {codes.codebooks} of {codes.kind}"
            )
        items = [codes.item(i) for i in range(len(codes.lengths))]
        return [Audio(self._samples(ids).cpu().numpy(), SAMPLE_RATE) for ids in items]

    def _samples(self, ids: Tensor) -> Tensor:
        """Samples float32 [1, 320 F] of ids [K, F], long ones in windows."""
        windows = plan_windows(ids.shape[-1], WINDOW_FRAMES, self._model.decoder_reach_frames)
        given = ids[None].to(self._device)
        return torch.cat(list(over_windows(self._model.decode, given, windows, gives=HOP)), -1)

    @property
    def _facts(self) -> CodecFacts:
        assert isinstance(self.spec.facts, CodecFacts)
        return self.spec.facts
