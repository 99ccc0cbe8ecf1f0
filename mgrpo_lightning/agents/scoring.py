"""Score played groups: format from the protocol, correct and expert from the task, the total from eq. 4 and 5.

A trajectory whose total cannot be decided is marked failed and leaves its group before mean and std; it is never
scored as wrong. That is so when

- a ScoringError hits main's own correctness, or another component that its role weighs: the correctness that sub
  trajectories copy, with which all of a rollout leave, or the expert score of one (an invalid format is 0 whatever its
  expert says). Where the engine interrupted main, nobody can say what it would have answered: that correctness cannot
  be decided either;
- the engine interrupted it, or it has no sampled token at all (its prompt filled the context): it did nothing that
  could be rewarded.

An expert score that a role does not weigh is not asked for and stays 0. Tasks may return a score of any real type; here
it becomes a float in [0, 1].
"""

from __future__ import annotations

import asyncio
import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.errors import DataError, ScoringError
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Rollout, Score, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.base import Task
from mgrpo_lightning.tasks.scoring import fold


def score_groups(groups: Sequence[Group], task: Task, roles: Mapping[str, RoleConfig]) -> str:
    """Fill the scores of every rollout; judges of all trajectories run at once.

    A trajectory that another process played is scored there; of a main elsewhere the score is there already.

    Args:
        groups: Played groups.
        task: Decides what is correct and how well subtasks were done.
        roles: Reward weights by role.

    Returns:
        Why the first answer that could not be decided was not, "" if there is none.
    """
    rollouts = [(group.question, rollout) for group in groups for rollout in group.rollouts]
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Future[list[str]]]] = Future()

    async def score_all() -> list[str]:
        scores = asyncio.gather(*(score(question, rollout, task, roles) for question, rollout in rollouts))
        started.set_result((asyncio.get_running_loop(), scores))
        return await scores

    # A thread of its own, because a notebook has a loop running in this one.
    with ThreadPoolExecutor(1, thread_name_prefix="scoring") as pool:
        scored = pool.submit(lambda: asyncio.run(score_all()))
        try:
            return next(filter(None, scored.result()), "")
        finally:
            if not scored.done():  # this thread was interrupted, and a judge may take minutes
                loop, scores = started.result()
                with suppress(RuntimeError):  # the loop has ended by itself
                    loop.call_soon_threadsafe(scores.cancel)


async def score(question: Question, rollout: Rollout, task: Task, roles: Mapping[str, RoleConfig]) -> str:
    """Fill the scores of one rollout.

    Args:
        question: What main was asked.
        rollout: A finished rollout.
        task: Decides what is correct and how well subtasks were done.
        roles: Reward weights by role.

    Returns:
        Why main's correctness could not be decided, "" if it could, or the engine interrupted it.
    """
    why: list[str] = []
    trajectories = [trajectory for trajectory in rollout.trajectories() if not trajectory.elsewhere]
    correct, *experts = await asyncio.gather(
        _correct(question, rollout, task, why),
        *(_expert(question, trajectory, task, roles[trajectory.role]) for trajectory in trajectories),
    )
    for trajectory, expert in zip(trajectories, experts, strict=True):
        head = trajectory.parent is None
        rollout.scores[trajectory.key.invocation] = _total(
            trajectory,
            roles[trajectory.role],
            {"correct": correct if head else 0.0, "correct_main": 0.0 if head else correct, "expert": expert},
        )
    return "".join(why)


def undecided(rollout: Rollout) -> bool:
    """Whether main's correctness could not be decided: nobody could judge it, or the engine interrupted its play.

    Args:
        rollout: Scored.
    """
    score = rollout.scores[0]
    return (score.failed and score.format > 0) or _interrupted(rollout)


def question_scores(group: Group) -> dict[str, float]:
    """avg@k, pass@k and majority@k of a question's k rollouts, as ``accuracy``, ``pass`` and ``majority``.

    A rollout counts as the task decided; one with an invalid format is wrong, and one that could not be decided does
    not count, nor does a question whose answer is not known. The majority is the answer that most rollouts gave, of
    several the first; answers that differ by more than spelling are different votes, also where a judge would take them
    for the same.

    Args:
        group: Scored.
    """
    decided = [rollout for rollout in group.rollouts if not undecided(rollout)]
    if not decided or not group.question.known:
        return {}
    correct = [rollout.scores[0].correct for rollout in decided]
    answers = [fold(rollout.main.answer or "") for rollout in decided]
    votes = Counter(answer for answer in answers if answer)
    majority = correct[answers.index(votes.most_common(1)[0][0])] if votes else 0.0
    return {"accuracy": sum(correct) / len(correct), "pass": max(correct), "majority": majority}


async def _correct(question: Question, rollout: Rollout, task: Task, why: list[str]) -> float | None:
    """Main's correctness, 0 when its format (of equals, every one's) is invalid; None when it cannot be decided.

    Why it cannot is added to ``why``.

    It is what validations report, so it is asked for whether or not it is a reward.
    """
    if rollout.main.elsewhere:
        return None if undecided(rollout) else rollout.scores[0].correct
    if not any(head.valid for head in rollout.heads):
        return None if _interrupted(rollout) else 0.0
    try:
        return _number(await task.correct(question, rollout.main.answer), "correct", question, task)
    except ScoringError as error:
        why.append(str(error))
        return None


def _interrupted(rollout: Rollout) -> bool:
    """Whether main (of equals, every one) came to no valid end, one of them as the engine gave it no turn."""
    heads = rollout.heads
    return not any(head.valid for head in heads) and any(Violation.INTERRUPTED in head.violations for head in heads)


async def _expert(question: Question, trajectory: Trajectory, task: Task, role: RoleConfig) -> float | None:
    if not role.weights.expert or not trajectory.valid:
        return 0.0
    try:
        return _number(await task.expert(question, trajectory), "expert", question, task)
    except ScoringError:
        return None


def _number(score: Any, method: str, question: Question, task: Task) -> float:
    """The score as a float, whatever type of number a task returned: of numpy or torch, a fraction, a bool."""
    try:
        scalar = score.item() if hasattr(score, "item") else score
        # A text is refused even if it says a number: whoever returns one has mixed something up.
        number = math.nan if isinstance(scalar, str | bytes | bytearray) else float(scalar)
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # the last one: torch, of several elements
        number = math.nan
    if not 0 <= number <= 1:
        raise DataError(
            f"{method!r} of task {type(task).__name__} scored question {question.id!r} with {reprlib.repr(score)}.",
            hint="return a number from 0 to 1, or raise a ScoringError where nobody can decide.",
        )
    return number


def _total(trajectory: Trajectory, role: RoleConfig, components: Mapping[str, float | None]) -> Score:
    valid = trajectory.valid
    assert not valid or trajectory.answer is not None, "a valid trajectory ends with an answer"
    open_question = valid and any(
        value is None and (name == "correct" or getattr(role.weights, name)) for name, value in components.items()
    )
    # One event of the whole rollout: were its invalid calls to stay, they alone would fill its slots.
    open_rollout = components["correct_main"] is None and role.weights.correct_main
    idle = Violation.INTERRUPTED in trajectory.violations or not trajectory.num_actions
    values = {name: value or 0.0 for name, value in components.items()}
    failed = bool(open_question or open_rollout or idle)
    total = 0.0 if failed else reward(role.weights, valid=valid, **values)
    return Score(float(valid), **values, total=total, failed=failed)
