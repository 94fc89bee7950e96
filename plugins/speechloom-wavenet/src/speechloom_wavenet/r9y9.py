"""Settings and weights of r9y9/wavenet_vocoder (MIT), both generations.

Version 0.1.1 of the package index upsamples by transposed convolutions, gives conditioning
projections a bias, scales skip sums layer by layer, and takes mels scaled to [0, 1]. The later one
of its repository stretches and smooths, and takes logarithmic mels standardised over the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from speechloom.checkpoints import fold_weight_norm
from speechloom.errors import WeightsError
from speechloom.mel import MelSpec
from speechloom_wavenet.config import WaveNetConfig

__all__ = ["config", "tensors"]

PREEMPHASIS = 0.85
_MODULES = (
    (r"first_conv\.", "first."),
    (r"last_conv_layers\.1\.", "hidden."),
    (r"last_conv_layers\.3\.", "last."),
    (r"conv_layers\.(\d+)\.conv\.", r"layers.\1.dilated."),
    (r"conv_layers\.(\d+)\.conv1x1c\.", r"layers.\1.conditioning."),
    (r"upsample_net\.conv_in\.", "upsampler.look_around."),
)


def config(settings: Mapping[str, Any], path: Path, *, mel: str | None = None) -> WaveNetConfig:
    """The shape that ``hparams.json`` describes.

    Args:
        settings: its content.
        path: of it, for messages.
        mel: kind of the mel spectrogram, where it is another than the settings say.

    Raises:
        WeightsError: it is of a network that a vocoder cannot be.
    """
    is_old = "upsample_net" not in settings
    upsampling = settings if is_old else settings["upsample_params"]
    _check(settings, upsampling, path)
    return WaveNetConfig(
        mel=_mel(settings, is_old).kind if mel is None else mel,
        **_distribution(settings, path),
        log_scale_min=settings["log_scale_min"],
        clamp_scales=is_old,
        layers=settings["layers"],
        stacks=settings["stacks"],
        residual=settings["residual_channels"],
        gate=settings["gate_channels"],
        skip=settings["skip_out_channels"],
        kernel=settings["kernel_size"],
        context=0 if is_old else settings["cin_pad"],
        upsampling="transposed" if is_old else "stretch",
        scales=tuple(upsampling["upsample_scales"]),
        smoothing_bands=upsampling.get("freq_axis_kernel_size", 3 if is_old else 1),
        conditioning_bias=is_old,
        skip_sum=("halving" if settings.get("legacy", True) else "plain") if is_old else "mean",
        preemphasis=PREEMPHASIS if settings.get("preprocess") == "preemphasis" else 0.0,
        gain=settings.get("global_gain_scale") or 1.0,
    )


def _check(settings: Mapping[str, Any], upsampling: Mapping[str, Any], path: Path) -> None:
    """Refuse what changes the computation and is not built here."""
    problems = {
        "is not conditioned on a mel spectrogram": settings["cin_channels"] <= 0,
        "repeats mel frames instead of upsampling them": not settings[
            "upsample_conditional_features"
        ],
        f"upsamples by {settings.get('upsample_net')}": settings.get("upsample_net")
        not in (None, "ConvInUpsampleNetwork"),
        "upsamples with activations": upsampling.get("upsample_activation", "none") != "none",
        "stretches by interpolation": upsampling.get("mode", "nearest") != "nearest",
        f"filters its samples by {settings.get('preprocess')}": settings.get("preprocess")
        not in (None, "", "none", "preemphasis"),
    }
    wrong = [problem for problem, is_so in problems.items() if is_so]
    if wrong:
        raise WeightsError(f"{path} is of a WaveNet that {'; '.join(wrong)}: this is not supported")


def _distribution(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    channels, kind = settings["out_channels"], settings["input_type"]
    family = settings.get("output_distribution", "Logistic")
    if kind == "mulaw-quantize":
        return {"output": "mulaw", "classes": channels}
    if kind == "raw" and family == "Logistic" and channels % 3 == 0:
        return {
            "output": "logistic",
            "mixtures": channels // 3,
            "levels": settings["quantize_channels"],
        }
    if kind == "raw" and family == "Normal" and channels == 2:
        return {"output": "gaussian"}
    raise WeightsError(
        f"{path} is of a WaveNet with input {kind} and {channels} channels of {family}; supported "
        "are mulaw-quantize, raw with 3 n logistic, and raw with 2 normal channels"
    )


def _mel(settings: Mapping[str, Any], is_old: bool) -> MelSpec:
    """The mel of its preprocessing; the old one's window was lws's, which is near to Hann's."""
    rate, fft = settings["sample_rate"], settings["fft_size"]
    window = settings.get("win_length", fft)
    shape: dict[str, Any] = {
        "rate": rate,
        "fft": fft,
        "win": window if window and window > 0 else fft,
        "hop": settings["hop_size"],
        "bands": settings["num_mels"],
        "low": settings["fmin"],
        "high": settings["fmax"] or rate / 2,
    }
    if not is_old:
        return MelSpec(**shape, log="log10", floor=1e-10)
    low, reference = settings.get("min_level_db", -100), settings.get("ref_level_db", 20)
    return MelSpec(
        **shape,
        log="db",
        floor=10 ** (low / 20),
        span=(low + reference, reference),
        onto=(0, 1),
    )


