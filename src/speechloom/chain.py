"""A chain: the components that do a task, in their places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from speechloom.spec import (
    AlignerFacts,
    CodecFacts,
    ComponentSpec,
    FrontendFacts,
    GeneratorFacts,
    Kind,
    SpeakerEncoderFacts,
    Task,
    TokenizerFacts,
)

__all__ = ["ROLES", "Chain", "Link", "Role", "in_hertz"]

Role = Literal[
    "frontend",
    "aligner",
    "tokenizer",
    "speaker_encoder",
    "content_generator",
    "generator",
    "codec",
    "vocoder",
]
"""What a link does in a chain."""
ROLES: Mapping[Role, Kind] = {
    "frontend": "frontend",
    "aligner": "aligner",
    "tokenizer": "tokenizer",
    "speaker_encoder": "speaker_encoder",
    "content_generator": "generator",
    "generator": "generator",
    "codec": "codec",
    "vocoder": "vocoder",
}
"""The places in a chain, in the order of the data, with the kind of component each takes."""


@dataclass(frozen=True)
class Link:
    """One component in its place.

    Attributes:
        role: its place.
        spec: the component.
        takes: kind that comes in.
        gives: kind that goes out.
        rate: frames or samples per second of what it gives, for people.
    """

    role: Role
    spec: ComponentSpec
    takes: str
    gives: str
    rate: str


@dataclass(frozen=True)
class Chain:
    """The components that will do a task, and what is converted between them.

    Attributes:
        task: which of the four.
        parts: component by role.
        bridges: conversions that the core makes, one sentence each.
    """

    task: Task
    parts: Mapping[Role, ComponentSpec]
    bridges: tuple[str, ...] = ()

    def __contains__(self, role: Role) -> bool:
        return role in self.parts

    def spec(self, role: Role) -> ComponentSpec:
        """The component in a role; KeyError when the chain has none there."""
        return self.parts[role]

    @property
    def links(self) -> tuple[Link, ...]:
        """The components in the order of the data."""
        return tuple(_link(role, self.parts[role]) for role in ROLES if role in self.parts)

    def describe(self) -> str:
        """A table for people, one line per component and one per conversion."""
        rows = [(k.role, k.spec.id, k.takes, k.gives, k.rate) for k in self.links]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [f"{self.task}:"]
        for row in rows:
            role, id_, takes, gives, rate = (t.ljust(w) for t, w in zip(row, widths, strict=True))
            lines.append(f"  {role}  {id_}  {takes} -> {gives}  {rate}".rstrip())
        return "\n".join(lines + [f"  * {bridge}" for bridge in self.bridges])

    def to_json(self) -> dict[str, Any]:
        """The chain as plain data."""
        return {
            "task": self.task,
            "links": [
                {"role": k.role, "id": k.spec.id, "takes": k.takes, "gives": k.gives}
                for k in self.links
            ],
            "bridges": list(self.bridges),
        }

    def __str__(self) -> str:
        return self.describe()


def _link(role: Role, spec: ComponentSpec) -> Link:
    facts = spec.facts
    if isinstance(facts, FrontendFacts):
        return Link(role, spec, "text", facts.gives, "")
    if isinstance(facts, AlignerFacts):
        kind = f"audio + phones:{facts.alphabet}"
        return Link(role, spec, kind, "times", f"{in_hertz(facts.frame_rate)}")
    if isinstance(facts, TokenizerFacts):
        return Link(role, spec, "audio", facts.gives, in_hertz(facts.frame_rate))
    if isinstance(facts, SpeakerEncoderFacts):
        return Link(role, spec, "audio", f"voice:{facts.voice}", "")
    if isinstance(facts, GeneratorFacts):
        takes = " | ".join(facts.content) or "nothing"
        return Link(role, spec, takes, facts.gives, in_hertz(facts.frame_rate))
    if isinstance(facts, CodecFacts):
        return Link(role, spec, facts.takes, "audio", f"{facts.sample_rate} Hz")
    return Link(role, spec, facts.takes, "audio", f"{facts.sample_rate} Hz")


def in_hertz(rate: Fraction) -> str:
    """A rate for people."""
    return f"{float(rate):g} Hz"
