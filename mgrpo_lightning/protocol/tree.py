"""Draw a rollout as a plain-text tree of turns, calls and results, for ``mgrpo predict`` and the logs."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mgrpo_lightning.protocol.actions import parse
from mgrpo_lightning.records.trajectory import Call, Rollout, Trajectory

MAX_LINES = 8
"""Maximum lines drawn for a tool result; pages can have hundreds."""


def render(rollout: Rollout) -> str:
    """Draw a rollout: one line for each call, and its result or its sub trajectory indented below."""
    return "\n".join(line for lead in rollout.leads for line in _trajectory(lead, rollout))


def _trajectory(trajectory: Trajectory, rollout: Rollout) -> Iterator[str]:
    yield f"{trajectory.role}: {_flat(trajectory.task)}"
    thoughts = [parse(message.content).thought for message in trajectory.messages if message.role == "assistant"]
    for turn, thought in enumerate(thoughts):
        if thought:
            yield from _branch([f"thought: {_flat(thought)}"])
        for call in (call for call in trajectory.calls if call.turn == turn):
            yield from _branch(_call(call, rollout))
    if trajectory.violations:
        yield from _branch([f"invalid: {', '.join(trajectory.violations)}"])
    yield from _branch([f"answer: {'none' if trajectory.answer is None else _flat(trajectory.answer)}"])


def _call(call: Call, rollout: Rollout) -> Iterator[str]:
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    yield f"{call.name}({arguments})"
    if call.invocation is not None:
        # Invocation 0 is main's trajectory, so invocation i is sub trajectory i - 1.
        yield from _branch(_trajectory(rollout.subs[call.invocation - 1], rollout))
    # The sub trajectory above ends with its answer; only a failed delegation has a further text to show.
    if call.invocation is None or call.failed:
        lines = call.result.splitlines()
        yield from (f"    {line}" for line in lines[:MAX_LINES])
        if len(lines) > MAX_LINES:
            yield f"    ... {len(lines) - MAX_LINES} more lines"


def _branch(lines: Iterator[str] | list[str]) -> Iterator[str]:
    for index, line in enumerate(lines):
        yield f"|  {line}" if index else f"+- {line}"


def _flat(text: str) -> str:
    return " ".join(text.split())
