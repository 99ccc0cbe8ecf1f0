"""A team with two kinds of specialists: one finds values, one says whose is larger; each has a d of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mgrpo_lightning.agents.play import PlayRequest, PlayResult
from mgrpo_lightning.agents.scoring import score_groups
from mgrpo_lightning.algorithm.alignment import AlignmentConfig
from mgrpo_lightning.algorithm.config import RewardConfig
from mgrpo_lightning.data.step_batches import StepBatches
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.trajectory import Group
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from mgrpo_lightning.tasks import Factbook
from mgrpo_lightning.tasks.factbook.comparing import comparison_subtask, parse_comparison, with_more
from mgrpo_lightning.tools.base import wanted_tools
from tests.agents.fakes import make_team

LIMITS = LimitsConfig(turns=6, new_tokens=400, calls=6, context=20_000, observation=400)
SUB = RewardConfig(format=0.1, correct_main=0.4, expert=0.5)
ROLES = {
    "main": RoleConfig("fake", calls=["searcher", "comparer"], limits=LIMITS, reward=RewardConfig(0.1, correct=0.9)),
    "searcher": RoleConfig("fake", tools=["search", "visit"], limits=LIMITS, reward=SUB),
    "comparer": RoleConfig(
        "fake", tools=["mgrpo_lightning.tools.quantities.larger"], limits=LIMITS, reward=SUB, slots=1
    ),
}


@pytest.fixture(scope="module")
def task() -> Factbook:
    return Factbook(hops=[], comparisons=True, max_questions=40)


@pytest.fixture(scope="module")
def groups(task: Factbook) -> list[Group]:
    team, _ = make_team(ROLES, {}, tools=wanted_tools(ROLES, task.tools()))
    found = team.play(PlayRequest(task.questions("test"), step=0, rollouts=2, script=task.script)).groups
    score_groups(found, task, ROLES)
    return found


def test_every_specialist_does_its_part_and_is_judged_by_it(groups: list[Group]) -> None:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    right = [rollout for rollout in rollouts if rollout.scores[0].correct]
    assert len(right) > 0.9 * len(rollouts)
    for rollout in right:
        assert [sub.role for sub in rollout.subs] == ["searcher", "searcher", "comparer"]
        assert [rollout.scores[i].expert for i in (1, 2, 3)] == [1.0] * 3
        assert [call.name for call in rollout.subs[2].calls] == ["larger"]


def test_each_role_aligns_to_its_own_number_of_slots(task: Factbook, groups: list[Group]) -> None:
    module = cast("Any", SimpleNamespace(roles=ROLES, trained_roles=list(ROLES), device="cpu", begin=lambda due: None))
    called_both = [group for group in groups if all(len(rollout.subs) == 3 for rollout in group.rollouts)][:5]

    source = cast("Any", SimpleNamespace(play=lambda *_: PlayResult(called_both)))
    alignment = AlignmentConfig("duplicate_drop", slots=8)
    batches = StepBatches(module, source, lambda step: [], alignment=alignment, agreement=None, seed=0)
    batch = batches.batch(0)

    def shares(role: str) -> list[float]:
        rows = batch.roles[role].rows
        return [row.coefficient * len(called_both) * 2 for row in rows]

    assert shares("comparer") == [1.0] * 10, "one slot, one call: a whole rollout each"
    halves = shares("searcher")
    assert sum(halves) == pytest.approx(10)
    assert {round(share * 8) for share in halves} - {4}, "eight slots, two calls: duplicated at random"


def test_a_comparison_is_worded_and_read_back() -> None:
    values = {"Timor-Leste": "15,007 sq km", "Bosnia and Herzegovina": "51,197 sq km"}
    asked = comparison_subtask(values)
    assert asked == "Which is more: Timor-Leste 15,007 sq km or Bosnia and Herzegovina 51,197 sq km?"
    assert parse_comparison(asked) == values
    assert with_more(values) == "Bosnia and Herzegovina"
    assert with_more({"A": "3 m", "B": "3 km"}) is None
    assert with_more({"A": "3 m", "B": "3 m"}) is None
    assert parse_comparison("area of France") is None
    assert parse_comparison("Which is more: France 3 or France 4?") is None


def test_a_number_of_slots_below_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="slots is 0"):
        RoleConfig("fake", slots=0)
