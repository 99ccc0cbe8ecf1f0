"""Group-relative advantages (eq. 9 to 13): (R - mean) / std over the aligned slots of one query and one role.

Population statistics in float64, weighted by the multiplicities, so duplicates count as the paper counts them. No
epsilon is printed and none is added: it would shrink groups whose spread is small but real. A group whose std is below
a floor, or that has one member, says nothing about which trajectory was better: its advantages are 0, and it is
counted. The statistics of two queries or two roles never mix: one call is one group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Advantages:
    """Advantages of one group of n trajectories and what was found on the way."""

    values: Tensor
    """Advantage of each trajectory, float64, shape (n,); 0 for those of weight 0."""
    mean: float
    """Weighted mean reward; nan for an empty group."""
    std: float
    """Weighted population standard deviation; nan for an empty group."""
    members: int
    """Trajectories of positive weight."""
    degenerate: bool
    """Whether the group gives no signal: fewer than two members, or std below the floor."""

    @property
    def singleton(self) -> bool:
        """Whether the group has exactly one member."""
        return self.members == 1


def group_advantages(rewards: Tensor, weights: Tensor, *, std_floor: float) -> Advantages:
    """Normalise the rewards of one group.

    Args:
        rewards: Reward of each trajectory, shape (n,). Where the weight is 0 it is not read and may be nan: that is
            how failed samples and dropped ones leave the group before mean and std.
        weights: Multiplicity of each trajectory, shape (n,), at least 0.
        std_floor: Advantages are 0 when std is below this. In float64 it need only be above the rounding of the
            rewards themselves.
    """
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
    degenerate = members == 1 or bool(std < std_floor)
    if not degenerate:
        values[member] = deviation / std
    return Advantages(values, float(mean), float(std), members, degenerate)
