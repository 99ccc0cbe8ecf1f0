"""RewardConfig and ObjectiveConfig: reward weights; clip range, kind of ratio, correction of lag, KL weight, std floor.

This file does not import torch, because every command reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from mgrpo_lightning.ranges import MOST, Range, Weight, ranged


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


COMPONENTS = tuple(one.name for one in fields(RewardConfig))
"""Names of the reward components."""
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
