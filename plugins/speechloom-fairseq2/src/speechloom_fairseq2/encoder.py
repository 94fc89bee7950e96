"""fairseq2's wav2vec 2.0 and w2v-BERT encoders up to one layer, and where their files come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from fairseq2.assets import (
    AssetDownloadError,
    AssetNotFoundError,
    get_asset_download_manager,
    get_asset_store,
)
from fairseq2.data.audio import WaveformToFbankConverter
from fairseq2.models.w2vbert import W2VBertConfig, convert_w2vbert_state_dict, get_w2vbert_model_hub
from fairseq2.models.wav2vec2 import (
    Wav2Vec2Config,
    Wav2Vec2EncoderConfig,
    Wav2Vec2EncoderFactory,
    convert_wav2vec2_state_dict,
    get_wav2vec2_model_hub,
)
from fairseq2.nn import BatchLayout
from fairseq2.utils.uri import Uri
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from speechloom.checkpoints import find_checkpoint, load_exactly, read_checkpoint
from speechloom.errors import WeightsError
from speechloom.published import buildable

__all__ = ["SpeechEncoder", "file_of", "load_encoder", "tiny_encoder"]

FBANK_HOP, FBANK_WINDOW = 160, 400
"""Samples at 16 kHz between mel frames, and of one."""

_WEIGHTS = ("model.pt", "model.safetensors")
"""What is looked for in a folder or a hub repository."""


class SpeechEncoder(nn.Module):
    """The front end and the first layers of an encoder.

    Args:
        config: sizes, with as many layers as are wanted.
        normalize: whether samples are given zero mean and unit variance.
    """

    def __init__(self, config: Wav2Vec2EncoderConfig, *, normalize: bool) -> None:
        super().__init__()
        factory = Wav2Vec2EncoderFactory(config)
        # The names of fairseq2, so that its checkpoints fit.
        self.encoder_frontend = factory.create_encoder_frontend()
        self.encoder = factory.create_encoder()
        # What is clustered is the output of a layer; a final norm belongs to none.
        self.encoder.register_module("layer_norm", None)
        self.config = config
        self.normalize = normalize
        self.hop, self.window = _frame_samples(config)

    def forward(self, samples: Tensor) -> Tensor:
        """Features float32 [ceil(T / hop), D] of samples float32 [T] at 16 kHz.

        The end is followed by as much silence as its last frame needs.
        """
        frames = -(-len(samples) // self.hop)
        if self.normalize:
            samples = F.layer_norm(samples, samples.shape)
        needed = (frames - 1) * self.hop + self.window
        samples = F.pad(samples, (0, needed - len(samples)))
        inputs = (_mel(samples, self.config) if self.config.use_fbank else samples)[None]
        hidden, layout = self.encoder_frontend(inputs, BatchLayout.of(inputs))
        features: Tensor = self.encoder(hidden, layout)
        return features[0, :frames]


def _frame_samples(config: Wav2Vec2EncoderConfig) -> tuple[int, int]:
    """Samples from frame to frame, and those that one frame is made of."""
    if config.use_fbank:
        hop = FBANK_HOP * config.fbank_stride
        return hop, FBANK_WINDOW + hop - FBANK_HOP
    hop, window = 1, 1
    for _, kernel, stride in config.feature_extractor_layer_descs:
        window += (kernel - 1) * hop
        hop *= stride
    return hop, window


def _mel(samples: Tensor, config: Wav2Vec2EncoderConfig) -> Tensor:
    """Standardised log-mel filter banks [frames, D], of 16-bit full scale as w2v-BERT knows it."""
    convert = WaveformToFbankConverter(
        num_mel_bins=config.num_fbank_channels,
        waveform_scale=2.0**15,
        channel_last=True,
        standardize=True,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    made = convert({"waveform": samples.cpu()[:, None], "sample_rate": 16_000})
    banks: Tensor = made["fbank"]
    return banks.to(samples.device)


def load_encoder(options: Mapping[str, Any]) -> tuple[SpeechEncoder, Path]:
    """The encoder of a spec's options, up to the layer that they name, and its file.

    Raises:
        WeightsError: it cannot be found, is damaged, unsafe or of another model.
    """
    config = _config(options)
    path = file_of(options["checkpoint"], options)
    content = read_checkpoint(path)
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}; give a checkpoint of fairseq2"
        )
    tensors = _encoder_tensors(dict(content), config, path)
    sizes = _encoder_config(config)
    layer = options["layer"]
    if not 1 <= layer <= sizes.num_encoder_layers:
        raise WeightsError(
            f"layer {layer} was asked for, but {options['checkpoint']} has layers 1 to "
            f"{sizes.num_encoder_layers}"
        )
    wanted_sizes = replace(sizes, num_encoder_layers=layer)
    with buildable(options["checkpoint"]):
        encoder = SpeechEncoder(wanted_sizes, normalize=options["normalize"])
    wanted = encoder.state_dict()
    load_exactly(encoder, {k: v for k, v in tensors.items() if k in wanted}, path)
    return encoder.eval().requires_grad_(False), path


def _config(options: Mapping[str, Any]) -> Wav2Vec2Config | W2VBertConfig:
    """Sizes of a card or an architecture, with the spec's own changes."""
    hub: Any = get_w2vbert_model_hub() if _is_bert(options) else get_wav2vec2_model_hub()
    card = _card(options["checkpoint"])
    if card is None and options["arch"] not in hub.get_archs():
        raise WeightsError(
            f"fairseq2 knows no {options['family']} architecture {options['arch']!r}; it has "
            f"{', '.join(sorted(hub.get_archs()))}"
        )
    config = hub.get_arch_config(options["arch"]) if card is None else hub.get_model_config(card)
    try:
        changed = replace(_encoder_config(config), **(options["config"] or {}))
    except TypeError as error:
        raise WeightsError(
            f"fairseq2's Wav2Vec2EncoderConfig has no such fields: {error}; correct the config "
            "that was given to spec_for"
        ) from error
    if isinstance(config, W2VBertConfig):
        return replace(config, w2v2_config=replace(config.w2v2_config, encoder_config=changed))
    return replace(cast("Wav2Vec2Config", config), encoder_config=changed)


