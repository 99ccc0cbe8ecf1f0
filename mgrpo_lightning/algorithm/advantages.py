"""Group-relative advantages (eq. 9 to 13): (R - mean) / std within one query and role; all 0 if std is below a floor.

Mean and std are population statistics in float64, weighted by the multiplicities, so duplicates count as in the paper.
The paper prints no epsilon in the denominator, and none is added: it would shrink groups with a small but real spread.
A group with one member, or with a std below a floor, does not show which trajectory was better. Its advantages are 0,
and it is counted as degenerate. One call is one group, so statistics of two queries or two roles never mix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """Advantages of one group of n trajectories, with the group's statistics."""

    values: Tensor
    """Advantage of each trajectory, float64, shape (n,); 0 where the weight is 0."""
    mean: float
    """Weighted mean reward; nan for an empty group."""
    std: float
    """Weighted population standard deviation; nan for an empty group."""
    members: int
    """Number of trajectories with positive weight."""
    degenerate: bool
    """Whether the group gives no signal: fewer than two members, or std below the floor."""

    @property
    def singleton(self) -> bool:
        """Whether the group has exactly one member."""
        return self.members == 1


def group_advantages(rewards: Tensor, weights: Tensor, *, std_floor: float) -> Advantages:
    """Normalise the rewards of one group: A = (R - mean R) / std R.

    Args:
        rewards: Reward of each trajectory, shape (n,). Where the weight is 0 the reward is not read and may be nan: so
            failed and dropped trajectories leave the group before mean and std.
        weights: Multiplicity of each trajectory, shape (n,), at least 0.
        std_floor: Advantages are 0 if the std is below it; above 0, in the unit of the rewards. In float64 it only has
            to exceed the rounding errors of the rewards.
    """
    # In float32 the rounding of the mean can exceed the std of nearly equal rewards.
    rewards, weights = rewards.double(), weights.double()
    member = weights > 0
    values = torch.zeros_like(rewards)
    members = int(member.sum())
    if members == 0:
        return Advantages(values, float("nan"), float("nan"), members, degenerate=True)
    share = weights[member] / weights[member].sum()
    mean = (share * rewards[member]).sum()
    deviation = rewards[member] - mean
    std = (share * deviation.square()).sum().sqrt()
    # One member is degenerate whatever the floor is: its std is 0 up to rounding.
    degenerate = members == 1 or bool(std < std_floor)
    if not degenerate:
        values[member] = deviation / std
    return Advantages(values, float(mean), float(std), members, degenerate)
