"""The GE2E speaker encoder: a recording to a vector of who speaks.

Source: Wan et al. 2018, "Generalized end-to-end loss for speaker verification" (arXiv:1710.10467),
with the windows of Jia et al. 2018 (arXiv:1806.04558): 40 mel bands in frames of 25 ms every 10 ms,
windows of 160 frames with half of them shared, one embedding a window, their mean at length 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from speechloom.checkpoints import (
    find_checkpoint,
    load_exactly,
    pinned_files,
    read_checkpoint,
    sha256_of,
)
from speechloom.errors import AudioError, UsageError, WeightsError
from speechloom.mel import GE2E
from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec, SpeakerEncoderFacts
from speechloom.values import Audio, Voice
from speechloom.weighted import Weighted
from speechloom_sv2tts.config import Ge2eConfig
from speechloom_sv2tts.speech_only import Vad, speech_of

__all__ = ["Ge2eEncoder", "Ge2eNetwork", "window_starts"]

WINDOW_FRAMES = 160
MIN_COVERAGE = 0.75
"""The last window is left out where less than this share of it is speech."""

WINDOWS_AT_ONCE = 64


class Ge2eNetwork(nn.Module):
    """Mel frames to unit vectors."""

    def __init__(self, config: Ge2eConfig) -> None:
        super().__init__()
        self.config = config
        self.lstm = nn.LSTM(config.bands, config.hidden, config.layers, batch_first=True)
        self.linear = nn.Linear(config.hidden, config.size)

    def forward(self, mel: Tensor) -> Tensor:
        """Embed windows.

        Args:
            mel: float32 [B, F, bands], powers, not logarithms.

        Returns:
            float32 [B, size] of length 1, nothing negative: the rectifier stands before the norm.
        """
        _, (hidden, _) = self.lstm(mel)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1, eps=1e-5)


def window_starts(samples: int, *, step: int) -> list[int]:
    """First frames of the windows that a recording is embedded in.

    Args:
        samples: length at 16 kHz.
        step: frames from one window to the next.

    Returns:
        At least one; the last window may reach up to a quarter beyond the end.
    """
    frames = math.ceil((samples + 1) / GE2E.hop)
    starts = list(range(0, max(1, frames - WINDOW_FRAMES + step + 1), step))
    covered = (samples - starts[-1] * GE2E.hop) / (WINDOW_FRAMES * GE2E.hop)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts


class Ge2eEncoder(Weighted):
    """A recording to a voice of 256 values.

    Before the network: 16 kHz mono, quiet recordings raised to -30 dBFS, pauses cut out
    (`speechloom_sv2tts.speech_only`). The weights are those of the ``resemblyzer`` package or of
    Real-Time-Voice-Cloning; with ``vad="webrtc"`` and ``step=77`` the whole path is resemblyzer's.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: Ge2eNetwork,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        super().__init__(spec, weights)
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> Ge2eEncoder:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is of another network.
        """
        options = spec.options
        path = _weights_path(options["checkpoint"], options.get("sha256"))
        network = Ge2eNetwork(Ge2eConfig.model_validate(options.get("config") or {}))
        load_exactly(network, _encoder_tensors(read_checkpoint(path), path), path)
        return cls(spec, network, weights={path.name: sha256_of(path)}, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> Ge2eEncoder:
        """A tiny network with an output of the same size."""
        facts = cast(SpeakerEncoderFacts, spec.facts)
        config = Ge2eConfig(hidden=8, layers=2, size=facts.size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Ge2eNetwork(config)
        return cls(spec, network, weights={})

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The file whose hash the spec pins; nothing is loaded."""
        location = spec.options["checkpoint"]
        if location == RESEMBLYZER:
            folder = resemblyzer_folder()
            location = "." if folder is None else folder
        return pinned_files(location, sha256=spec.options.get("sha256"))

    @torch.inference_mode()
    def embed(self, audio: Sequence[Audio]) -> list[Voice]:
        """One voice per recording.

        Args:
            audio: recordings of any rate and channels; 3 to 5 s of speech are good, more tells
                little (Jia et al. 2018, table 9).

        Raises:
            AudioError: a recording is too short, or holds no speech.
        """
        facts = cast(SpeakerEncoderFacts, self.spec.facts)
        return [Voice(self._vector(self._speech(one)).cpu().numpy(), facts.voice) for one in audio]

    def named(self, name: str) -> Voice:
        """No voice comes with it.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{self.spec.id} has no voice {name!r}, nor any other; give a recording")

    def _speech(self, audio: Audio) -> Tensor:
        facts = cast(SpeakerEncoderFacts, self.spec.facts)
        if audio.seconds < facts.min_seconds:
            raise AudioError(
                f"the recording of the voice lasts {audio.seconds:.2f} s; at least "
                f"{facts.min_seconds:g} s are needed, and 3 to 5 s are good"
            )
        mono = audio.mono().resampled(facts.sample_rate).samples[0]
        speech = speech_of(mono, cast(Vad, self.spec.options["vad"]))
        if speech.size == 0:
            raise AudioError("the recording of the voice is silent; give one with speech")
        return torch.from_numpy(speech)

    def _vector(self, samples: Tensor) -> Tensor:
        """The mean of the windows' embeddings, float32 [size] of length 1."""
        starts = window_starts(len(samples), step=self.spec.options["step"])
        end = (starts[-1] + WINDOW_FRAMES) * GE2E.hop
        padded = nn.functional.pad(samples, (0, max(0, end - len(samples))))
        mel = GE2E.of_samples(padded[None].to(self._device))[0].T
        windows = [mel[start : start + WINDOW_FRAMES] for start in starts]
        parts = [
            self._network(torch.stack(windows[at : at + WINDOWS_AT_ONCE]))
            for at in range(0, len(windows), WINDOWS_AT_ONCE)
        ]
        return nn.functional.normalize(torch.cat(parts).mean(0), dim=0, eps=1e-5)


# Weights ----------------------------------------------------------------------------------

RESEMBLYZER = "resemblyzer"
"""As a checkpoint: the file inside the installed package of that name."""


def resemblyzer_folder() -> Path | None:
    """Where the package is, found without importing it; None where it is not installed."""
    import importlib.util

    found = importlib.util.find_spec("resemblyzer")
    places = None if found is None else found.submodule_search_locations
    return Path(next(iter(places))) if places else None


def _weights_path(checkpoint: str, sha256: Mapping[str, str] | None) -> Path:
    location: str | Path | None = checkpoint
    if checkpoint == RESEMBLYZER:
        location = resemblyzer_folder()
        if location is None:
            raise WeightsError(
                "the weights of ge2e are those in the package resemblyzer, which is not installed; "
                "run `pip install 'speechloom-sv2tts[ge2e]'`, or make a spec of another file with "
                "speechloom_sv2tts.ge2e_spec"
            )
    names = ("pretrained.pt", "encoder.pt", "ge2e.safetensors")
    (path,) = find_checkpoint(cast("str | Path", location), [names], sha256=sha256).values()
    return path


_TRAINING_ONLY = ("similarity_weight", "similarity_bias")


def _encoder_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """The network's tensors, out of what was saved beside them for training."""
    state = content.get("model_state", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or "lstm.weight_ih_l0" not in state:
        raise WeightsError(
            f"{path} holds no GE2E speaker encoder: tensors named lstm.* and linear.*, or a dict "
            "with them as model_state, are expected; give resemblyzer's pretrained.pt or the "
            "encoder.pt of Real-Time-Voice-Cloning"
        )
    return {name: value for name, value in state.items() if name not in _TRAINING_ONLY}
