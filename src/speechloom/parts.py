"""The loaded components of one chain, by role."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

from speechloom.chain import ROLES, Chain, Role
from speechloom.errors import UnsupportedCapability
from speechloom.spec import (
    CodecFacts,
    FrontendFacts,
    GeneratorFacts,
    SpeakerEncoderFacts,
    TokenizerFacts,
)

if TYPE_CHECKING:
    from speechloom.protocols import (
        Aligner,
        Codec,
        Component,
        Frontend,
        Generator,
        SpeakerEncoder,
        Tokenizer,
        Vocoder,
    )
    from speechloom.registry import Registry

__all__ = ["Parts"]

DEFAULT_CONTEXT_SECONDS = Fraction(1)
"""Recording encoded on either side of what is needed, for models of unbounded context."""


@dataclass(frozen=True)
class Parts:
    """A chain and where its components are loaded from, each when it is first needed.

    Attributes:
        chain: the components by role.
        registry: loads and keeps them.
        device: where they run.
    """

    chain: Chain
    registry: Registry
    device: str = "cpu"

    def load(self, role: Role) -> Component | None:
        """The component in a role; None when the chain has none there."""
        if role not in self.chain:
            return None
        spec = self.chain.spec(role)
        return self.registry.load(ROLES[role], spec.id, device=self.device, facts=spec.facts)

    def _required(self, role: Role) -> Component:
        component = self.load(role)
        assert component is not None, f"the router left out {role}"
        return component

    @property
    def frontend(self) -> Frontend:
        """Text to phones."""
        return cast("Frontend", self._required("frontend"))

    @property
    def aligner(self) -> Aligner:
        """Finds phones in a recording."""
        return cast("Aligner", self._required("aligner"))

    @property
    def generator(self) -> Generator:
        """Fills the final canvas."""
        return cast("Generator", self._required("generator"))

    @property
    def content_generator(self) -> Generator | None:
        """Makes content tokens from phones."""
        return cast("Generator | None", self.load("content_generator"))

    @property
    def tokenizer(self) -> Tokenizer | None:
        """Reads content tokens off a recording."""
        return cast("Tokenizer | None", self.load("tokenizer"))

    @property
    def speaker_encoder(self) -> SpeakerEncoder | None:
        """Takes a voice from a recording."""
        return cast("SpeakerEncoder | None", self.load("speaker_encoder"))

    @property
    def codec(self) -> Codec | None:
        """Codes to samples."""
        return cast("Codec | None", self.load("codec"))

    @property
    def vocoder(self) -> Vocoder | None:
        """Features to samples."""
        return cast("Vocoder | None", self.load("vocoder"))

    @property
    def speaker(self) -> Generator:
        """The generator that takes phones, and so knows how long they last."""
        return self.content_generator or self.generator

    @property
    def generator_facts(self) -> GeneratorFacts:
        """Facts of the generator of the final canvas."""
        return cast(GeneratorFacts, self.chain.spec("generator").facts)

    @property
    def speaker_facts(self) -> GeneratorFacts:
        """Facts of the generator that takes phones."""
        role: Role = "content_generator" if "content_generator" in self.chain else "generator"
        return cast(GeneratorFacts, self.chain.spec(role).facts)

    @property
    def frontend_facts(self) -> FrontendFacts | None:
        """Facts of the front end, or None."""
        if "frontend" not in self.chain:
            return None
        return cast(FrontendFacts, self.chain.spec("frontend").facts)

    @property
    def max_seconds(self) -> float:
        """The longest sheet that every part of the chain takes at once."""
        limits = [self.generator_facts.max_seconds, self.speaker_facts.max_seconds]
        for role in ("tokenizer", "codec"):
            facts = self.chain.parts[role].facts if role in self.chain else None
            if isinstance(facts, (TokenizerFacts, CodecFacts)) and facts.max_seconds is not None:
                limits.append(facts.max_seconds - 2 * float(context_seconds(facts)))
        return min(limits)

    @property
    def named_voices(self) -> tuple[str, ...]:
        """The voices that can be asked for by name."""
        if "speaker_encoder" not in self.chain:
            return ()
        return cast(SpeakerEncoderFacts, self.chain.spec("speaker_encoder").facts).named_voices

    def check_styles(self, style: dict[str, float]) -> None:
        """Refuse a style control that no generator of the chain honours.

        Raises:
            UnsupportedCapability: naming the control and those that exist.
        """
        known = sorted({*self.generator_facts.styles, *self.speaker_facts.styles})
        unknown = sorted(set(style) - set(known))
        if unknown:
            raise UnsupportedCapability(
                f"generator {self.chain.spec('generator').id} has no style {', '.join(unknown)}; "
                f"it has {', '.join(known) or 'none'}"
            )

    def record(self) -> list[dict[str, Any]]:
        """Each component with its distribution, version and weight hashes, for the provenance."""
        rows = []
        for link in self.chain.links:
            found = self.registry.get(link.spec.kind, link.spec.id)
            component = self.load(link.role)
            rows.append(
                {
                    "role": link.role,
                    "id": link.spec.id,
                    "distribution": found.distribution,
                    "version": found.version,
                    "weights": dict(component.weights) if component else {},
                }
            )
        return rows


def context_seconds(facts: CodecFacts | TokenizerFacts) -> Fraction:
    """How much of a recording is encoded on either side of what is needed."""
    if facts.context_frames is None:
        return DEFAULT_CONTEXT_SECONDS
    return facts.context_frames / facts.frame_rate


def core_version() -> str:
    """The version of the installed core."""
    try:
        return importlib.metadata.version("speechloom")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
