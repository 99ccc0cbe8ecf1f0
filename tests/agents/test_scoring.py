import asyncio
import math
import reprlib
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import cast

import numpy as np
import pytest
import torch

from mgrpo_lightning.agents.scoring import question_scores, score_groups, undecided
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.errors import DataError, ScoringError
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.question import Question
from mgrpo_lightning.records.trajectory import Group, Key, Rollout, Score, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import RoleConfig
from tests.agents.fakes import FakeTask, duo, question


def trajectory(invocation: int, *, answer: str | None = "yes", violation: str = "", actions: int = 1) -> Trajectory:
    role = "searcher" if invocation else "main"
    violations = [violation] if violation else []
    played = Trajectory(role, Key(0, 0, 0, invocation), "task", answer=answer, violations=violations)
    played.parent = 0 if invocation else None
    played.segments = [Segment([Span("observation", (1,)), *([Span("action", (2,), (-0.5,))] * actions)])]
    return played


def scored(
    main: Trajectory, *subs: Trajectory, task: FakeTask | None = None, roles: dict[str, RoleConfig] | None = None
) -> list[Score]:
    rollout = Rollout(main, list(subs))
    score_groups([Group(question("Who?", "yes"), [rollout])], task or FakeTask(), roles or duo())
    assert list(rollout.scores) == list(range(len(subs) + 1))
    return list(rollout.scores.values())


def test_right_main_with_a_half_good_sub() -> None:
    main, sub = scored(trajectory(0), trajectory(1))
    assert main == Score(format=1, correct=1, correct_main=0, expert=0, total=1.0)
    assert sub == Score(format=1, correct=0, correct_main=1, expert=0.5, total=0.75)


def test_wrong_main() -> None:
    main, sub = scored(trajectory(0, answer="no"), trajectory(1))
    assert (main.correct, sub.correct_main) == (0, 0)
    assert [main.total, sub.total] == pytest.approx([0.1, 0.1 + 0.25])


@pytest.mark.parametrize("answer", [None, "yes"])
def test_an_invalid_main_earns_nothing_and_its_subs_get_no_correctness(answer: str | None) -> None:
    task = FakeTask()
    main, sub = scored(trajectory(0, answer=answer, violation=Violation.TRUNCATED), trajectory(1), task=task)
    assert (main.format, main.correct, main.total, main.failed) == (0, 0, 0, False)
    assert sub.correct_main == 0
    assert sub.total == pytest.approx(0.1 + 0.25)
    assert task.asked == ["expert"]


def test_an_invalid_sub_earns_nothing_and_no_judge_is_asked() -> None:
    task = FakeTask()
    main, sub = scored(trajectory(0), trajectory(1, answer=None, violation=Violation.NO_ACTION), task=task)
    assert (sub.format, sub.correct_main, sub.total, sub.failed) == (0, 1, 0, False)
    assert main.total == pytest.approx(1.0)
    assert task.asked == ["correct"]


def test_undecided_correctness_takes_out_all_of_the_rollout_that_weigh_it() -> None:
    """A call with an invalid format too: by itself it would fill all slots of the rollout that the others have left."""
    invalid = trajectory(2, answer=None, violation=Violation.NO_ACTION)
    scores = scored(trajectory(0), trajectory(1), invalid, task=FakeTask(broken=["correct"]))
    assert [(score.failed, score.total) for score in scores] == [(True, 0), (True, 0), (True, 0)]


def test_undecided_correctness_spares_a_sub_that_does_not_weigh_it() -> None:
    roles = duo()
    roles["searcher"] = replace(roles["searcher"], reward=RewardConfig(format=0.1, expert=0.5))
    main, sub = scored(trajectory(0), trajectory(1), task=FakeTask(broken=["correct"]), roles=roles)
    assert main.failed
    assert not sub.failed
    assert sub.total == pytest.approx(0.35)


def test_an_undecided_invalid_main_is_decided() -> None:
    main, sub = scored(trajectory(0, violation=Violation.TEXT_AFTER), trajectory(1), task=FakeTask(broken=["correct"]))
    assert not main.failed
    assert not sub.failed


def test_a_main_that_the_engine_interrupted_is_undecided_and_so_are_the_subs_that_weigh_it() -> None:
    task, roles = FakeTask(), duo()
    main, sub = trajectory(0, answer=None, violation=Violation.INTERRUPTED), trajectory(1)
    rollout = Rollout(main, [sub])
    group = Group(question("Who?", "yes"), [rollout, Rollout(trajectory(0))])
    score_groups([group], task, roles)
    assert undecided(rollout)
    assert [score.failed for score in rollout.scores.values()] == [True, True]
    assert question_scores(group)["accuracy"] == 1, "only the other rollout was decided"
    roles["searcher"] = replace(roles["searcher"], reward=RewardConfig(format=0.1, expert=0.5))
    score_groups([group], task, roles)
    assert not rollout.scores[1].failed


