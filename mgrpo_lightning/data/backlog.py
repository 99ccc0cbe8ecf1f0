"""Backlog: what each role trains on in a step, where that is not what was just played.

A role with a lag trains on exactly what was played some steps ago. One with a queue is the paper's weaker arm (Fig. 8):
its trajectories wait in a queue of their own, whichever steps they are from, and it trains whenever a batch of them is
there. Both are known before a step is played, and follow from the journal alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mgrpo_lightning.records.batch import AlignedBatch
from mgrpo_lightning.records.trajectory import Group, Key
from mgrpo_lightning.roles.config import RoleConfig

LONGEST = 8
"""Batches that wait in a queue at most; of more the oldest trajectories are dropped."""
Align = Callable[[Sequence[Group], str, int], AlignedBatch]
"""Aligns the groups of a step for one role."""


class Backlog:
    """What waits for its update.

    Args:
        roles: The trained roles.
        align: Aligns groups.
        again: What was played in an earlier step, for a run that has been resumed since.
    """

    def __init__(self, roles: Mapping[str, RoleConfig], align: Align, again: Callable[[int], Sequence[Group]]) -> None:
        self._lags = {name: role.lag for name, role in roles.items() if role.lag}
        self._queues = {name: Queue(name, role.queue) for name, role in roles.items() if role.queue}
        self._align = align
        self._again = again
        self._waiting: dict[int, Sequence[Group]] = {}
        self._queued = 0

    def due(self, step: int) -> dict[str, AlignedBatch]:
        """What these roles train on in a step that is about to be played; nothing in the first steps.

        Args:
            step: Of training; asked for once.
        """
        found = {role: self._of(role, step - lag) for role, lag in self._lags.items()}
        if self._queues:
            for earlier in range(self._queued, step):
                self._take(earlier)
                self._put(earlier, self._again(earlier))
            found |= self._take(step)
        return found

    def add(self, step: int, groups: Sequence[Group]) -> None:
        """Keep what was played, and drop what everybody has trained on.

        Args:
            step: Of training.
            groups: Scored.
        """
        if self._lags:
            self._waiting[step] = groups
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
    """Trajectories of one role, first in first out.

    Args:
        role: Whose.
        batch: Trajectories that are taken together.
    """

    def __init__(self, role: str, batch: int) -> None:
        self._role = role
        self._batch = batch
        self._waiting: list[tuple[Key, Group]] = []

    def put(self, groups: Sequence[Group]) -> None:
        """Add what a step has played, in the order of the keys.

        Args:
            groups: Scored.
        """
        keys = [
            (t.key, group) for group in groups for rollout in group.rollouts for t in rollout.trajectories(self._role)
        ]
        self._waiting = [*self._waiting, *sorted(keys, key=lambda one: one[0])][-LONGEST * self._batch :]

    def take(self) -> list[Group]:
        """The groups of the next batch without what else they hold; none if too few trajectories wait."""
        if len(self._waiting) < self._batch:
            return []
        taken, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
        by_group: defaultdict[Key, set[Key]] = defaultdict(set)
        groups: dict[Key, Group] = {}
        for key, group in taken:
            place = key._replace(rollout=0, invocation=0)
            by_group[place].add(key)
            groups[place] = group
        return [_only(group, by_group[place]) for place, group in groups.items()]


def _only(group: Group, keys: set[Key]) -> Group:
    """A group with some of its sub trajectories."""
    return replace(
        group, rollouts=[replace(r, subs=[sub for sub in r.subs if sub.key in keys]) for r in group.rollouts]
    )
