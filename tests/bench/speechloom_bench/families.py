"""The families of public tokens: random weights of a size, and both sides that code with them.

A side is what loads a checkpoint and gives two functions: samples to codes, and codes to samples
(None where there are no codes to play). Codes are int64 [K, F], features float32 [F, D].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from speechloom.values import Audio, Codes

__all__ = ["FAMILIES", "Family", "Sides"]

Encode = Callable[[Audio], Tensor]
Decode = Callable[[Tensor], Tensor]
Sides = tuple[Encode, Decode | None]

SEED = 0


@dataclass(frozen=True)
class Family:
    """One kind of network and the package that it comes from.

    Attributes:
        package: distribution of the original.
        module: what of it is imported.
        sample_rate: Hz of the audio that both are given.
        write: makes a checkpoint with random weights; takes its folder and the sizes.
        theirs: the original on a checkpoint.
        ours: the plugin on the same.
        sizes: of the networks, by name; ``public`` is that of the published checkpoints.
        channels: of the audio.
    """

    package: str
    module: str
    sample_rate: int
    write: Callable[[Path, Mapping[str, Any]], None]
    theirs: Callable[[Path], Sides]
    ours: Callable[[Path], Sides]
    sizes: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"public": {}})
    channels: int = 1


def _codes_of(codec: Any) -> Sides:
    """A codec of ours, with what the facts say of its codes."""
    facts = codec.spec.facts
    scales: list[Tensor] = []

    def encode(audio: Audio) -> Tensor:
        codes = codec.encode([audio])
        scales[:] = [] if codes.scales is None else [codes.scales]
        ids: Tensor = codes.ids[0]
        return ids

    def decode(ids: Tensor) -> Tensor:
        if scales:  # of chunks that all have as many frames; the original's last one is shorter
            ids = functional.pad(ids, (0, scales[0].shape[-1] - ids.shape[-1]))
        codes = Codes(
            ids[None],
            facts.codes,
            facts.codebook_size,
            facts.frame_rate,
            scales=scales[0] if scales else None,
        )
        (audio,) = codec.decode(codes)
        return torch.from_numpy(audio.samples)

    return encode, decode


# Descript Audio Codec ---------------------------------------------------------------------


def _write_dac(folder: Path, sizes: Mapping[str, Any]) -> None:
    import dac

    rates = [2, 4, 5, 8]
    network = dac.DAC(
        **sizes, sample_rate=16_000, encoder_rates=rates, decoder_rates=rates[::-1],
        n_codebooks=12,
    )  # fmt: skip
    network.save(str(folder / "weights.pth"), package=False)


def _their_dac(folder: Path) -> Sides:
    import dac

    model = dac.DAC.load(str(folder / "weights.pth")).eval()

    def encode(audio: Audio) -> Tensor:
        ids: Tensor = model.encode(model.preprocess(audio.tensor()[None], 16_000))[1][0]
        return ids

    def decode(ids: Tensor) -> Tensor:
        samples: Tensor = model.decode(model.quantizer.from_codes(ids[None])[0])[0]
        return samples

    return encode, decode


def _our_dac(folder: Path) -> Sides:
    from speechloom_dac import spec_for
    from speechloom_dac.codec import DacCodec

    return _codes_of(DacCodec.from_pretrained(spec_for(folder / "weights.pth", id="bench")))


# EnCodec ----------------------------------------------------------------------------------


def _encodec(name: str, channels: int, sample_rate: int) -> Family:
    def write(folder: Path, sizes: Mapping[str, Any]) -> None:
        import encodec

        network = getattr(encodec.EncodecModel, f"encodec_model_{name}")(pretrained=False)
        for layer in network.quantizer.vq.layers:  # the original starts them with zeros
            layer._codebook.embed.normal_()
        torch.save(network.state_dict(), folder / "encodec.th")

    def theirs(folder: Path) -> Sides:
        import encodec

        model = getattr(encodec.EncodecModel, f"encodec_model_{name}")(pretrained=False)
        model.load_state_dict(torch.load(folder / "encodec.th"))
        model.set_target_bandwidth(6.0)
        model.eval()
        chunks: list[tuple[int, Tensor | None]] = []

        def encode(audio: Audio) -> Tensor:
            frames = model.encode(audio.tensor()[None])
            chunks[:] = [(ids.shape[-1], scale) for ids, scale in frames]
            return torch.cat([ids[0] for ids, _ in frames], -1)

        def decode(ids: Tensor) -> Tensor:
            cut = torch.split(ids[None], [length for length, _ in chunks], -1)
            samples: Tensor = model.decode(
                [(one, scale) for one, (_, scale) in zip(cut, chunks, strict=True)]
            )[0]
            return samples

        return encode, decode

    def ours(folder: Path) -> Sides:
        from speechloom_encodec import spec_for
        from speechloom_encodec.codec import EncodecCodec

        spec = spec_for(folder / "encodec.th", id="bench")
        return _codes_of(EncodecCodec.from_pretrained(spec))

    return Family("encodec", "encodec", sample_rate, write, theirs, ours, channels=channels)


# SpeechTokenizer --------------------------------------------------------------------------

_SPEECHTOKENIZER = {
    "sample_rate": 16_000,
    "strides": [8, 5, 4, 2],
    "n_residual_layers": 1,
    "residual_kernel_size": 3,
    "dilation_base": 2,
    "activation": "ELU",
    "lstm_layers": 2,
    "bidirectional": True,
    "semantic_dimension": 768,
    "n_q": 8,
    "codebook_size": 1024,
}


def _write_speechtokenizer(folder: Path, sizes: Mapping[str, Any]) -> None:
    from speechtokenizer import SpeechTokenizer

    config = {**_SPEECHTOKENIZER, **sizes}
    model = SpeechTokenizer(config)
    for layer in model.quantizer.vq.layers:
        layer._codebook.embed.normal_(std=0.1)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "SpeechTokenizer.pt")


def _their_speechtokenizer(folder: Path) -> Sides:
    from speechtokenizer import SpeechTokenizer

    paths = (str(folder / "config.json"), str(folder / "SpeechTokenizer.pt"))
    model = SpeechTokenizer.load_from_checkpoint(*paths).eval()
    return (
        lambda audio: model.encode(audio.tensor()[None])[:, 0],
        lambda ids: model.decode(ids[:, None])[0],
    )


def _our_speechtokenizer(folder: Path) -> Sides:
    from speechloom_speechtokenizer import SpeechTokenizerCodec, spec_for

    codec = SpeechTokenizerCodec.from_pretrained(spec_for(folder, id="bench"))
    encode, decode = _codes_of(codec)

    def anew(audio: Audio) -> Tensor:
        codec.network.codes_of_audio.clear()  # a recording is not encoded twice otherwise
        return encode(audio)

    return anew, decode


# HuBERT -----------------------------------------------------------------------------------

HUBERT_LAYER = 9


def _write_hubert(folder: Path, sizes: Mapping[str, Any]) -> None:
    from transformers import HubertConfig, HubertModel

    HubertModel(HubertConfig(**sizes)).save_pretrained(folder)


def _their_hubert(folder: Path) -> Sides:
    from transformers import HubertModel, Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=False)
    model = HubertModel.from_pretrained(folder).eval()

    def encode(audio: Audio) -> Tensor:
        samples, rate = audio.samples[0], audio.sample_rate
        inputs = extractor(samples, sampling_rate=rate, return_tensors="pt").input_values
        hidden: Tensor = model(inputs, output_hidden_states=True).hidden_states[HUBERT_LAYER]
        return hidden[0]

    return encode, None


def _our_hubert(folder: Path, **options: Any) -> Sides:
    from speechloom_hubert.encoder import SpeechEncoder

    encoder = SpeechEncoder.from_checkpoint(folder, layers=HUBERT_LAYER, **options)
    return lambda audio: encoder.features([audio], HUBERT_LAYER).values[0].T, None


def _our_whole_hubert(folder: Path) -> Sides:
    return _our_hubert(folder, window_seconds=None)


FAMILIES: dict[str, Family] = {
    "dac-16khz": Family(
        "descript-audio-codec", "dac", 16_000, _write_dac, _their_dac, _our_dac,
        {
            "public": {"encoder_dim": 64, "latent_dim": 1024, "decoder_dim": 1536},
            "narrow": {"encoder_dim": 8, "latent_dim": 64, "decoder_dim": 96},
        },
    ),
    "encodec-24khz": _encodec("24khz", 1, 24_000),
    "encodec-48khz": _encodec("48khz", 2, 48_000),
    "speechtokenizer": Family(
        "speechtokenizer", "speechtokenizer", 16_000, _write_speechtokenizer,
        _their_speechtokenizer, _our_speechtokenizer,
        {
            "public": {"n_filters": 64, "dimension": 1024},
            "narrow": {"n_filters": 16, "dimension": 256},
        },
    ),
    "hubert-base": Family(
        "transformers", "transformers", 16_000, _write_hubert, _their_hubert, _our_hubert
    ),
    "hubert-base-whole": Family(
        "transformers", "transformers", 16_000, _write_hubert, _their_hubert, _our_whole_hubert
    ),
}  # fmt: skip
"""Every family, by the name of its rows."""
