"""How unknown codes are filled: passes, schedule, sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace

from speechloom.decoding.schedule import anneal, check_schedule
from speechloom.errors import UsageError
from speechloom.ops.masked_decode import SampleConfig


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How the unknown codes are filled.

    Attributes:
        steps: passes of level 0, 1, ...; levels past the end take one.
        schedule: how many positions stay open: "cosine" or "linear".
        sample: temperature, filters, guidance and forbidden ids of the first pass.
        annealing: the temperature falls through a level's passes; False keeps it.
        greedy_last: the last pass of a level takes the best ids, and so does an only pass.
        choice_temperature: noise in the ranking; it falls with every pass and is 0 in the last.
        guided_levels: levels from the first on that are guided; None guides all. A guided pass
            runs the network twice, and the coarse levels carry what guidance is for.

    Raises:
        UsageError: an unknown schedule, or a value out of its range.
    """

    steps: tuple[int, ...] = (16,)
    schedule: str = "cosine"
    sample: SampleConfig = SampleConfig()
    annealing: bool = True
    greedy_last: bool = True
    choice_temperature: float = 1.0
    guided_levels: int | None = None

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        if min(self.steps, default=1) < 1:
            raise UsageError(f"`steps` must all be 1 or more, but are {list(self.steps)}.")
        if self.choice_temperature < 0.0:
            raise UsageError(
                f"`choice_temperature` must be 0 or more, but is {self.choice_temperature}."
            )
        if self.guided_levels is not None and self.guided_levels < 0:
            raise UsageError(f"`guided_levels` must be 0 or more, but is {self.guided_levels}.")

    @property
    def is_guided(self) -> bool:
        """Whether any pass needs the network without its condition."""
        return self.is_guided_at(0)

    def is_guided_at(self, level: int) -> bool:
        """Whether the passes of a level need the network without its condition."""
        inside = self.guided_levels is None or level < self.guided_levels
        return inside and self.sample.guidance != 1.0

    def steps_of(self, level: int) -> int:
        """Passes of a level with enough unknown positions."""
        return self.steps[level] if level < len(self.steps) else 1

    def sample_at(self, level: int, step: int) -> SampleConfig:
        """How tokens are drawn in one pass."""
        steps, sample = self.steps_of(level), self.sample
        if not self.is_guided_at(level):
            sample = replace(sample, guidance=1.0)
        if self.greedy_last and step == steps - 1:
            return replace(sample, temperature=0.0)
        if not self.annealing:
            return sample
        return replace(sample, temperature=anneal(sample.temperature, step, steps))

    def choice_at(self, level: int, step: int) -> float:
        """Noise in the ranking of one pass; none in the last, where nothing is ranked."""
        steps = self.steps_of(level)
        return anneal(self.choice_temperature, step + 1, steps)
