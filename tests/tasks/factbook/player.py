"""Plays a demonstrator on the real tools, without tokens: the least that stands between a script and its calls."""

from __future__ import annotations

import asyncio

from mgrpo_lightning.errors import ToolError
from mgrpo_lightning.protocol.actions import parse
from mgrpo_lightning.records.trajectory import Call, Key, Message, Trajectory
from mgrpo_lightning.tasks import Factbook, Question


def play(
    task: Factbook,
    question: Question,
    *,
    seed: int = 0,
    callees: tuple[str, ...] = ("searcher",),
    observation: int | None = None,
) -> list[Trajectory]:
    """Main's trajectory, then those of the searchers it called; every turn must be legal.

    Args:
        task: Its scripts and tools.
        question: What main is asked.
        seed: Of the scripts.
        callees: Whom main may call, as ``Task.script`` is told.
        observation: Characters that are left of a tool's result.
    """
    played: list[Trajectory] = []
    _play(task, question, "main", question.text, seed, callees, observation, played)
    return played


def _play(
    task: Factbook,
    question: Question,
    role: str,
    subtask: str,
    seed: int,
    callees: tuple[str, ...],
    observation: int | None,
    played: list[Trajectory],
) -> str:
    trajectory = Trajectory(role, Key(0, 0, 0, len(played)), subtask)
    played.append(trajectory)
    trajectory.messages = [Message("system", role), Message("user", subtask)]
    script = task.script(question, role, subtask, seed, callees=callees)
    for turn in range(20):
        trajectory.messages.append(Message("assistant", script.reply(tuple(trajectory.messages))))
        action = parse(trajectory.messages[-1].content)
        assert not action.violations
        if action.answer is not None:
            trajectory.answer = action.answer
            return action.answer
        (call,) = action.calls
        failed = False
        if call.name in task.tools():
            try:
                result = asyncio.run(task.tools()[call.name](**call.arguments))[:observation]
            except ToolError as error:
                result, failed = f"error: {error}", True
        else:
            asked = str(call.arguments["task"])
            result = _play(task, question, call.name, asked, seed * 31 + turn + 1, (), observation, played)
        trajectory.messages.append(Message("tool", result))
        trajectory.calls.append(Call(turn, call.name, call.arguments, result, failed))
    raise AssertionError(f"{role} never answered: {trajectory.messages}")
