"""StepBatches: make each step's ``TeamBatch``: get groups, align every role, add the delayed batches of the backlog."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.data.aligned_batches import align_role, of_all_ranks
from mgrpo_lightning.data.backlog import Backlog
from mgrpo_lightning.data.group_sources import GroupSource
from mgrpo_lightning.records.batch import AlignedBatch, TeamBatch
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.tasks.judge_agreement import Agreement

if TYPE_CHECKING:
    from mgrpo_lightning.modules.team import TeamModule


class StepBatches:
    """Takes the groups of each step from a source, aligns them, and adds the delayed batches.

    Args:
        module: The root module; its roles are aligned, and it begins the update of delayed batches.
        source: Plays or reads the groups of a step.
        earlier: Reads the groups of an earlier step from the journal, after a restart.
        alignment: How sub-agent calls fill the K x d slots of a query.
        agreement: Counter of agreement between the task's judge and its rule; None: the task has no judge.
        seed: Fixes the random choices of alignment.
    """

    def __init__(
        self,
        module: TeamModule,
        source: GroupSource,
        earlier: Callable[[int], Sequence[Group]],
        *,
        alignment: AlignmentConfig,
        agreement: Agreement | None,
        seed: int,
    ) -> None:
        self._module = module
        self._source = source
        self._alignment = alignment
        self._agreement = agreement
        self._seed = seed
        trained = {name: module.roles[name] for name in module.trained_roles}
        self._backlog = Backlog(trained, self._align, earlier)

    def batch(self, step: int) -> TeamBatch:
        """Play, score and align one step."""
        started, module = time.perf_counter(), self._module
        due = self._backlog.due(step)
        # Delayed batches are known already, so their update can run while the players wait for tools.
        module.begin(due)
        if self._agreement is not None:
            self._agreement.take()  # drop the counts of a validation
        played = self._source.play(step, module.advance if due else None)
        aligned = {role: self._align(played.groups, role, step) for role in module.trained_roles}
        # After `due`: a step's own trajectories must not enter the queue before its batch is taken.
        self._backlog.add(step, played.groups)
        return TeamBatch(
            step,
            played.groups,
            aligned | due,
            aligned,
            seconds={"play": time.perf_counter() - started, "idle": played.idle},
            counts=played.counts,
            agreement=() if self._agreement is None else tuple(self._agreement.take()),
        )

    def _align(self, groups: Sequence[Group], role: str, step: int) -> AlignedBatch:
        config = self._module.roles[role]
        alignment = replace(self._alignment, slots=config.slots or self._alignment.slots)
        aligned = align_role(groups, role, config.objective, alignment, seed=self._seed, step=step)
        return of_all_ranks(aligned, self._module.device)
