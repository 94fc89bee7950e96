"""What the plugin announces: the public DAC checkpoints, and specs for others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction

from speechloom.checkpoints import lasting_location
from speechloom.errors import UsageError
from speechloom.published import PublicCheckpoint, checkpoint_options
from speechloom.spec import CodecFacts, ComponentSpec
from speechloom_dac.config import NetworkConfig

__all__ = ["DAC_16KHZ", "DAC_24KHZ", "DAC_44KHZ", "spec_for"]


def spec_for(
    checkpoint: str | os.PathLike[str],
    *,
    id: str,
    codes: str | None = None,
    num_codebooks: int | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    """The spec of a DAC checkpoint, to be given to ``Registry.register`` with `DacCodec`.

    Args:
        checkpoint: hub id, folder, or file: the layout of transformers (``config.json`` and
            ``model.safetensors``) or the original package's ``weights.pth``. Its configuration is
            read, from the hub too where it is not in the cache.
        id: of the component.
        codes: name of the code set, shared with the generators that were trained on it; the id
            when not given.
        num_codebooks: levels to use, from the first on; all when not given.
        revision: branch, tag or commit of a hub id.
        sha256: promised hash by file name; checked whenever the weights are loaded.
        weights_license: SPDX id, or a sentence.

    Raises:
        WeightsError: the checkpoint cannot be found or is of another model.
        UsageError: there are fewer codebooks than asked for.
    """
    from speechloom_dac.weights import WEIGHT_NAMES, read_config

    location = lasting_location(checkpoint)
    config = read_config(PublicCheckpoint(location, WEIGHT_NAMES, revision, sha256))
    return _spec(
        id,
        codes or id,
        config,
        location,
        num_codebooks=num_codebooks,
        revision=revision,
        sha256=sha256,
        weights_license=weights_license,
    )


def _spec(
    id_: str,
    codes: str,
    config: NetworkConfig,
    checkpoint: str,
    *,
    num_codebooks: int | None = None,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    weights_license: str | None = None,
) -> ComponentSpec:
    codebooks = config.codebooks if num_codebooks is None else num_codebooks
    if not 1 <= codebooks <= config.codebooks:
        raise UsageError(
            f"num_codebooks must lie in 1 to {config.codebooks}, the codebooks of {checkpoint}, "
            f"but is {codebooks}"
        )
    frame_rate = Fraction(config.sample_rate, config.hop)
    return ComponentSpec(
        id=id_,
        implementation="speechloom_dac.codec:DacCodec",
        facts=CodecFacts(
            codes=codes,
            sample_rate=config.sample_rate,
            frame_rate=frame_rate,
            codebooks=codebooks,
            codebook_size=config.codebook_size,
            context_frames=max(config.encoder_reach, config.decoder_reach),
        ),
        summary=(
            f"Descript Audio Codec, {config.sample_rate / 1000:g} kHz mono: {codebooks} codebooks "
            f"of {config.codebook_size} at {float(frame_rate):.4g} Hz"
        ),
        license="Apache-2.0",
        weights_license=weights_license,
        requires=("torch>=2.6", "transformers>=4.57", "huggingface_hub", "safetensors"),
        install="pip install speechloom-dac",
        homepage="https://github.com/descriptinc/descript-audio-codec",
        options=checkpoint_options(
            checkpoint, revision=revision, sha256=sha256, rates=list(config.rates)
        ),
    )


def _published(
    name: str, sample_rate: int, rates: tuple[int, ...], codebooks: int
) -> ComponentSpec:
    config = NetworkConfig(
        sample_rate=sample_rate,
        rates=rates,
        codebooks=codebooks,
        codebook_size=1024,
        codebook_dim=8,
        latent_size=1024,
        encoder_size=64,
        decoder_size=1536,
    )
    return _spec(
        f"dac-{name}", f"dac-{name}", config, f"descript/dac_{name}", weights_license="MIT"
    )


DAC_16KHZ = _published("16khz", 16_000, (2, 4, 5, 8), 12)
DAC_24KHZ = _published("24khz", 24_000, (2, 4, 5, 8), 32)
DAC_44KHZ = _published("44khz", 44_100, (2, 4, 8, 8), 9)