def _is_bert(options: Mapping[str, Any]) -> bool:
    return bool(options["family"] == "w2vbert")


def _encoder_config(config: Wav2Vec2Config | W2VBertConfig) -> Wav2Vec2EncoderConfig:
    return (config.w2v2_config if isinstance(config, W2VBertConfig) else config).encoder_config


def _encoder_tensors(
    content: dict[str, object], config: Wav2Vec2Config | W2VBertConfig, path: Path
) -> dict[str, Tensor]:
    """Tensors of a checkpoint of fairseq2, or of fairseq by fairseq2's names."""
    try:
        if isinstance(config, W2VBertConfig):
            content = convert_w2vbert_state_dict(content, config)
        else:
            content = convert_wav2vec2_state_dict(content, config)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} is no checkpoint of this family ({type(error).__name__}: {error}); give one "
            "of fairseq2's wav2vec2 or w2vbert"
        ) from error
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    return {name.removeprefix("w2v2_model."): value for name, value in tensors.items()}


def file_of(location: str, options: Mapping[str, Any]) -> Path:
    """The local file of a checkpoint or of centroids.

    Raises:
        WeightsError: it cannot be found, or not be had without a network.
    """
    uri = _card_uri(location) or (Uri.maybe_parse(location) if "://" in location else None)
    if uri is None:
        found = find_checkpoint(
            location, [_WEIGHTS], revision=options["revision"], sha256=options["sha256"]
        )
        return next(iter(found.values()))
    try:
        path = get_asset_download_manager().download_model(uri)
    except (AssetDownloadError, OSError) as error:
        raise WeightsError(
            f"{uri} is not in fairseq2's cache and cannot be downloaded ({error}); run once with a "
            "network, or give the path of a local copy"
        ) from error
    return next(iter(find_checkpoint(path, [_WEIGHTS], sha256=options["sha256"]).values()))


def _card(location: str) -> Any:
    """The asset card that a location names; None where it names something else."""
    if not location.startswith("card:"):
        return None
    try:
        return get_asset_store().retrieve_card(location.removeprefix("card:"))
    except AssetNotFoundError as error:
        raise WeightsError(
            f"fairseq2 has no asset card {location.removeprefix('card:')!r}; "
            "`python -m fairseq2.assets list` shows those that it has"
        ) from error


def _card_uri(location: str) -> Any:
    card = _card(location)
    return None if card is None else card.field("checkpoint").as_uri()


def tiny_encoder(family: str, *, seed: int) -> SpeechEncoder:
    """An encoder of two layers with random weights and the frames of a large one."""
    sizes: dict[str, Any] = {
        "model_dim": 32,
        "num_encoder_layers": 2,
        "num_encoder_attn_heads": 2,
        "ffn_inner_dim": 32,
    }
    if family == "w2vbert":
        large = W2VBertConfig().w2v2_config.encoder_config
        sizes["depthwise_conv_kernel_size"] = 3
    else:
        large = Wav2Vec2Config().encoder_config
        narrow = [(16, kernel, stride) for _, kernel, stride in large.feature_extractor_layer_descs]
        sizes |= {"feature_dim": 16, "feature_extractor_layer_descs": narrow}
        sizes |= {"pos_conv_kernel_size": 8, "num_pos_conv_groups": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SpeechEncoder(replace(large, **sizes), normalize=False)
    return encoder.eval().requires_grad_(False)