def test_of_equals_one_valid_end_is_enough() -> None:
    equal = trajectory(1, answer="yes")
    equal.parent = None
    rollout = Rollout(trajectory(0, answer="yes", violation=Violation.INTERRUPTED), [equal])
    score_groups([Group(question("Who?", "yes"), [rollout])], FakeTask(), duo())
    assert not undecided(rollout)
    assert rollout.scores[1].correct == 1
    equal.violations = [Violation.NO_ACTION]
    score_groups([Group(question("Who?", "yes"), [rollout])], FakeTask(), duo())
    assert undecided(rollout)


def test_an_undecided_expert_takes_out_that_sub_only() -> None:
    def judge(played: Trajectory) -> float:
        if played.key.invocation == 1:
            raise ScoringError("the judge is ill.")
        return 1.0

    scores = scored(trajectory(0), trajectory(1), trajectory(2), task=FakeTask(judge=judge))
    assert [score.failed for score in scores] == [False, True, False]


def test_an_engine_failure_takes_the_sample_out() -> None:
    main, sub = scored(trajectory(0), trajectory(1, answer=None, violation=Violation.INTERRUPTED))
    assert (main.failed, sub.failed) == (False, True)


def test_a_trajectory_without_a_sampled_token_is_taken_out() -> None:
    empty = trajectory(1, answer=None, violation=Violation.CONTEXT_EXHAUSTED, actions=0)
    assert [score.failed for score in scored(trajectory(0), empty)] == [False, True]


def test_an_expert_that_no_role_weighs_is_not_asked_but_correctness_always_is() -> None:
    roles = {name: replace(role, reward=RewardConfig(format=1.0)) for name, role in duo().items()}
    task = FakeTask()
    main, sub = scored(trajectory(0), trajectory(1), task=task, roles=roles)
    assert task.asked == ["correct"]
    assert main == Score(format=1, correct=1, total=1)
    assert sub == Score(format=1, correct_main=1, total=1)


def test_correctness_that_is_no_reward_and_could_not_be_decided_is_not_taken_for_wrong() -> None:
    roles = {name: replace(role, reward=RewardConfig(format=1.0)) for name, role in duo().items()}
    rollout = Rollout(trajectory(0), [trajectory(1)])
    score_groups([Group(question("Who?", "yes"), [rollout])], FakeTask(broken=["correct"]), roles)
    assert undecided(rollout)
    assert rollout.scores[1] == Score(format=1, total=1)


def test_correctness_is_asked_once_a_rollout_even_if_only_subs_weigh_it() -> None:
    roles = duo()
    roles["main"] = replace(roles["main"], reward=RewardConfig(format=1.0))
    task = FakeTask()
    main, sub, _ = scored(trajectory(0), trajectory(1), trajectory(2), task=task, roles=roles)
    assert task.asked.count("correct") == 1
    assert (main.total, sub.correct_main) == (1, 1)


def test_bugs_in_a_task_are_not_hidden() -> None:
    def judge(played: Trajectory) -> float:
        raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        scored(trajectory(0), trajectory(1), task=FakeTask(judge=judge))


def test_a_notebook_whose_loop_is_running_can_score() -> None:
    async def cell() -> list[Score]:
        return scored(trajectory(0))

    assert asyncio.run(cell())[0].total == 1


class Returning(FakeTask):
    """A task whose scores are whatever it is given."""

    def __init__(self, score: object, method: str) -> None:
        super().__init__()
        self._score = score
        self._method = method

    async def correct(self, question: Question, answer: str | None) -> float:
        return cast("float", self._score) if self._method == "correct" else 1.0

    async def expert(self, question: Question, trajectory: Trajectory) -> float:
        return cast("float", self._score) if self._method == "expert" else 0.5


REAL = [
    *(kind(1) for kind in (int, float, bool, Fraction, Decimal, np.array, torch.tensor)),
    *(np.dtype(code).type(1) for code in "?bBhHiIlLqQefdg"),
    *(torch.tensor(1, dtype=kind) for kind in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16)),
    torch.ones(1, requires_grad=True),
]


@pytest.mark.parametrize("method", ["correct", "expert"])
@pytest.mark.parametrize("score", REAL, ids=lambda score: f"{type(score).__name__}-{getattr(score, 'dtype', '')}")
def test_scores_of_every_real_type_become_floats(score: object, method: str) -> None:
    for one in scored(trajectory(0), trajectory(1), task=Returning(score, method)):
        assert all(type(value) is float for value in (one.correct, one.correct_main, one.expert, one.total))
        assert one.correct in (0, 1)


NONE_OF_THEM: list[object] = [
    *(2.0, -0.1, math.inf, math.nan, Decimal("sNaN"), 10**400, None, "1", b"1", np.str_("1"), 1j, [], {}),
    *(np.complex64(1), np.ones(2), torch.ones(2), type),
]


@pytest.mark.parametrize("method", ["correct", "expert"])
@pytest.mark.parametrize("score", NONE_OF_THEM, ids=lambda score: f"{type(score).__name__}-{str(score)[:5]}")
def test_any_other_score_is_an_error_that_names_task_question_and_value(score: object, method: str) -> None:
    with pytest.raises(DataError, match=f"'{method}' of task Returning scored question 'id-Who.' with .*HINT") as error:
        scored(trajectory(0), trajectory(1), task=Returning(score, method))
    assert reprlib.repr(score)[:8] in str(error.value)
