"""HuBERT and WavLM as they are in ``transformers``: the hidden states of any layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from speechloom.errors import UsageError
from speechloom.values import Audio, Features, pad_stack
from speechloom.windows import Window, plan_windows
from speechloom_hubert.architecture import Architecture

if TYPE_CHECKING:
    import os

__all__ = ["SpeechEncoder"]

SAMPLE_RATE = 16_000


class SpeechEncoder:
    """A HuBERT or WavLM network.

    **Frames.** The convolutions of these networks see `reach` samples (400) and move by `hop`
    (320), so that n frames of sound give them n - 1 frames. We give ceil(seconds x frame_rate):
    the frames of the plain model, unchanged, and the last of them repeated, once or twice.
    A recording that is shorter than `reach` is padded with zeros to it; the plain model refuses it.

    **Batches.** Recordings are run one by one. The first convolution of the base models normalises
    each channel over the whole recording, so that padding would change every frame; and any other
    shape of a batch may round otherwise and turn a unit. Alone and in a batch are the same bits.

    **Long recordings.** Attention and that normalisation see everything, so that windows are an
    approximation: a window with some seconds of context hears what matters for content, but its
    features are not those of the whole recording. Up to `window_seconds` nothing is cut; what is
    longer is cut into windows of equal length.

    Sources: Hsu et al. 2021, HuBERT, arXiv:2106.07447; Chen et al. 2022, WavLM, arXiv:2110.13900.
    The network is that of ``transformers``; layers behind the wanted one are not run, and weight
    normalisation is folded into the weights.

    Args:
        network: a `HubertModel` or `WavLMModel`; it may have fewer layers than `architecture`.
        architecture: of the whole checkpoint.
        name: of its features; layer 6 gives features of the kind ``<name>-l6``.
        normalize: whether recordings are brought to mean 0 and variance 1 first.
        window_seconds: the most that one window keeps; None never cuts.
        context_seconds: what a window hears beside what it keeps, on either side.
        weights: sha256 by file name.
        device: where it runs.

    Raises:
        UsageError: the windows make no sense.
    """

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        *,
        name: str,
        normalize: bool,
        window_seconds: float | None,
        context_seconds: float,
        weights: Mapping[str, str] | None = None,
        device: str = "cpu",
    ) -> None:
        _check_windows(window_seconds, context_seconds)
        self.architecture = architecture
        self.name = name
        self.sample_rate = SAMPLE_RATE
        self.weights: Mapping[str, str] = dict(weights or {})
        self._network = network.eval().requires_grad_(False).to(device)
        self._normalize = normalize
        rate = float(self.frame_rate)
        self._window_frames = math.inf if window_seconds is None else window_seconds * rate
        self._context_frames = int(context_seconds * rate)
        self._device = torch.device(device)
        self._cut: dict[int, nn.Module] = {}

    @classmethod
    def from_checkpoint(
        cls, checkpoint: str | os.PathLike[str], *, device: str = "cpu", **options: Any
    ) -> SpeechEncoder:
        """Load a checkpoint; see `speechloom_hubert.loading.load_encoder` for the options."""
        from speechloom_hubert.loading import load_encoder

        return load_encoder(checkpoint, device=device, **options)

    @classmethod
    def from_random(
        cls, family: str = "hubert", *, hop: int = 320, seed: int = 0, **options: Any
    ) -> SpeechEncoder:
        """A tiny network with random weights; see `speechloom_hubert.loading.random_encoder`."""
        from speechloom_hubert.loading import random_encoder

        return random_encoder(family, hop=hop, seed=seed, **options)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.sample_rate, self.architecture.hop)

    @property
    def width(self) -> int:
        """D, values per frame."""
        return self.architecture.width

    @property
    def layers(self) -> int:
        """The last hidden layer that can be asked for."""
        return len(self._network.encoder.layers)  # type: ignore[arg-type, union-attr]

    def features(self, audio: Sequence[Audio], layer: int) -> Features:
        """Hidden states of one layer.

        Args:
            audio: B recordings of any rate, channels and length.
            layer: 0 (what goes into the first layer) to `layers` (what comes out of the last),
                numbered as in fairseq and ``transformers``. Large models normalise the output of
                their last layer once more; that is left out, as fairseq and ``transformers`` 5
                do (``transformers`` 4 gives its last hidden state normalised).

        Returns:
            Features [B, D, F], zero where padded; item i has ceil(seconds_i x frame_rate) frames.

        Raises:
            UsageError: there is no such layer, or no audio.
        """
        if not audio:
            raise UsageError("there is no audio to encode; give at least one recording")
        rows = [torch.cat(list(self.parts(one, layer))).T.cpu() for one in audio]
        lengths = torch.tensor([row.shape[-1] for row in rows], dtype=torch.int64)
        return Features(pad_stack(rows), f"{self.name}-l{layer}", self.frame_rate, lengths)

    @torch.inference_mode()
    def parts(self, audio: Audio, layer: int) -> Iterator[Tensor]:
        """Hidden states of one recording, window after window, so that memory stays bounded.

        Args:
            audio: of any rate and channel count.
            layer: as `features` takes it.

        Yields:
            float32 [f, D], on the device of the network; together all frames.

        Raises:
            UsageError: there is no such layer.
        """
        network, facts = self._until(layer), self.architecture
        samples = audio.mono().resampled(self.sample_rate).samples[0]
        total = facts.frames(len(samples))
        if self._normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        samples = np.pad(samples, (0, max(0, facts.reach - len(samples))))
        given = facts.original_frames(len(samples))
        for window in self._windows(given):
            end = (window.high - 1) * facts.hop + facts.reach if window.high < given else None
            inputs = torch.from_numpy(samples[window.low * facts.hop : end][None].copy())
            # transformers 4 draws for each layer whether it is dropped, in evaluation mode too.
            with torch.random.fork_rng(devices=[]):
                hidden = network(inputs.to(self._device)).last_hidden_state[0]
            kept = hidden[window.start - window.low : window.stop - window.low]
            held = total - given if window.stop == given else 0
            yield torch.cat([kept, kept[-1:].expand(held, -1)]) if held > 0 else kept

    def _windows(self, frames: int) -> list[Window]:
        """As few windows as may be, all of one length."""
        count = max(1, math.ceil(frames / self._window_frames))
        return plan_windows(frames, math.ceil(frames / count), self._context_frames)

    def _until(self, layer: int) -> nn.Module:
        """The network as far as one layer, over the same weights."""
        if not 0 <= layer <= self.layers:
            raise UsageError(
                f"{self.name} has hidden layers 0 to {self.layers}, but layer {layer} was asked for"
            )
        if layer not in self._cut:
            self._cut[layer] = _cut(self._network, layer)
        return self._cut[layer]


def _check_windows(window_seconds: float | None, context_seconds: float) -> None:
    if window_seconds is not None and not window_seconds >= 1:
        raise UsageError(
            f"window_seconds must be at least 1, or None to never cut, but is {window_seconds}"
        )
    if not 0 <= context_seconds < math.inf:
        raise UsageError(f"context_seconds must be 0 or more, but is {context_seconds}")


def _cut(network: Any, layer: int) -> nn.Module:
    """A network that ends behind one layer and shares its parts with the whole one."""
    encoder = _shallow(network.encoder)
    encoder.layers = network.encoder.layers[:layer]
    if network.config.do_stable_layer_norm:
        encoder.layer_norm = nn.Identity()
    whole = _shallow(network)
    whole.encoder = encoder
    return whole


def _shallow(module: nn.Module) -> nn.Module:
    """A copy of a module with the same children, so that a child can be replaced in it."""
    twin = copy(module)
    twin._modules = dict(module._modules)
    return twin
