"""Task: base class: questions by split, correctness of answers, expert score of reports, tools, demonstrations."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.tasks.answer_rules import token_f1

if TYPE_CHECKING:
    from mgrpo_lightning.records.trajectory import Message, Rollout, Trajectory
    from mgrpo_lightning.tasks.judge_agreement import Agreement
    from mgrpo_lightning.tools.base import Tool

HEAD = "main"
"""Role name that ``Task.script`` gets for the agent that answers the question, whatever the team file calls it."""


class Script(Protocol):
    """Demonstrates one trajectory: it returns the next assistant message, given all messages so far."""

    def reply(self, messages: Sequence[Message]) -> str:
        """Return the next assistant message, without its end-of-turn token.

        Args:
            messages: All messages so far, without the notice that announces the last turn. In the last turn only an
                answer is legal; then the last message is a ``mgrpo_lightning.protocol.prompts.LastMessage``.
        """
        ...


class Task(ABC):
    """Questions with answers, the tools to work on them, and the scoring of answers and reports."""

    table_by: Sequence[str] = ()
    """Metadata keys by which result tables are split, in addition to the question level."""

    @property
    def agreement(self) -> Agreement | None:
        """Counts of how often judge and rule agree; None if the task has no judge."""
        return None

    @property
    def terms(self) -> str:
        """Licence or terms of use of the questions, for the cards of exported adapters; empty if unknown."""
        return ""

    @property
    def has_expert(self) -> bool:
        """Whether ``expert`` can be above 0. Override this too if the expert is optional."""
        return type(self).expert is not Task.expert

    @abstractmethod
    def questions(self, split: Split) -> Sequence[Question]:
        """Return all questions of a split, in a fixed order."""

    @abstractmethod
    async def correct(self, question: Question, answer: str | None) -> float:
        """Return 1.0 if the answer is right, else 0.0; None is main without an answer.

        Raises:
            ScoringError: It could not be decided; the trajectory leaves its group.
        """

    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """Return how well a sub trajectory did its subtask, in [0, 1]; 0 if the task has no expert.

        Raises:
            ScoringError: It could not be decided; the trajectory leaves its group.
        """
        return 0.0

    def f1(self, answer: str | None, golds: Sequence[str]) -> float:
        """Return the token F1 that tables show beside ``correct``: HotpotQA's, unless a benchmark overrides it.

        Args:
            answer: Answer of main; None scores 0.
        """
        return token_f1(answer, golds)

    def predictions(self, played: Sequence[tuple[Question, Rollout]]) -> tuple[str, str]:
        """Format predictions for the benchmark's scorer.

        Args:
            played: Questions with one rollout each, in the order in which they were asked.

        Returns:
            The file extension (with the dot) and the text of the file.
        """
        return ".jsonl", json_lines({"id": one.id, "answer": rollout.main.answer} for one, rollout in played)

    def tools(self) -> Mapping[str, Tool]:
        """Return the tools of this task, by name."""
        return {}

    def script(
        self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]
    ) -> Script | None:
        """Return a script that demonstrates one trajectory (for a warm start); None if the task has no demonstrations.

        Args:
            question: Question that main was asked.
            role: Role of the trajectory; always ``main`` for an agent that answers the question itself.
            subtask: Text that the role was given: the question for main, else the task of the call.
            seed: Seed of random choices of the demonstrator.
            callees: Roles that this role may delegate to, in the team file's order; empty if it has only tools.
        """
        return None


def json_lines(records: Iterable[Mapping[str, object]]) -> str:
    """Serialise records as JSON lines, with a newline after each.

    Args:
        records: Mappings that JSON can represent.
    """
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
