"""Your own reward: a task scores answers and reports. Here, short reports on the Factbook get a higher score.

    mgrpo fit --config configs/quickstart.yaml --config examples/own_reward.yaml

``correct`` and ``expert`` return a score in [0, 1]. The team file gives their weights (``reward`` of a role). If a
score cannot be decided, raise ``ScoringError``: the trajectory leaves its group and does not count as wrong.
"""

from __future__ import annotations

from typing_extensions import override

from mgrpo_lightning.records.trajectory import Trajectory
from mgrpo_lightning.tasks import Factbook, Question

FEW = 40
"""Maximum length of a short report, in characters."""


class BriefReports(Factbook):
    """The Factbook task, but a correct report that is longer than ``FEW`` gets half the score."""

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        right = await super().expert(question, trajectory)
        return right if len(trajectory.answer or "") <= FEW else right / 2
