"""ValidationConfig: split, number, temperature and repeats of held-out questions; HeldOutBatch: one played batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.ranges import Count, Temperature, ranged
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.base import Task


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
                f"validation.repeats is {self.repeats} at temperature 0, so all repeats are the same.",
                hint="set validation.temperature, for instance to 0.7.",
            )


@dataclass(frozen=True)
class HeldOutBatch:
    """Some held-out questions, played and scored, with what their evaluation needs."""

    groups: list[Group]
    task: Task
    validation: ValidationConfig
    """How the questions are evaluated; ``split`` names the split they are from, also in ``mgrpo test``."""
    seconds: float = 0.0
    """Seconds from the start of the validation to the end of this batch, with those of killed runs."""
    agreement: Sequence[float] = ()
    """Counts of ``Agreement`` from the start of the validation to the end of this batch; empty without a judge."""
