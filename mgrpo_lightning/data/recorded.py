"""Read the groups of a step back from the journal, with rewards by the current weights: for replay, lag, queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.records.journal import read_groups, training_files
from mgrpo_lightning.records.trajectory import Group, Score
from mgrpo_lightning.roles.config import RoleConfig


def recorded_groups(folder: Path, step: int, roles: Mapping[str, RoleConfig]) -> list[Group]:
    """Read the groups of one training step, with rewards recomputed from the current reward weights.

    Args:
        folder: Folder of the journal.
        roles: The team, with the current reward weights. A component that had weight 0 in every role when the journal
            was written was not computed and stays 0.

    Raises:
        DataError: The journal has no such step, the file is damaged, or a reward function with a weight has no values.
    """
    paths = training_files(folder).get(step)
    if paths is None:
        raise DataError(
            f"the journal {folder} has no step {step}.",
            hint="record all steps (rollout_log.every_n_steps: 1): a replay recomputes the updates one after another.",
        )
    groups = [group for path in paths for group in read_groups(path)]
    for group in groups:
        for rollout in group.rollouts:
            for trajectory in rollout.trajectories():
                index = trajectory.key.invocation
                # Another process played this trajectory and rewards it.
                if not trajectory.elsewhere:
                    weights = roles[trajectory.role].weights
                    rollout.scores[index] = _weighted(rollout.scores[index], weights, trajectory.role)
    return groups


def played_before(folder: Path | None, step: int, roles: Mapping[str, RoleConfig], part: range) -> list[Group]:
    """Read a rank's part of an earlier step, for a role that trains on it later (``lag``, ``queue``).

    Args:
        folder: Folder of the journal, or None.
        part: Indices of the rank's queries.

    Raises:
        ConfigurationError: No journal is configured.
        DataError: The journal has no such step.
    """
    if folder is None:
        raise ConfigurationError(
            "a role with a lag or a queue goes on from the journal, and the data module knows none.",
            hint="give its folder as `journal`, or leave lag and queue out.",
        )
    return [group for group in recorded_groups(folder, step, roles) if group.rollouts[0].main.key.query in part]


def _weighted(score: Score, weights: RewardConfig, role: str) -> Score:
    if score.failed:
        return score
    functions = {name: value for name, value in score.functions.items() if value is not None}
    if missing := [name for name in weights.parts if name in weights.functions and name not in functions]:
        raise DataError(
            f"the journal has no values of the reward function {missing[0]!r} of role {role!r}.",
            hint="set its weight to 0, or start a new run: a journal holds values, and functions are not called again.",
        )
    components = {"correct": score.correct, "correct_main": score.correct_main, "expert": score.expert}
    return replace(score, total=reward(weights, valid=score.format > 0, **components, functions=functions))
