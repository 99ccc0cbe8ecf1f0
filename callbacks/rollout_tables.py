"""Rollouts as a table of a logger: Weights & Biases and MLflow have tables, other loggers of Lightning have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger

from mgrpo_lightning.protocol.tree import render
from mgrpo_lightning.records.trajectory import Group, Rollout

STEPS_PER_FILE = 100
"""Steps in one table of MLflow. Each table is a file, and MLflow lists all of them in one tag of limited length."""


def has_tables(logger: Logger) -> bool:
    """Whether ``log_rollouts`` can write to a logger."""
    return isinstance(logger, WandbLogger | MLFlowLogger)


def rollout_table(groups: Sequence[Group], roles: Sequence[str], step: int) -> Mapping[str, list[Any]]:
    """Make the table of all rollouts of some groups, a row each; return its columns by name.

    Args:
        groups: Scored groups.
        roles: Roles of the team; each has a column with its mean reward in the rollout.
        step: Training step, or number of steps done before a validation.
    """
    rows = [(group, rollout) for group in groups for rollout in group.rollouts]
    return {
        "step": [step] * len(rows),
        "query": [rollout.main.key.query for _, rollout in rows],
        "rollout": [rollout.main.key.rollout for _, rollout in rows],
        "question": [group.question.text for group, _ in rows],
        "accepted answers": [" | ".join(group.question.answers) for group, _ in rows],
        "answer": [rollout.main.answer for _, rollout in rows],
        **{f"reward of {role}": [_reward(rollout, role) for _, rollout in rows] for role in roles},
        "calls": [sum(len(t.calls) for t in rollout.trajectories()) for _, rollout in rows],
        "tokens": [sum(t.num_tokens for t in rollout.trajectories()) for _, rollout in rows],
        "conversation": [render(rollout) for _, rollout in rows],
    }


def log_rollouts(logger: Logger, table: Mapping[str, list[Any]], tag: str, step: int) -> None:
    """Write a table to a logger that has tables.

    Args:
        logger: A logger for which ``has_tables`` is true, on rank zero.
        table: Columns by name, of equal length.
        tag: ``train``, ``validate`` or ``test``: each is a table of its own.
        step: Training step, or number of steps done before a validation.
    """
    if isinstance(logger, WandbLogger):
        rows = [list(row) for row in zip(*table.values(), strict=True)]
        logger.log_table(f"{tag}/rollouts", columns=list(table), data=rows, step=step)
    elif isinstance(logger, MLFlowLogger):
        first = step // STEPS_PER_FILE * STEPS_PER_FILE
        # MLflow appends to a table that exists.
        logger.experiment.log_table(logger.run_id, dict(table), f"rollouts/{tag}-{first:06d}.json")


def _reward(rollout: Rollout, role: str) -> float | None:
    """Mean reward of a role's trajectories; None if it has none, or none whose reward could be decided."""
    scores = [rollout.scores.get(t.key.invocation) for t in rollout.trajectories(role)]
    totals = [score.total for score in scores if score is not None and not score.failed]
    return fmean(totals) if totals else None
