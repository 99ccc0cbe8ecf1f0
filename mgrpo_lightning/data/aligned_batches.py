"""Align one role's scored trajectories into training rows with advantage and coefficient; rescale over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.algorithm.credit import assign
from mgrpo_lightning.distributed.ranks import over_ranks
from mgrpo_lightning.policy.sampling.random import stream_of
from mgrpo_lightning.records.batch import AlignedBatch, TrainingRow
from mgrpo_lightning.records.trajectory import Group, Rollout, Trajectory


def align_role(
    groups: Sequence[Group],
    role: str,
    objective: ObjectiveConfig,
    alignment: AlignmentConfig,
    *,
    seed: int,
    step: int,
) -> AlignedBatch:
    """Align one role's trajectories and compute the advantage and coefficient of each.

    Args:
        groups: The scored groups of the step, one per query.
        role: Name of the role that trains on the batch.
        objective: The role's objective; only ``std_floor`` is read here.
        alignment: Mode and number of slots d. Main has one trajectory per rollout, so it always fills one slot.
        seed: Run seed; with step, query and rollout it fixes every random choice.
    """
    members = [[list(rollout.trajectories(role)) for rollout in group.rollouts] for group in groups]
    leads = any(t.parent is None for rollouts in members for trajectories in rollouts for t in trajectories)
    credit = assign(
        [
            [
                [_reward(rollout, t) for t in trajectories]
                for rollout, trajectories in zip(group.rollouts, rollouts, strict=True)
            ]
            for group, rollouts in zip(groups, members, strict=True)
        ],
        alignment=replace(alignment, slots=1) if leads else alignment,
        seeds=[stream_of(seed, "align", step, group.rollouts[0].main.key.query) for group in groups],
        std_floor=objective.std_floor,
    )
    return AlignedBatch(
        role,
        [
            row
            for one in credit.rows
            # A trajectory without a sampled token has a reward and counts in mean and std, but has no rows.
            for row in TrainingRow.of(
                members[one.query][one.rollout][one.index], advantage=one.advantage, coefficient=one.coefficient
            )
        ],
        num_groups=len(groups) - credit.num_skipped,
        num_degenerate=credit.num_degenerate,
        num_failed=credit.failed,
    )


def of_all_ranks(batch: AlignedBatch, device: torch.device) -> AlignedBatch:
    """Rescale a rank's coefficients, so that each query of the step has the same weight on every rank.

    Args:
        batch: The rank's batch; its coefficients sum to 1.
        device: Device of the process group.

    Returns:
        The same rows. The coefficients of all ranks together sum to 1 over the trajectories, and the counts are those
        of the whole step.
    """
    counts = [batch.num_groups, batch.num_degenerate, batch.num_failed]
    groups, degenerate, failed = map(int, over_ranks(counts, device))
    # A rank whose queries have no trajectory of the role has no rows; max() avoids 0 / 0 when no rank has any.
    share = batch.num_groups / max(groups, 1)
    rows = [replace(row, coefficient=row.coefficient * share) for row in batch.rows]
    return replace(batch, rows=rows, num_groups=groups, num_degenerate=degenerate, num_failed=failed)


def _reward(rollout: Rollout, trajectory: Trajectory) -> float | None:
    score = rollout.scores[trajectory.key.invocation]
    return None if score.failed else score.total
