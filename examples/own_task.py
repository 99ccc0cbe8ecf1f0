"""Your own task: questions, tools, scoring of answers and reports, and a script that demonstrates correct behaviour.

    mgrpo fit --config configs/quickstart.yaml --config configs/warm_start.yaml --config examples/own_task.yaml

The world of this task is a telephone book. A question asks for the telephone number of a person's neighbour. ``script``
is needed only for a warm start (supervised training on demonstrations), which small models need.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from typing_extensions import override

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.records.trajectory import Message, Trajectory
from mgrpo_lightning.tasks import Question, Script, Split, Task
from mgrpo_lightning.tasks.answer_rules import exact_match
from mgrpo_lightning.tools.base import Tool, function_tool

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon", "Kai", "Lea")
BOOK = {name: (NAMES[(i + 1) % len(NAMES)], f"{555000 + 37 * i}") for i, name in enumerate(NAMES)}
"""(neighbour, number) of each person."""


def look_up(name: str) -> str:
    """Find a person in the telephone book."""
    if name not in BOOK:
        raise ToolError(f"{name!r} is not in the book.")
    neighbour, number = BOOK[name]
    return f"{name}: number {number}, neighbour {neighbour}"


class TelephoneBook(Task):
    """What is the number of somebody's neighbour?"""

    @override
    def questions(self, split: Split) -> Sequence[Question]:
        people = NAMES[:8] if split == "train" else NAMES[8:]  # disjoint: held-out questions are new to the model
        numbers = {name: BOOK[BOOK[name][0]][1] for name in people}
        return [Question(name, f"What is the number of {name}'s neighbour?", (numbers[name],)) for name in people]

    @override
    async def correct(self, question: Question, answer: str | None) -> float:
        return exact_match(answer, question.answers)

    @override
    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        """1.0 if the report is the right neighbour or number and a call of ``look_up`` returned it, else 0.0."""
        # Only what the tool returned counts, so a guessed number earns nothing.
        said = [call.result for call in trajectory.calls if call.name == "look_up" and not call.failed]
        wanted = (BOOK[question.id][0], *question.answers)
        return exact_match(trajectory.answer, [value for value in wanted if any(value in line for line in said)])

    @override
    def tools(self) -> Mapping[str, Tool]:
        return {"look_up": function_tool(look_up)}

    @override
    def script(self, question: Question, role: str, subtask: str, seed: int, *, callees: Sequence[str]) -> Script:
        return _Demonstration(question.id if role == "main" else subtask, callees)


class _Demonstration(Script):
    """Main asks for the neighbour, then for the neighbour's number; the searcher looks up the person it is asked about.

    ``reply`` reads only the messages, so it gives the same turn whenever it sees the same conversation.
    """

    def __init__(self, asked: str, callees: Sequence[str]) -> None:
        self._asked = asked
        self._callees = callees

    @override
    def reply(self, messages: Sequence[Message]) -> str:
        shown = [message.content for message in messages if message.role == "tool"]
        if self._callees:  # main
            if len(shown) == 2:
                return f"<answer>{shown[1]}</answer>"
            return _call(self._callees[0], task=f"number of {shown[0]}" if shown else f"neighbour of {self._asked}")
        wanted, _, name = self._asked.partition(" of ")
        if not shown:
            return _call("look_up", name=name)
        return f"<answer>{shown[0].partition(f'{wanted} ')[2].partition(',')[0] or 'not found'}</answer>"


def _call(called: str, **arguments: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': called, 'arguments': arguments})}\n</tool_call>"
