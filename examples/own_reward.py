"""An own reward: a task says how good an answer or a report is; here short reports on the Factbook are worth more.

    mgrpo fit --config configs/quickstart.yaml --config examples/own_reward.yaml

``correct`` and ``expert`` are in [0, 1], and the team file weighs them (``reward`` of a role). What cannot be decided
is a ``ScoringError``: the sample leaves its group, and is never taken for wrong.
"""

from __future__ import annotations

from typing_extensions import override

from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks import Factbook, Question

FEW = 40
"""Characters up to which a report is short."""


class BriefReports(Factbook):
    """The Factbook, where a right report that is longer than needed is worth half."""

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        right = await super().expert(question, trajectory)
        return right if len(trajectory.answer or "") <= FEW else right / 2
