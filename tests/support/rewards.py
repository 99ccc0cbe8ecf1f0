"""Reward functions of a user, by dotted path, for teams of tests."""

from __future__ import annotations

import time
from typing import Any

from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Trajectory

CALLED: list[tuple[str, object]] = []
"""Calls of the functions that note them: the name, and what it was given."""
RETURNED: dict[str, Any] = {"value": 0.5}
"""What ``given`` returns."""


def brevity(answer: str) -> float:
    """Depend on the length of the answer."""
    return 1 / (1 + len(answer))


def drifting(answer: str) -> float:
    """Return another value at every call, so that a replay that calls it is not bitwise."""
    CALLED.append(("drifting", answer))
    return (len(CALLED) * 37 % 101) / 101


async def few_calls(question: Question, trajectory: Trajectory) -> float:
    """Change all that a function must not change."""
    CALLED.append((question.id, trajectory.role))
    seen = len(trajectory.calls)
    for call in trajectory.calls:
        call.arguments.clear()
    for held in (trajectory.calls, trajectory.messages, trajectory.violations, trajectory.segments):
        held.clear()
    return 1 / (1 + seen)


def given(answer: str, strict: bool = True) -> Any:
    return RETURNED["value"]


def broken(answer: str) -> float:
    raise KeyError("a bug")


def leaving(answer: str) -> float:
    raise SystemExit(3)


def undecided(answer: str) -> float:
    raise ScoringError("the service is down.")


def slow(answer: str) -> float:
    time.sleep(30)
    return 1.0


def of_two(answer: str, reference: str) -> float:
    return float(answer == reference)