def tensors(
    content: object, config: WaveNetConfig, path: Path, *, speaker: int | None = None
) -> dict[str, Tensor]:
    """The weights by our names, weight normalisation folded.

    Args:
        content: of the checkpoint file.
        config: of the network.
        path: of the file, for messages.
        speaker: whose embedding is built in, for networks of several speakers.

    Raises:
        WeightsError: it holds no weights, or the speaker is missing or unknown.
    """
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} has no state_dict; give a checkpoint of wavenet_vocoder")
    folded = _renamed(fold_weight_norm({str(name): value for name, value in state.items()}))
    for layer in range(config.layers):
        _join_projections(folded, layer)
        _fold_speaker(folded, layer, speaker, path)
    folded.pop("embed_speakers.weight", None)
    return folded


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for old, value in state.items():
        name = old
        for pattern, ours in _MODULES:
            name = re.sub(f"^{pattern}", ours, name)
        # Upsampling steps stand between stretches, or between activations.
        name = re.sub(
            r"^(?:upsample_net\.upsample\.up_layers|upsample_conv)\.(\d+)\.",
            lambda match: f"upsampler.steps.{int(match[1]) // 2}.",
            name,
        )
        renamed[name] = value
    return renamed


def _join_projections(state: dict[str, Tensor], layer: int) -> None:
    """Residual and skip projection are one matrix here."""
    for part in ("weight", "bias"):
        names = [f"conv_layers.{layer}.conv1x1_{which}.{part}" for which in ("out", "skip")]
        if all(name in state for name in names):
            state[f"layers.{layer}.out.{part}"] = torch.cat([state.pop(name) for name in names])


def _fold_speaker(state: dict[str, Tensor], layer: int, speaker: int | None, path: Path) -> None:
    """One speaker's embedding is a bias of every layer."""
    weight = state.pop(f"conv_layers.{layer}.conv1x1g.weight", None)
    bias = state.pop(f"conv_layers.{layer}.conv1x1g.bias", None)
    if weight is None:
        return
    table = state.get("embed_speakers.weight")
    count = 0 if table is None else len(table)
    if table is None or speaker is None or not 0 <= speaker < count:
        raise WeightsError(
            f"{path} is of {count} speakers; give speaker=0 to {count - 1}, not {speaker}"
        )
    added = weight[:, :, 0] @ table[speaker]
    own = f"layers.{layer}.dilated.bias"
    state[own] = state[own] + added + (0 if bias is None else bias)
