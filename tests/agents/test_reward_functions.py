"""Reward functions of the user: what they are given, what they may return, and what an undecided one means."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mgrpo_lightning.agents.reward_functions import load_functions
from mgrpo_lightning.agents.scoring import question_scores, score_groups, undecided
from mgrpo_lightning.algorithm.config import RewardConfig, RewardFunction
from mgrpo_lightning.errors import ConfigurationError, DataError
from mgrpo_lightning.protocol.actions import Violation
from mgrpo_lightning.records.trajectory import Call, Group, Key, Message, Rollout, Segment, Span, Trajectory
from mgrpo_lightning.roles.config import LimitsConfig, RoleConfig
from tests.agents.fakes import FakeTask, duo, question
from tests.support import rewards

PATH = "tests.support.rewards"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    rewards.CALLED.clear()
    rewards.RETURNED["value"] = 0.5


def trajectory(invocation: int, answer: str | None = "yes", violation: str = "") -> Trajectory:
    played = Trajectory("searcher" if invocation else "main", Key(0, 0, 0, invocation), "task", answer=answer)
    played.parent = 0 if invocation else None
    played.violations = [violation] if violation else []
    played.segments = [Segment([Span("observation", (1,)), Span("action", (2,), (-0.5,))])]
    return played


def team(role: str, **functions: float) -> dict[str, RoleConfig]:
    """The duo, one of whose roles weighs functions of ``tests/support/rewards.py``."""
    roles = duo()
    blocks = {name: RewardFunction(f"{PATH}.{name}", weight) for name, weight in functions.items()}
    reward = replace(roles[role].weights, functions=blocks)
    return {**roles, role: replace(roles[role], reward=reward, limits=LimitsConfig(tool_seconds=0.3))}


def scored(roles: dict[str, RoleConfig], *played: Trajectory, task: FakeTask | None = None) -> Rollout:
    rollout = Rollout(played[0], list(played[1:]))
    score_groups([Group(question("Who?", "yes"), [rollout])], task or FakeTask(), roles)
    return rollout


def test_values_are_weighed_beside_the_components() -> None:
    scores = scored(team("main", brevity=0.3, given=2.0), trajectory(0), trajectory(1)).scores
    assert scores[0].functions == {"brevity": 0.25, "given": 0.5}
    assert scores[0].total == pytest.approx(0.1 + 0.9 + 0.3 * 0.25 + 2.0 * 0.5)
    assert scores[1].functions == {}
    assert [scores[0].part(name) for name in ("correct", "brevity", "other")] == [1.0, 0.25, None]


def test_a_function_is_not_called_for_an_invalid_format_or_without_a_weight() -> None:
    roles = team("main", few_calls=0.5, drifting=0.0)
    score = scored(roles, trajectory(0, None, Violation.NO_ACTION)).scores[0]
    assert rewards.CALLED == []
    assert (score.functions, score.total, score.failed) == ({"few_calls": 0.0}, 0.0, False)
    assert scored(roles, trajectory(0)).scores[0].functions == {"few_calls": 1.0}
    assert rewards.CALLED == [("id-Who?", "main")]


def test_a_function_gets_a_copy_and_cannot_change_the_record() -> None:
    played = trajectory(0)
    played.messages = [Message("user", "Who?")]
    played.calls = [Call(0, "search", {"query": "a"}, "page")]
    score = scored(team("main", few_calls=1.0), played).scores[0]
    assert score.functions == {"few_calls": 0.5}
    assert played.calls == [Call(0, "search", {"query": "a"}, "page")]
    assert (len(played.messages), len(played.segments), played.num_actions) == (1, 1, 1)


@pytest.mark.parametrize("value", [1, True, np.float32(0.25), torch.tensor(0.75), 0])
def test_a_real_number_becomes_a_float(value: Any) -> None:
    rewards.RETURNED["value"] = value
    found = scored(team("main", given=1.0), trajectory(0)).scores[0].functions["given"]
    assert type(found) is float
    assert found == float(value)


@pytest.mark.parametrize("value", [2.0, -0.1, math.nan, None, "1", [1.0], np.ones(2)])
def test_anything_else_is_an_error_with_task_role_question_and_value(value: Any) -> None:
    rewards.RETURNED["value"] = value
    message = r"^reward function 'given' of role 'searcher' in task FakeTask scored question 'id-Who\?' with .*HINT"
    with pytest.raises(DataError, match=message) as error:
        scored(team("searcher", given=1.0), trajectory(0), trajectory(1))
    assert str(value)[:3] in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"failed on question 'id-Who\?': KeyError: 'a bug' \(.*rewards\.py, line \d+\)\..*HINT"),
        ("leaving", r"failed on question 'id-Who\?': SystemExit: 3 \(.*rewards\.py, line \d+\)\..*HINT"),
        ("slow", r"took longer than 0\.3 s on question 'id-Who\?'\..*HINT: .*limits\.tool_seconds"),
    ],
)
def test_a_function_that_raises_or_hangs_ends_the_run_by_name(name: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^reward function '{name}' of role 'main' in task FakeTask {message}"):
        scored(team("main", **{name: 1.0}), trajectory(0))


def test_an_undecided_function_takes_its_trajectory_out_and_no_other() -> None:
    rollout = scored(team("searcher", undecided=0.1, brevity=0.1), trajectory(0), trajectory(1))
    assert [score.failed for score in rollout.scores.values()] == [False, True]
    assert rollout.scores[1].functions == {"brevity": 0.25, "undecided": None}


def test_an_undecided_function_of_main_leaves_its_correctness_decided() -> None:
    rollout = scored(team("main", undecided=0.1), trajectory(0), trajectory(1))
    assert [(score.failed, score.total) for score in rollout.scores.values()] == [(True, 0.0), (False, 0.75)]
    assert not undecided(rollout)
    assert question_scores(Group(question("Who?", "yes"), [rollout]))["accuracy"] == 1.0
    both = scored(team("main", undecided=0.1), trajectory(0), task=FakeTask(broken=["correct"]))
    assert undecided(both)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("tests.support.rewards.nowhere", "which cannot be imported: AttributeError: .*nowhere"),
        ("no_such_module.brevity", "which cannot be imported: ModuleNotFoundError"),
        ("brevity", "which cannot be imported: ValueError"),
        ("tests.support.rewards.CALLED", "which is a list, not a function"),
        ("tests.support.rewards.of_two", "which needs the argument 'reference'"),
    ],
)
def test_a_path_that_is_no_reward_function_is_refused_by_its_key(path: str, problem: str) -> None:
    role = replace(duo()["main"], reward=RewardConfig(functions={"mine": RewardFunction(path, 0.5)}))
    place = "model.roles.main.reward"
    message = rf"^{place}\.functions\.mine\.function is '{path}', {problem}.*HINT: .*question, answer, trajectory"
    with pytest.raises(ConfigurationError, match=message):
        load_functions(place, role)
    off = RewardConfig(functions={"mine": RewardFunction(path, 0.0)})
    load_functions(place, replace(role, reward=off))


@pytest.mark.parametrize("name", ["correct", "format", "std", "total", "class_path", "a.b", "", "1st"])
def test_a_name_with_another_meaning_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"a reward function is called '{name}'.*HINT"):
        RewardConfig(functions={name: RewardFunction("mine.f", 0.5)})


def test_the_functions_of_the_guide_are_computed(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (root / "docs" / "guides" / "reward.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(# my_rewards.py.*?)```", guide, re.DOTALL)
    (block,) = (block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "functions" in block)
    (tmp_path / "my_rewards.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    given = yaml.safe_load(block)["reward"]
    functions = {name: RewardFunction(**one) for name, one in given.pop("functions").items()}
    roles = duo()
    roles["main"] = replace(roles["main"], reward=RewardConfig(**given, functions=functions))
    played = trajectory(0)
    played.calls = [Call(0, "search", {"query": "a"}, "page"), Call(1, "search", {"query": "a"}, "page")]
    score = scored(roles, played).scores[0]
    assert score.functions == {"brevity": pytest.approx(1 / 1.03), "calls": 0.5}
    assert score.total == pytest.approx(0.1 + 0.6 + 0.2 / 1.03 + 0.1 * 0.5)
