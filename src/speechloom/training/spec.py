"""What a learner says of itself before any of its code is loaded."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GROUP", "LearnerSpec"]

GROUP = "speechloom.learners"
"""Entry-point group of learners; the name of an entry point is the id of its spec."""


class LearnerSpec(BaseModel):
    """One learner, as its entry point announces it; importing it imports no torch.

    Attributes:
        id: short name; what a recipe calls ``learner``.
        implementation: ``package.module:Class``, a `speechloom.training.learner.Learner`; imported
            only when something is trained.
        summary: one line for listings.
        requires: distributions that must be installed, as PEP 508 requirements.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    implementation: str = Field(pattern=r"^[\w.]+:\w+$")
    summary: str = Field(min_length=1, max_length=120)
    requires: tuple[str, ...] = ()
