"""Minibatches: the parts of an aligned batch that a role trains on one after the other, an optimizer step each.

The part of a trajectory depends on its key and on nothing else. So any number of ranks, a replay and a resumed run make
the same minibatches, and all calls of a rollout are in the same one. Each minibatch has rollouts of nearly every query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.trajectory import Key
from mgrpo_lightning.roles.config import RoleConfig


def minibatch_of(key: Key, number: int) -> int:
    """Return the index of the minibatch that a trajectory belongs to.

    Args:
        key: Key of the trajectory.
        number: Number of minibatches.
    """
    # Adding the query spreads the rollouts evenly also where the number of rollouts is no multiple of `number`.
    return (key.query + key.rollout) % number


def refuse_empty_minibatches(
    roles: Mapping[str, RoleConfig], names: Iterable[str], *, queries: int, rollouts: int
) -> None:
    """Reject a number of minibatches that a step cannot fill.

    Args:
        roles: Configuration of every role of the team, by name.
        names: Names of the trained roles to check.
        queries: Queries of a step, over all ranks.
        rollouts: Rollouts of a query.

    Raises:
        ConfigurationError: A minibatch would be empty in every step.
    """
    most = queries + rollouts - 1  # the number of different sums of a query's and a rollout's index
    for name in names:
        number, queue = roles[name].optimizer.minibatches, roles[name].queue
        place = f"model.roles.{name}.optimizer.minibatches is {number}"
        if number > most:
            raise ConfigurationError(
                f"{place}, but a step of {queries} queries with {rollouts} rollouts fills {most} at most.",
                hint="lower it, or raise data.queries_per_step or data.rollouts_per_query.",
            )
        if queue is not None and number > queue:
            raise ConfigurationError(
                f"{place}, but the role's queue gives an update {queue} trajectories.",
                hint="lower it, or raise queue.",
            )
