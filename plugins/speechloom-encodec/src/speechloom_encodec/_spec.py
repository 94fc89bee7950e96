"""What the plugin announces: the two public EnCodec checkpoints, and specs for others."""

from __future__ import annotations

import os
from collections.abc import Mapping

from speechloom.checkpoints import lasting_location
from speechloom.errors import UsageError
from speechloom.published import PublicCheckpoint, checkpoint_options
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom_encodec.config import NetworkConfig

__all__ = ["ENCODEC_24KHZ", "ENCODEC_48KHZ", "spec_for"]

BANDWIDTH = 6.0
"""Default, kbit/s: what the original's examples and most generators over EnCodec use."""


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    codes: str | None = None,
    bandwidth: float | None = None,
    num_codebooks: int | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    """The spec of an EnCodec checkpoint, to be given to ``Registry.register`` with `EncodecCodec`.

    Args:
        checkpoint: hub id, folder, or file: the layout of transformers (``config.json`` and
            ``model.safetensors``) or the original package's ``.th``. Its configuration is read,
            from the hub too where it is not in the cache.
        id: of the component.
        codes: name of the code set, shared with the generators that were trained on it; the id
            when not given.
        bandwidth: kbit/s, one that the network was trained for; 6 when neither this nor
            `num_codebooks` is given.
        num_codebooks: levels to use, from the first on, instead of a bandwidth.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name; checked whenever the weights are loaded.
        weights_license: SPDX id, or a sentence.

    Raises:
        WeightsError: the checkpoint cannot be found or is of another model.
        UsageError: it has no such bandwidth or fewer codebooks, or both were given.
    """
    from speechloom_encodec.weights import WEIGHT_NAMES, read_config

    location = lasting_location(checkpoint)
    config = read_config(PublicCheckpoint(location, WEIGHT_NAMES, revision, sha256))
    return _spec(
        id,
        codes or id,
        config,
        location,
        codebooks=_codebooks(config, bandwidth, num_codebooks),
        revision=revision,
        sha256=sha256,
        weights_license=weights_license,
    )


def _codebooks(config: NetworkConfig, bandwidth: float | None, num_codebooks: int | None) -> int:
    if num_codebooks is None:
        return config.codebooks_at(BANDWIDTH if bandwidth is None else bandwidth)
    if bandwidth is not None:
        raise UsageError("bandwidth and num_codebooks say the same thing; give one of them")
    if not 1 <= num_codebooks <= config.codebooks:
        raise UsageError(
            f"num_codebooks must lie in 1 to {config.codebooks}, but is {num_codebooks}"
        )
    return num_codebooks


def _spec(
    id_: str,
    codes: str,
    config: NetworkConfig,
    checkpoint: str,
    *,
    codebooks: int,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    channels = "mono" if config.audio_channels == 1 else "stereo"
    return ComponentSpec(
        id=id_,
        implementation="speechloom_encodec.codec:EncodecCodec",
        facts=CodecFacts(
            codes=codes,
            sample_rate=config.sampling_rate,
            frame_rate=config.frame_rate,
            codebooks=codebooks,
            codebook_size=config.codebook_size,
            channels=config.audio_channels,
            context_frames=None,  # an LSTM hears all that came before; chunks are not windows
        ),
        summary=(
            f"EnCodec, {config.sampling_rate / 1000:g} kHz {channels}: {codebooks} codebooks of "
            f"{config.codebook_size} at {float(config.frame_rate):.5g} Hz"
        ),
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "transformers>=4.57", "huggingface_hub", "safetensors"),
        install="pip install speechloom-encodec",
        homepage="https://github.com/facebookresearch/encodec",
        options=checkpoint_options(
            checkpoint,
            revision=revision,
            sha256=sha256,
            network=config.model_dump(mode="json"),
        ),
    )


CONFIG_24KHZ = NetworkConfig(
    sampling_rate=24_000, audio_channels=1, target_bandwidths=(1.5, 3.0, 6.0, 12.0, 24.0)
)
CONFIG_48KHZ = NetworkConfig(
    sampling_rate=48_000,
    audio_channels=2,
    target_bandwidths=(3.0, 6.0, 12.0, 24.0),
    normalize=True,
    chunk_length_s=1.0,
    overlap=0.01,
    norm_type="time_group_norm",
    use_causal_conv=False,
)


def _published(name: str, config: NetworkConfig) -> ComponentSpec:
    return _spec(
        f"encodec-{name}",
        f"encodec-{name}",
        config,
        f"facebook/encodec_{name}",
        codebooks=config.codebooks_at(BANDWIDTH),
        weights_license="CC-BY-NC-4.0",
    )


ENCODEC_24KHZ = _published("24khz", CONFIG_24KHZ)
ENCODEC_48KHZ = _published("48khz", CONFIG_48KHZ)
