"""A toy task for whole-run tests: a lookup tool, a word to find, and scripts that find it or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.modules.validation_config import HeldOutBatch, ValidationConfig
from mgrpo_lightning.records.question import Question, Split
from mgrpo_lightning.records.trajectory import Group, Message, Trajectory
from mgrpo_lightning.tasks.base import Script, Task
from mgrpo_lightning.tools.base import Tool, function_tool
from tests.support.tiny import WORDS


def search(query: str) -> str:
    """Look a number up."""
    if not query.isdecimal():
        raise ToolError(f"{query!r} is no number.")
    return f"word {query}: {WORDS[int(query) % len(WORDS)]}"


class ToyScript(Script):
    """Main delegates the number and copies the report; the searcher looks it up; on odd seeds either gives up."""

    def __init__(self, role: str, subtask: str, seed: int) -> None:
        self.role = role
        self.subtask = subtask
        self.fails = seed % 2 == 1

    @override
    def reply(self, messages: Sequence[Message]) -> str:
        last = messages[-1]
        if last.role == "tool":
            answer = "unknown" if self.fails else last.content.rsplit(" ", 1)[-1]
            return f"<answer>{answer}</answer>"
        if self.role == "main":
            return f'<tool_call>\n{{"name": "searcher", "arguments": {{"task": "{self.subtask[-1]}"}}}}\n</tool_call>'
        return f'<tool_call>\n{{"name": "search", "arguments": {{"query": "{self.subtask}"}}}}\n</tool_call>'


class ToyTask(Task):
    """What is word n? The same questions in every split."""

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        return [Question(f"q{i}", f"word {i}", (word,), level=f"{i % 2} even") for i, word in enumerate(WORDS)]

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        return float(answer in question.answers)

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        return float(trajectory.answer in question.answers)

    @override
    def tools(self) -> Mapping[str, Tool]:
        return {"search": function_tool(search)}

    @override
    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        return ToyScript(role, subtask, seed)


def held_out(groups: list[Group], *, seconds: float = 1.0, agreement: Sequence[float] = ()) -> HeldOutBatch:
    """A batch of a validation, as if it were the toy task's."""
    return HeldOutBatch(groups, ToyTask(), ValidationConfig(), seconds=seconds, agreement=agreement)
