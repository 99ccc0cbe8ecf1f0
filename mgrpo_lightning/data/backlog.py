"""Backlog: batches of roles that train late, ``lag`` steps after play or from a first-in first-out ``queue``.

A role with a lag trains on exactly the trajectories of an earlier step. A role with a queue is the paper's weaker
variant (Fig. 8): its trajectories wait in a first-in first-out queue that mixes steps, and it trains whenever the queue
holds a batch. Both batches are known before the step is played. Both can be rebuilt from the journal alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.trajectory import Group, Key
from mgrpo_lightning.roles.config import RoleConfig

LONGEST = 8
"""Capacity of a queue in batches; beyond it the oldest trajectories are dropped."""
Align = Callable[[Sequence[Group], str, int], AlignedBatch]
"""Aligns the groups of one step for one role; arguments: groups, role, step."""


class Backlog:
    """Trajectories that wait for their update.

    Args:
        align: Aligns the groups of a step.
        again: Reads the groups of an earlier step from the journal, after a restart.
    """

    def __init__(self, roles: Mapping[str, RoleConfig], align: Align, again: Callable[[int], Sequence[Group]]) -> None:
        self._lags = {name: role.lag for name, role in roles.items() if role.lag}
        self._queues = {name: Queue(name, role.queue) for name, role in roles.items() if role.queue}
        self._align = align
        self._again = again
        self._waiting: dict[int, Sequence[Group]] = {}
        self._queued = 0

    def due(self, step: int) -> dict[str, AlignedBatch]:
        """Return the batches of roles with a lag or a queue for a step that is about to be played.

        In the first steps the batches are empty.

        Args:
            step: Training step; each step is asked for once, in order.
        """
        found = {role: self._of(role, step - lag) for role, lag in self._lags.items()}
        if self._queues:
            # After a restart the queue is empty: replay every earlier step, so that it drops and takes the same
            # trajectories.
            for earlier in range(self._queued, step):
                self._take(earlier)
                self._put(earlier, self._again(earlier))
            found |= self._take(step)
        return found

    def add(self, step: int, groups: Sequence[Group]) -> None:
        """Keep the groups of a step, and drop groups that every role has trained on."""
        if self._lags:
            self._waiting[step] = groups
            # The next step trains on step + 1 - lag at the earliest, so older groups can go.
            self._waiting = {old: kept for old, kept in self._waiting.items() if old > step - max(self._lags.values())}
        if self._queues:
            self._put(step, groups)

    def _of(self, role: str, step: int) -> AlignedBatch:
        if step < 0:
            return AlignedBatch(role, [])
        if step not in self._waiting:
            self._waiting[step] = self._again(step)
        return self._align(self._waiting[step], role, step)

    def _take(self, step: int) -> dict[str, AlignedBatch]:
        return {role: self._align(queue.take(), role, step) for role, queue in self._queues.items()}

    def _put(self, step: int, groups: Sequence[Group]) -> None:
        for queue in self._queues.values():
            queue.put(groups)
        self._queued = step + 1


class Queue:
    """First-in first-out queue of one role's trajectories.

    Args:
        role: Name of the role.
        batch: Number of trajectories per batch.
    """

    def __init__(self, role: str, batch: int) -> None:
        self._role = role
        self._batch = batch
        self._waiting: list[tuple[Key, Group]] = []

    def put(self, groups: Sequence[Group]) -> None:
        """Append the trajectories of a step, sorted by key.

        Args:
            groups: The scored groups of the step.
        """
        keys = [
            (t.key, group) for group in groups for rollout in group.rollouts for t in rollout.trajectories(self._role)
        ]
        # Sorted, so that the order is the same when the step is read back from the journal.
        self._waiting = [*self._waiting, *sorted(keys, key=lambda one: one[0])][-LONGEST * self._batch :]

    def take(self) -> list[Group]:
        """Take the next batch: its groups, reduced to the trajectories of the batch. Empty if too few wait."""
        if len(self._waiting) < self._batch:
            return []
        taken, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
        by_group: defaultdict[Key, set[Key]] = defaultdict(set)
        groups: dict[Key, Group] = {}
        for key, group in taken:
            # Trajectories of one group stay together: advantages are relative to the group.
            place = key._replace(rollout=0, invocation=0)
            by_group[place].add(key)
            groups[place] = group
        return [_only(group, by_group[place]) for place, group in groups.items()]


def _only(group: Group, keys: set[Key]) -> Group:
    """Copy a group without the sub trajectories whose key is not in ``keys``."""
    return replace(
        group, rollouts=[replace(r, subs=[sub for sub in r.subs if sub.key in keys]) for r in group.rollouts]
    )
