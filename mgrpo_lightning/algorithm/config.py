"""RewardConfig and ObjectiveConfig: reward weights; clip range, kind of ratio, correction of lag, KL weight, std floor.

This file does not import torch, because every command reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from mgrpo_lightning.names import check_functions
from mgrpo_lightning.ranges import MOST, Range, Weight, ranged


@ranged("function")
@dataclass(frozen=True)
class RewardFunction:
    """One reward function of the user, with its weight."""

    function: str
    """Dotted path of a Python function that returns a number in [0, 1] (``agents/reward_functions.py``)."""
    weight: Weight
    """Weight of its value in the reward."""


@ranged("reward")
@dataclass(frozen=True)
class RewardConfig:
    """Weights of the reward components (eq. 4 and 5); 0 switches one off."""

    format: Weight = 0.1
    """The trajectory's format is valid."""
    correct: Weight = 0.0
    """Main's answer is correct."""
    correct_main: Weight = 0.0
    """Main's correctness, copied to each sub trajectory of its rollout."""
    expert: Weight = 0.0
    """How well the subtask was solved, in [0, 1], by a rule or a judge."""
    functions: dict[str, RewardFunction] = field(default_factory=dict)
    """The user's own reward functions by name, beside the components. The metric ``ROLE/reward_NAME`` is their mean."""

    def __post_init__(self) -> None:
        check_functions(self.functions, COMPONENTS)

    @property
    def parts(self) -> dict[str, float]:
        """Weights of the components, then of the functions, by name; without those that are switched off."""
        weights = {name: getattr(self, name) for name in COMPONENTS}
        weights |= {name: self.functions[name].weight for name in sorted(self.functions)}
        return {name: weight for name, weight in weights.items() if weight}

    @property
    def most(self) -> float:
        """The largest possible reward: the sum of all weights."""
        return math.fsum(self.parts.values())


COMPONENTS = tuple(one.name for one in fields(RewardConfig) if one.name != "functions")
"""Names of the reward components of the paper."""
MAIN_REWARD = RewardConfig(format=0.1, correct=0.9)
"""Eq. 4."""
SUB_REWARD = RewardConfig(format=0.1, correct_main=0.4, expert=0.5)
"""Eq. 5."""


@ranged("objective")
@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss of a role (eq. 14 to 19 of the paper, and alternatives)."""

    kind: Literal["mgrpo", "supervised"] = "mgrpo"
    """``mgrpo``: the clipped surrogate; ``supervised``: cross-entropy of the action tokens (warm start)."""
    ratio: Literal["token", "sequence", "sequence_product"] = "token"
    """Importance ratio: per token, its geometric mean over the trajectory, or the product as printed in the paper."""
    reduction: Literal["trajectory_mean", "token_mean"] = "trajectory_mean"
    """Mean over the tokens of each trajectory, or one mean over all tokens of the batch."""
    clip_low: Annotated[float, Range(0, MOST, "1 or more clips nothing")] = 0.2
    """The ratio is clipped below at 1 - clip_low."""
    clip_high: Annotated[float, Range(0, MOST)] = 0.28
    """The ratio is clipped above at 1 + clip_high."""
    correction: Literal["ratio", "truncated", "none"] = "ratio"
    """For tokens that an older adapter sampled (``lag``). ``ratio``: clip around the policy that sampled them;
    ``truncated``: weight their gradient by current / behaviour, at most ``correction_cap``; ``none``: treat them as
    sampled by the current policy."""
    correction_cap: Annotated[float, Range(0, MOST, above=True)] = 2.0
    """Upper bound of the ``truncated`` weight."""
    kl: Annotated[float, Range(0, 1000, "0 switches it off")] = 0.0
    """Weight of the KL estimate against the frozen start adapter; 0 loads no reference adapter."""
    std_floor: Annotated[float, Range(0, 1, "above rounding errors", above=True)] = 1e-6
    """Groups with a reward std below this get advantage 0, and are counted."""
