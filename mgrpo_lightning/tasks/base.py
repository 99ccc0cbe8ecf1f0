"""Question and Task: what a team is asked, the world it works in, and how its answers and reports are scored."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from mgrpo_lightning.errors import DataError
from mgrpo_lightning.tasks.scoring import token_f1

if TYPE_CHECKING:
    from mgrpo_lightning.tasks.agreement import Agreement
    from mgrpo_lightning.tools.base import Tool
    from mgrpo_lightning.trajectory import Message, Rollout, Trajectory

HEAD = "main"
"""What a script is told for the role of whoever was asked the question."""

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Evidence:
    """One hop of a question's gold path: where the fact stands and what it says."""

    url: str
    section: str
    value: str
    subject: str = ""
    relation: str = ""


UNKNOWN = "?"
"""The gold answer where only the authors, or their leaderboard, know it; GAIA's test split has it in its rows."""


@dataclass(frozen=True)
class Question:
    """A question with one right answer."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Accepted answers; the first one is canonical."""
    level: str = ""
    """What tables are split by, for instance the number of hops."""
    evidence: tuple[Evidence, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A text alone would be taken for the list of its letters, each of them a right answer.
        answers: object = self.answers
        if isinstance(answers, str):
            raise DataError(
                f"question {self.id!r} has the answers {answers!r}.", hint='give a tuple, such as ("Paris",).'
            )

    @property
    def sealed(self) -> bool:
        """Whether its text must not leave the machine (metadata ``sealed``): the run's journal has it, and no log."""
        return "sealed" in self.metadata

    @property
    def known(self) -> bool:
        """Whether anybody here knows what is right."""
        return self.answers != (UNKNOWN,)


class Script(Protocol):
    """A demonstrator's behaviour for one trajectory: what it says next, given everything said so far."""

    def reply(self, messages: Sequence[Message]) -> str:
        """The next assistant message, without its end-of-turn token.

        Args:
            messages: So far, without the notice before a last turn: where only an answer is legal, the last one is a
                ``mgrpo_lightning.agents.prompts.LastMessage``.
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
