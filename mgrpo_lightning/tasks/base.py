"""Task: the questions of a team, the world it works in, and how its answers and reports are scored."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.tasks.scoring import token_f1

if TYPE_CHECKING:
    from mgrpo_lightning.records.trajectory import Message, Rollout, Trajectory
    from mgrpo_lightning.tasks.agreement import Agreement
    from mgrpo_lightning.tools.base import Tool

HEAD = "main"
"""What a script is told for the role of whoever was asked the question."""


class Script(Protocol):
    """A demonstrator's behaviour for one trajectory: what it says next, given everything said so far."""

    def reply(self, messages: Sequence[Message]) -> str:
        """The next assistant message, without its end-of-turn token.

        Args:
            messages: So far, without the notice before a last turn: where only an answer is legal, the last one is a
                ``mgrpo_lightning.protocol.prompts.LastMessage``.
        """
        ...


class Task(ABC):
    """Questions with answers, the tools of their world, and how answers and reports are scored."""

    table_by: Sequence[str] = ()
    """Metadata of questions by which tables of results are split, besides their level."""

    @property
    def agreement(self) -> Agreement | None:
        """Where a judge decides what a rule does not: what both have said so far."""
        return None

    @property
    def has_expert(self) -> bool:
        """Whether ``expert`` can be above 0; a task whose expert is an option overrides this too."""
        return type(self).expert is not Task.expert

    @abstractmethod
    def questions(self, split: Split) -> Sequence[Question]:
        """All questions of a split, in a fixed order."""

    @abstractmethod
    async def correct(self, question: Question, answer: str | None) -> float:
        """1.0 if the answer is right, else 0.0.

        Raises:
            ScoringError: It could not be decided; the sample leaves its group.
        """

    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """How well a sub trajectory did its subtask, in [0, 1]; 0 where the task has no expert.

        Raises:
            ScoringError: It could not be decided; the sample leaves its group.
        """
        return 0.0

    def f1(self, answer: str | None, golds: Sequence[str]) -> float:
        """F1 of shared tokens, which tables show beside ``correct``; HotpotQA's unless a benchmark has its own.

        Args:
            answer: Main's; None is wrong.
            golds: Accepted answers.
        """
        return token_f1(answer, golds)

    def predictions(self, played: Sequence[tuple[Question, Rollout]]) -> tuple[str, str]:
        """A file of predictions, in the format of whoever scores them.

        Args:
            played: Questions with a rollout each, in the order in which they were asked.

        Returns:
            The end of the file's name, and its text.
        """
        return ".jsonl", json_lines({"id": one.id, "answer": rollout.main.answer} for one, rollout in played)

    def tools(self) -> Mapping[str, Tool]:
        """The tools of this task's world, by name."""
        return {}

    def script(
        self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]
    ) -> Script | None:
        """A demonstrator's behaviour for one trajectory, None where the task cannot demonstrate (warm start).

        Args:
            question: What main was asked.
            role: Who plays the trajectory; ``main`` for main and its equals, whatever the team file calls them.
            subtask: What it is asked.
            seed: Of whatever the demonstrator leaves to chance.
            callees: Whom the role may delegate to, in the team file's order; empty for one that has only tools.
        """
        return None


def json_lines(records: Iterable[Mapping[str, object]]) -> str:
    """Records as JSON, one a line.

    Args:
        records: What JSON can say.
    """
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
