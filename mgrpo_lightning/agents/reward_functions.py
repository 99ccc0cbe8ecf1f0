"""Reward functions of the user: import them by dotted path, check their arguments, call them for a trajectory.

    def brevity(answer: str) -> float:
        return 1 / (1 + len(answer) / 100)

A function takes any of the arguments in ``ARGUMENTS`` by name and returns a number in [0, 1]. It may be ``async``. If
it raises a ScoringError, the trajectory leaves its group. Any other error ends the run.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from mgrpo_lightning.agents.score_values import checked_score
from mgrpo_lightning.errors import ConfigurationError, DataError, MgrpoError, ScoringError
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Segment, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tools.base import imported
from mgrpo_lightning.tools.daemon_thread import Apart, Limit

ARGUMENTS = ("question", "answer", "trajectory")
"""Arguments that a reward function may take: the ``Question`` of the rollout, the answer or report of the trajectory as
text, and a copy of the ``Trajectory``."""


def load_functions(place: str, role: RoleConfig) -> None:
    """Import all reward functions of a role that have a weight.

    Args:
        place: Dotted key of the role's reward block, for the error.
        role: Configuration of the role.

    Raises:
        ConfigurationError: A path cannot be imported, is no function, or its function needs another argument.
    """
    for name, one in role.weights.functions.items():
        if one.weight:
            try:
                _loaded(one.function)
            except _Unusable as error:
                raise ConfigurationError(
                    f"{place}.functions.{name}.function is {one.function!r}, {error}.",
                    hint=f"give the dotted path of a Python function that takes some of {', '.join(ARGUMENTS)}.",
                ) from error


async def function_values(
    question: Question, trajectory: Trajectory, role: RoleConfig, task: Task
) -> dict[str, float | None]:
    """Call the reward functions of a role for one trajectory; all values are 0 if its format is invalid.

    A call may take ``limits.tool_seconds``.

    Args:
        question: The question of the rollout.
        trajectory: A finished trajectory of the role. The functions get a copy.
        role: Configuration of the role.
        task: The task, for errors.

    Returns:
        Values by name, in [0, 1]; None where the function raised a ScoringError.

    Raises:
        DataError: A function raised another error, took too long, or returned anything but a number in [0, 1].
    """
    names = [name for name in role.weights.parts if name in role.weights.functions]
    if not trajectory.valid:
        return dict.fromkeys(names, 0.0)
    assert trajectory.answer is not None, "a valid trajectory ends with an answer"
    values = await asyncio.gather(*(_value(name, question, trajectory, role, task) for name in names))
    return dict(zip(names, values, strict=True))


async def _value(name: str, question: Question, trajectory: Trajectory, role: RoleConfig, task: Task) -> float | None:
    function, wanted = _loaded(role.weights.functions[name].function)
    given = {"question": question, "answer": trajectory.answer, "trajectory": trajectory}
    arguments = {argument: given[argument] for argument in wanted}
    if "trajectory" in arguments:
        arguments["trajectory"] = _copied(trajectory)
    what = f"reward function {name!r} of role {trajectory.role!r} in task {type(task).__name__}"
    limit = Limit(role.limits.tool_seconds)
    try:
        async with limit:
            value = await function(**arguments)
    except ScoringError:
        return None
    except TimeoutError as error:
        if not limit.passed:
            raise _failed(what, question, error) from error
        raise DataError(
            f"{what} took longer than {role.limits.tool_seconds:g} s on question {question.id!r}.",
            hint="correct the function, or raise limits.tool_seconds of the role.",
        ) from error
    except MgrpoError:
        raise
    except (Exception, SystemExit) as error:  # the user's function runs any code
        raise _failed(what, question, error) from error
    return checked_score(value, what, question)


def _failed(what: str, question: Question, error: BaseException) -> DataError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return DataError(
        f"{what} failed on question {question.id!r}: {type(error).__name__}: {error} "
        f"({frame.filename}, line {frame.lineno}).",
        hint="correct it; it may raise a ScoringError where an answer cannot be scored.",
    )


class _Unusable(Exception):
    """The object at a dotted path cannot be a reward function; the text says why."""


@cache
def _loaded(path: str) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return the function at a dotted path, as a coroutine function, and the names of its arguments."""
    try:
        found = imported(path)
    except Exception as error:  # importing a user's module runs any code
        raise _Unusable(f"which cannot be imported: {type(error).__name__}: {error}") from error
    if not inspect.isfunction(found):
        raise _Unusable(f"which is a {type(found).__name__}, not a function")
    parameters = inspect.signature(found).parameters
    for name, one in parameters.items():
        optional = one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        if one.kind is one.POSITIONAL_ONLY or (name not in ARGUMENTS and not optional):
            raise _Unusable(f"which needs the argument {name!r}")
    wanted = tuple(name for name in ARGUMENTS if name in parameters)
    # A function that blocks must not stop the judges of other trajectories: it runs in a thread, one call at a time.
    return found if inspect.iscoroutinefunction(found) else Apart(found), wanted


def _copied(trajectory: Trajectory) -> Trajectory:
    """Return a copy whose changes do not reach the record, from which the update and the journal are made."""
    return replace(
        trajectory,
        segments=[Segment(list(segment.spans)) for segment in trajectory.segments],
        messages=list(trajectory.messages),
        calls=[replace(call, arguments=copy.deepcopy(call.arguments)) for call in trajectory.calls],
        violations=list(trajectory.violations),
    )
