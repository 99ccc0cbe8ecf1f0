"""JudgedTask: answers that a rule decides, and a judge where the rule finds no match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.records.question import Question
from mgrpo_lightning.tasks.agreement import Agreement
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.judge import Judge
from mgrpo_lightning.tasks.scoring import exact_match
from mgrpo_lightning.tools.base import Tool
from mgrpo_lightning.tools.sets import ToolSet, collected
from mgrpo_lightning.unicode import visible


class JudgedTask(Task):
    """What tasks over files of questions have in common.

    Args:
        judge: Decides about answers that the rule does not match; None: they are wrong.
        tools: Dotted paths of functions, or sets of tools, that roles may call by their bare names.

    Raises:
        ConfigurationError: A tool does not exist, or two have one name.
    """

    def __init__(self, judge: Judge | None, tools: Sequence[str | ToolSet]) -> None:
        self._judge = judge
        self._tools = collected(tools)

    def rule(self, question: Question, answer: str) -> float:
        """The rule's score of an answer that is not empty, in [0, 1].

        Args:
            question: With its accepted answers.
            answer: Main's.
        """
        return exact_match(answer, question.answers)

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        """1.0 if the rule or else the judge says so; an empty answer is wrong."""
        if answer is None or not visible(answer).strip():
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
