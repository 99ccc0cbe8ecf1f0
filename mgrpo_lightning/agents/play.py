"""PlayRequest (questions, step, K, stage, temperature, script) and PlayResult (groups, idle seconds, counts)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from mgrpo_lightning.persistence.resume_log import ResumeLog
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Trajectory
from mgrpo_lightning.tasks.base import Script

Stage = Literal["train", "validate", "predict"]
"""Purpose of a play. Part of every random stream, because training and validation use the same step numbers."""
Watch = Callable[[Trajectory], None]
"""Sees a trajectory whose last message is new. It must return at once and must not change the trajectory."""
Background = Callable[[], bool]
"""Background work: does one piece while there is nothing else to compute, and returns whether there was one."""


class Scripts(Protocol):
    """A demonstrator's behaviour for one trajectory; see ``Task.script``."""

    def __call__(
        self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]
    ) -> Script | None:
        """The script of the role for this subtask; None if the task cannot demonstrate it."""
        ...


@dataclass(frozen=True)
class PlayRequest:
    """Questions to play, and how."""

    questions: Sequence[Question]
    """The questions that main answers."""
    step: int
    """Training step, part of every key and random stream."""
    rollouts: int
    """K, the number of rollouts of each question."""
    stage: Stage = "train"
    first_query: int = 0
    """Index of the first question within the step, so that random numbers depend on neither batching nor ranks."""
    temperature: float | None = None
    """Sampling temperature of all roles, 0 for greedy; None: each role uses its own."""
    script: Scripts | None = None
    """Demonstrators that play instead of the policies; None: the policies play."""
    resume_log: ResumeLog | None = None
    """Resume log: turns and calls that an earlier, killed process finished are not played again. None: no log."""
    background: Background | None = None
    """Background work of the thread that computes; see ``Scheduler.play``."""
    watch: Watch | None = None
    """Called for each new message of a trajectory, in the agents' thread, while the request is played."""

    @property
    def queries(self) -> range:
        """Indices of the questions within the step."""
        return range(self.first_query, self.first_query + len(self.questions))


@dataclass(frozen=True)
class PlayResult:
    """What was played for a request."""

    groups: list[Group]
    """One group of K rollouts for each question, in order."""
    idle: float = 0.0
    """Seconds in which nothing was computed."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Counts of this process, by metric: ``tool_failures``, with demonstrations ``wrong_demonstrations``, and those of
    ``play_counts``."""
    delegations: Mapping[Key, str] = field(default_factory=dict)
    """Hashes of the delegations between processes, by key: those that main sent, or those that were played for it."""
