"""Credit of one role in one step: calls alignment, advantages and coefficients; returns a row for each trajectory.

It computes section 4.1, eq. 9 to 13 and the sums of eq. 14 and 17. Main is the case of one trajectory per rollout and
one slot. Each role calls this with its own rewards only, so the statistics of roles cannot mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch

from mgrpo_lightning.algorithm.advantages import Advantages, group_advantages
from mgrpo_lightning.algorithm.alignment import AlignmentConfig, align
from mgrpo_lightning.algorithm.coefficients import coefficients


@dataclass(frozen=True, slots=True)
class TrajectoryCredit:
    """One trajectory to train on, identified by its position in the given rewards."""

    query: int
    rollout: int
    index: int
    """Position among the role's d_k trajectories of that rollout."""
    multiplicity: float
    """Number of slots that it fills, above 0; a whole number under ``duplicate_drop``."""
    advantage: float
    """A of eq. 9 to 13, the same for all its tokens."""
    coefficient: float
    """Its share of the loss; the coefficients of all rows sum to 1."""


@dataclass(frozen=True)
class Credit:
    """The rows of one role in one step, and counts for the metrics."""

    rows: list[TrajectoryCredit]
    """Sorted by query, rollout, index. Empty if there is nothing to train on: then the role takes no step."""
    groups: list[Advantages]
    """Statistics of each query."""
    failed: int
    """Number of trajectories left out because their reward could not be decided."""

    @property
    def num_skipped(self) -> int:
        """Number of queries without a trajectory of this role."""
        return sum(group.members == 0 for group in self.groups)

    @property
    def num_singleton(self) -> int:
        """Number of queries with one trajectory; its advantage is 0."""
        return sum(group.singleton for group in self.groups)

    @property
    def num_degenerate(self) -> int:
        """Number of queries with trajectories but no signal: one trajectory, or a std below the floor."""
        return sum(group.degenerate and group.members > 0 for group in self.groups)


def assign(
    rewards: Sequence[Sequence[Sequence[float | None]]],
    *,
    alignment: AlignmentConfig,
    seeds: Sequence[int],
    std_floor: float,
) -> Credit:
    """Compute the advantage and the coefficient of each trajectory of a role.

    Args:
        rewards: For each of the Q queries K lists, one per rollout, each with the rewards of the role's d_k
            trajectories; None if a reward could not be decided. Such a trajectory is removed before alignment, as if
            the call had not been made.
        alignment: Mode and slots d; ``slots=1`` for main.
        seeds: Alignment seeds of the Q queries.
        std_floor: Advantages of a query are 0 if the std of its rewards is below it.

    Returns:
        The rows to train on, and the statistics of the Q groups.
    """
    multiplicity = [_multiplicity(query, alignment, seed) for query, seed in zip(rewards, seeds, strict=True)]
    groups = [
        group_advantages(_flat(query), torch.tensor(list(chain(*weights)), dtype=torch.float64), std_floor=std_floor)
        for query, weights in zip(rewards, multiplicity, strict=True)
    ]
    shares = coefficients([list(chain(*weights)) for weights in multiplicity])
    rows = [
        TrajectoryCredit(query, rollout, index, weight, advantage, share)
        for query, weights in enumerate(multiplicity)
        for (rollout, index, weight), advantage, share in zip(
            _enumerate(weights), groups[query].values.tolist(), shares[query], strict=True
        )
        if weight > 0
    ]
    return Credit(rows, groups, failed=sum(value is None for query in rewards for value in chain(*query)))


def _multiplicity(rewards: Sequence[Sequence[float | None]], config: AlignmentConfig, seed: int) -> list[list[float]]:
    """Multiplicity of every trajectory of a query, 0 for the failed ones."""
    # Only scored trajectories are aligned: a failed one must neither fill a slot nor be duplicated.
    scored = [[i for i, value in enumerate(rollout) if value is not None] for rollout in rewards]
    aligned = align([len(indices) for indices in scored], config, seed).multiplicity
    result = [[0.0] * len(rollout) for rollout in rewards]
    for row, indices, values in zip(result, scored, aligned, strict=True):
        for index, value in zip(indices, values, strict=True):
            row[index] = value
    return result


def _flat(rewards: Sequence[Sequence[float | None]]) -> torch.Tensor:
    # The weight is 0 here, so the value is never read; nan would make a mistake visible.
    values = [float("nan") if value is None else value for value in chain(*rewards)]
    return torch.tensor(values, dtype=torch.float64)


def _enumerate(weights: Sequence[Sequence[float]]) -> list[tuple[int, int, float]]:
    return [(k, i, weight) for k, rollout in enumerate(weights) for i, weight in enumerate(rollout)]
