"""Score played groups: format, correct, expert, user functions, reward; mark undecided ones; pass@k, majority@k.

The total is that of eq. 4 and 5, plus the weighted values of the user's reward functions.

If the total of a trajectory cannot be decided, it is marked failed and leaves its group before mean and std. It is
never scored as wrong. A trajectory fails in these cases:

- Main's correctness is undecided, by a ScoringError or because the engine interrupted main. Then main fails (in a
  discussion: every agent with a valid format), and so does each sub trajectory whose role weighs ``correct_main``.
- Its role weighs ``expert``, and the expert score raised a ScoringError. A trajectory with an invalid format does not
  fail in this way: its reward is 0 without an expert score.
- A reward function of its role raised a ScoringError, and its format is valid. If it is main's, main's correctness is
  decided all the same: validation counts it, and the sub trajectories of the rollout do not fail.
- The engine interrupted it, or it has no sampled token (its prompt filled the context). It did nothing to reward.

If a role does not weigh ``expert``, the task is not asked for the score, and it stays 0. Tasks may return a score of
any real type; it becomes a float in [0, 1].
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from mgrpo_lightning.agents.reward_functions import function_values
from mgrpo_lightning.agents.score_values import checked_score
from mgrpo_lightning.algorithm.rewards import reward
from mgrpo_lightning.errors import ScoringError
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Rollout, Score, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from mgrpo_lightning.tasks.answer_rules import fold
from mgrpo_lightning.tasks.base import Task


def score_groups(groups: Sequence[Group], task: Task, roles: Mapping[str, RoleConfig]) -> str:
    """Fill the scores of every rollout; the judges of all trajectories run concurrently.

    Each process scores the trajectories that it played. If another process plays main, its score of main must be in
    ``rollout.scores`` already.

    Args:
        groups: Played groups; their rollouts' ``scores`` are filled in place.
        task: The task, which scores answers and reports.
        roles: Role configurations by name, which hold the reward weights.

    Returns:
        The reason why the first undecided answer could not be scored; "" if all were scored.
    """
    rollouts = [(group.question, rollout) for group in groups for rollout in group.rollouts]
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Future[list[str]]]] = Future()

    async def score_all() -> list[str]:
        scores = asyncio.gather(*(score(question, rollout, task, roles) for question, rollout in rollouts))
        started.set_result((asyncio.get_running_loop(), scores))
        return await scores

    # asyncio.run needs a thread without a running event loop; in a notebook, this thread has one.
    with ThreadPoolExecutor(1, thread_name_prefix="scoring") as pool:
        scored = pool.submit(lambda: asyncio.run(score_all()))
        try:
            return next(filter(None, scored.result()), "")
        finally:
            if not scored.done():  # Ctrl-C: cancel, since a judge may take minutes and the pool waits for it
                loop, scores = started.result()
                with suppress(RuntimeError):  # the loop has ended in the meantime
                    loop.call_soon_threadsafe(scores.cancel)


async def score(question: Question, rollout: Rollout, task: Task, roles: Mapping[str, RoleConfig]) -> str:
    """Fill the scores of one rollout.

    Args:
        question: The question that main answered.
        rollout: A finished rollout; its ``scores`` are filled in place.
        task: The task, which scores answers and reports.
        roles: Role configurations by name, which hold the reward weights.

    Returns:
        The reason why main's correctness could not be decided; "" if it was decided or the engine interrupted main.
    """
    why: list[str] = []
    trajectories = [trajectory for trajectory in rollout.trajectories() if not trajectory.elsewhere]
    correct, experts, functions = await asyncio.gather(
        _correct(question, rollout, task, why),
        asyncio.gather(*(_expert(question, t, task, roles[t.role]) for t in trajectories)),
        asyncio.gather(*(function_values(question, t, roles[t.role], task) for t in trajectories)),
    )
    for trajectory, expert, values in zip(trajectories, experts, functions, strict=True):
        lead = trajectory.parent is None
        rollout.scores[trajectory.key.invocation] = _total(
            trajectory,
            roles[trajectory.role],
            {"correct": correct if lead else 0.0, "correct_main": 0.0 if lead else correct, "expert": expert},
            values,
        )
    return "".join(why)


def undecided(rollout: Rollout) -> bool:
    """Whether main's correctness is undecided, because scoring failed or the engine interrupted main."""
    # A failed score with a valid format means that the judge or a reward function failed; an invalid format needs
    # neither. Only if the judge decided, the score says which function failed.
    score = rollout.scores[0]
    judge_failed = score.failed and score.format > 0 and None not in score.functions.values()
    return judge_failed or _interrupted(rollout)


def question_scores(group: Group) -> dict[str, float]:
    """avg@k, pass@k and majority@k of a question's k rollouts, as ``accuracy``, ``pass`` and ``majority``.

    A rollout with an invalid format counts as wrong. Undecided rollouts do not count; without a decided rollout or a
    known answer the result is empty. The majority answer is the most frequent one; in a tie, the first. Two answers are
    one vote only if they differ in spelling alone, even if a judge would accept both.

    Returns:
        Three numbers in [0, 1] by name, or an empty dict.
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
    """Main's correctness; 0 if its format is invalid (in a discussion: every agent's); None if it cannot be decided.

    The reason for None is appended to ``why``. Validation reports this score, so the task is asked for it even if no
    reward weighs it.
    """
    if rollout.main.elsewhere:
        return None if undecided(rollout) else rollout.scores[0].correct
    if not any(lead.valid for lead in rollout.leads):
        return None if _interrupted(rollout) else 0.0
    try:
        score = await task.correct(question, rollout.main.answer)
        return checked_score(score, f"'correct' of task {type(task).__name__}", question)
    except ScoringError as error:
        why.append(str(error))
        return None


def _interrupted(rollout: Rollout) -> bool:
    """Whether the engine interrupted main: no head (main or an equal) is valid, and at least one was interrupted."""
    leads = rollout.leads
    return not any(lead.valid for lead in leads) and any(Violation.INTERRUPTED in lead.violations for lead in leads)


async def _expert(question: Question, trajectory: Trajectory, task: Task, role: RoleConfig) -> float | None:
    if not role.weights.expert or not trajectory.valid:
        return 0.0
    try:
        score = await task.expert(question, trajectory)
        return checked_score(score, f"'expert' of task {type(task).__name__}", question)
    except ScoringError:
        return None


def _total(
    trajectory: Trajectory,
    role: RoleConfig,
    components: Mapping[str, float | None],
    functions: Mapping[str, float | None],
) -> Score:
    valid = trajectory.valid
    assert not valid or trajectory.answer is not None, "a valid trajectory ends with an answer"
    open_question = valid and any(
        value is None and (name == "correct" or getattr(role.weights, name)) for name, value in components.items()
    )
    # All sub trajectories of the rollout fail together: if only the invalid ones stayed, they would fill all its slots.
    open_rollout = components["correct_main"] is None and role.weights.correct_main
    idle = Violation.INTERRUPTED in trajectory.violations or not trajectory.num_actions
    values = {name: value or 0.0 for name, value in components.items()}
    decided = {name: value for name, value in functions.items() if value is not None}
    failed = bool(open_question or open_rollout or idle or len(decided) < len(functions))
    total = 0.0 if failed else reward(role.weights, valid=valid, **values, functions=decided)
    # ``undecided`` looks at the functions to know whether correctness was decided.
    return Score(float(valid), **values, total=total, failed=failed, functions={} if open_question else functions)
