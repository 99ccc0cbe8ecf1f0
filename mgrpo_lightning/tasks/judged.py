"""JudgedTask: base class of tasks from files: an answer is right if the rule matches it, or else the judge says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.answer_rules import exact_match
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.judge_agreement import Agreement
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import ToolSet, collected
from mgrpo_lightning.unicode import visible


class JudgedTask(Task):
    """Base of tasks that read their questions from files.

    Args:
        judge: Judge of answers that the rule does not match; None: such answers are wrong.
        tools: Dotted paths of functions, or sets of tools; roles call them by their bare names.

    Raises:
        ConfigurationError: A tool does not exist, or two tools have the same name.
    """

    def __init__(self, judge: Judge | None, tools: Sequence[str | ToolSet]) -> None:
        self._judge = judge
        self._tools = collected(tools)

    def rule(self, question: Question, answer: str) -> float:
        """Return the rule's score in [0, 1]; a score above 0 is a match. The default is exact match.

        Args:
            question: Question with its accepted answers.
            answer: Answer of main; not empty.
        """
        return exact_match(answer, question.answers)

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        """Return 1.0 if the rule or the judge accepts the answer; an empty answer is wrong."""
        if answer is None or not visible(answer).strip():  # invisible characters alone are an empty answer
            return 0.0
        matched = self.rule(question, answer)
        if self._judge is None:
            return matched
        return float(await self._judge.decide(question.text, question.answers, answer, matched=matched > 0))

    @property
    @override
    def agreement(self) -> Agreement | None:
        return None if self._judge is None else self._judge.agreement

    @override
    def tools(self) -> Mapping[str, Tool]:
        return self._tools
