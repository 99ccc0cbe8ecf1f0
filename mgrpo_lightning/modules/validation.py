"""Configuration of validation: which held-out questions, how often, at which temperature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, Temperature, ranged


@ranged("validation")
@dataclass(frozen=True)
class ValidationConfig:
    """How a team is evaluated on held-out questions."""

    split: Literal["validation", "test", "train"] = "validation"
    """Name of the split. ``train`` measures the success rates that a ``selection`` of training questions needs."""
    questions: Count = 300
    """Maximum number of questions: the first ones in the split's fixed order."""
    temperature: Temperature = 0.0
    """Sampling temperature; 0 is greedy."""
    per_batch: Count = 64
    """Number of questions that are played together."""
    repeats: Count = 1
    """Rollouts per question. With more than 1, results contain avg@k (``accuracy``), pass@k and majority@k."""

    def __post_init__(self) -> None:
        if self.repeats > 1 and self.temperature == 0:
            raise ConfigurationError(
                f"validation.repeats is {self.repeats} at temperature 0, where all of them are the same.",
                hint="set validation.temperature, for instance to 0.7.",
            )
