"""The WaveNet as a vocoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from speechloom.checkpoints import pinned_files, sha256_of
from speechloom.decoding import ExecutionConfig
from speechloom.errors import WeightsError
from speechloom.protocols import WeightFile
from speechloom.spec import ComponentSpec, VocoderFacts
from speechloom.values import Audio, Features
from speechloom.weighted import Weighted
from speechloom_wavenet.checkpoint import load
from speechloom_wavenet.config import WaveNetConfig
from speechloom_wavenet.distribution import mu_law_values
from speechloom_wavenet.network import WaveNet
from speechloom_wavenet.playing import items_of
from speechloom_wavenet.sampler import CompiledSampler
from speechloom_wavenet.samples import from_network
from speechloom_wavenet.stepping import SteppingSampler

__all__ = ["WaveNetVocoder"]


class WaveNetVocoder(Weighted):
    """Draws a recording sample by sample (van den Oord et al. 2016, arXiv:1609.03499).

    The draws of a sample depend on the seed, and on its place in its item: the same features sound
    the same, alone or in a batch. On the CPU the inner loop is compiled; on CUDA one step is a
    captured graph.

    Args:
        spec: its facts say the mel; its options may have ``seed`` (0), ``temperature`` (1.0),
            ``segment_frames`` (None: an item is made in one piece; else long items are made in
            pieces of so many frames at once, cross-faded, which uses more threads and reads the
            weights less often) and ``precision`` of the weights on a CPU (``float32``, or
            ``bfloat16``, faster for single items).
        network: in evaluation mode.
        weights: sha256 by file name.
        device: where it computes.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        network: WaveNet,
        *,
        weights: Mapping[str, str],
        device: str = "cpu",
    ) -> None:
        facts = spec.facts
        assert isinstance(facts, VocoderFacts), f"{spec.id} is a {spec.kind}"
        super().__init__(spec, weights)
        self._facts = facts
        self._network = network.train(False).requires_grad_(False).to(device)
        is_host = torch.device(device).type == "cpu"
        precision = ExecutionConfig(precision=spec.options.get("precision", "float32"))
        self._sampler = (
            CompiledSampler(network, precision.on(device).dtype)
            if is_host
            else SteppingSampler(network)
        )
        self._device = torch.device(device)

    @classmethod
    def from_pretrained(cls, spec: ComponentSpec, *, device: str = "cpu") -> WaveNetVocoder:
        """The checkpoint that ``spec.options`` names.

        Raises:
            WeightsError: it cannot be found, is damaged, or is not what the facts say.
        """
        options = spec.options
        network, path = load(
            options["checkpoint"],
            mel=options.get("mel"),
            statistics=options.get("statistics"),
            speaker=options.get("speaker"),
            revision=options.get("revision"),
            sha256=options.get("sha256"),
        )
        facts = spec.facts
        if isinstance(facts, VocoderFacts) and facts.features != network.config.mel:
            raise WeightsError(
                f"{path} is a WaveNet for {network.config.mel}, but the spec {spec.id} says "
                f"{facts.features}; make the spec anew with `spec_for`"
            )
        return cls(spec, network, weights={path.name: sha256_of(path)}, device=device)

    @classmethod
    def from_random(cls, spec: ComponentSpec, *, seed: int = 0) -> WaveNetVocoder:
        """A tiny one for the same mel."""
        facts = spec.facts
        assert isinstance(facts, VocoderFacts), f"{spec.id} is a {spec.kind}"
        config = WaveNetConfig(
            mel=facts.features,
            output=spec.options.get("output", "mulaw"),
            layers=2,
            stacks=1,
            residual=8,
            gate=16,
            skip=8,
            mixed_bands=8,
            scales=(int(facts.sample_rate / facts.frame_rate),),
        )
        with torch.random.fork_rng(devices=()):
            network = WaveNet(config)
        draws = torch.Generator().manual_seed(seed)
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.2, generator=draws)
        return cls(spec, network, weights={})

    @classmethod
    def weight_files(cls, spec: ComponentSpec) -> Mapping[str, WeightFile]:
        """The files whose hash the spec pins; nothing is loaded."""
        options = spec.options
        return pinned_files(
            options["checkpoint"], revision=options.get("revision"), sha256=options.get("sha256")
        )

    @torch.no_grad()
    def render(self, features: Features) -> list[Audio]:
        """Draw a batch, a hop of samples per frame.

        Raises:
            UsageError: the features are of another kind or size, or an item has no frames.
            WeightsError: the network gives NaN or infinity.
        """
        mels = [item.to(self._device) for item in items_of(self._facts, features)]
        options = self._spec.options
        piece = options.get("segment_frames")
        plans = [_pieces(mel.shape[-1], piece) for mel in mels]
        drawn = iter(
            self._sampler.sample(
                [mel[:, a:b] for mel, plan in zip(mels, plans, strict=True) for a, b in plan],
                seeds=[options.get("seed", 0)] * sum(map(len, plans)),
                items=[number for plan in plans for number in range(len(plan))],
                temperature=options.get("temperature", 1.0),
            )
        )
        return [self._joined([next(drawn) for _ in plan], plan) for plan in plans]

    def _joined(self, drawn: Sequence[Tensor], plan: Sequence[tuple[int, int]]) -> Audio:
        """Pieces of one item as heard, each faded into the next where they overlap."""
        config = self._network.config
        if config.output == "mulaw":
            drawn = [mu_law_values(one, config.classes) for one in drawn]
        hop = config.mel_spec.hop
        whole = torch.zeros(plan[-1][1] * hop)
        end = 0
        for one, (first, last) in zip(drawn, plan, strict=True):
            heard = from_network(config, one.cpu())
            overlap = end - first * hop if end else 0
            rise = (torch.arange(overlap) + 0.5) / max(overlap, 1)
            whole[first * hop : first * hop + overlap] *= 1 - rise
            heard[:overlap] *= rise
            end = last * hop
            whole[first * hop : end] += heard
        return Audio(whole[None].numpy(), config.mel_spec.rate)


OVERLAP_FRAMES = 4


def _pieces(frames: int, size: int | None) -> list[tuple[int, int]]:
    """First frame and end of each piece of an item; neighbours overlap."""
    if size is None or frames <= size:
        return [(0, frames)]
    starts = range(0, frames - OVERLAP_FRAMES, size)
    return [(first, min(first + size + OVERLAP_FRAMES, frames)) for first in starts]
