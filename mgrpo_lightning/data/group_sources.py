"""GroupSource: the groups of a training step, played by the team or, for replay, read from a journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mgrpo_lightning.agents.play import Background, PlayRequest, PlayResult, Scripts
from mgrpo_lightning.data.question_order import QuestionOrder
from mgrpo_lightning.data.recorded import recorded_groups
from mgrpo_lightning.data.resuming import ResumeLogs
from mgrpo_lightning.roles.config import RoleConfig


class GroupSource(Protocol):
    """Where the scored groups of a training step come from."""

    def play(self, step: int, background: Background | None) -> PlayResult:
        """Return the scored groups of one rank.

        Args:
            background: Background work for the time in which there is nothing else to compute.
        """
        ...


@dataclass(frozen=True)
class PlayedGroups:
    """Groups that the team plays; turns that finished before a restart come from the resume log."""

    team: Callable[[PlayRequest], PlayResult]
    """Plays and scores questions."""
    questions: QuestionOrder
    part: range
    """Indices of this rank's queries in a step."""
    rollouts: int
    """K, the number of rollouts in a group."""
    script: Scripts | None
    """Plays demonstrations instead of the policies; they need no resume log."""
    resume_logs: ResumeLogs

    def play(self, step: int, background: Background | None) -> PlayResult:
        """Play this rank's queries of a step.

        Args:
            background: Background work for the time in which there is nothing else to compute.
        """
        with nullcontext() if self.script else self.resume_logs.training_log(step) as resume_log:
            request = PlayRequest(
                self.questions[step][self.part.start : self.part.stop],
                step=step,
                rollouts=self.rollouts,
                first_query=self.part.start,
                script=self.script,
                resume_log=resume_log,
                background=background,
            )
            return self.team(request)


@dataclass(frozen=True)
class RecordedGroups:
    """Groups of a journal, for ``mgrpo replay``."""

    journal: Path
    roles: Mapping[str, RoleConfig]

    def play(self, step: int, background: Background | None) -> PlayResult:
        """Read the groups of a step; background work has nothing to wait for.

        Args:
            background: Not used.
        """
        return PlayResult(recorded_groups(self.journal, step, self.roles))
