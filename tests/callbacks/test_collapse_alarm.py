from __future__ import annotations

import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.callbacks import CollapseAlarm, CollapseWarning
from mgrpo_lightning.errors import ConfigurationError
from mgrpo_lightning.records.trajectory import Group, Score
from tests.callbacks.fakes import ROLES, make_batch, make_groups

SPREAD = [[0.0, 1.0], [1.0, 0.0]]


def observe(alarm: CollapseAlarm, groups: list[Group], *, step: int = 0, roles: Any = ROLES) -> list[str]:
    """What the alarm says about one step."""
    trainer = SimpleNamespace(log_every_n_steps=1, loggers=[])
    module = cast(
        "Any",
        SimpleNamespace(roles=roles, local_roles=list(roles), log_dict=lambda *_, **__: None, trainer=trainer),
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alarm.on_train_batch_start(cast("Any", None), module, make_batch(step, groups), 0)
    assert all(issubclass(warning.category, CollapseWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


def test_a_healthy_team_is_left_in_peace() -> None:
    alarm = CollapseAlarm(window=2)
    assert [observe(alarm, make_groups(SPREAD), step=step) for step in range(6)] == [[]] * 6


def test_silence_of_most_rollouts_is_seen_though_the_rest_still_calls() -> None:
    """Delegation dies out rollout by rollout; a mean over those that still call would stay at 1 (correctness.md 27)."""
    alarm = CollapseAlarm(window=2, min_calls=0.2)
    groups = make_groups([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]], calls=0)
    groups[0].rollouts[0] = make_groups([[0.0]], calls=1)[0].rollouts[0]
    assert observe(alarm, groups, step=0) == []
    told = observe(alarm, groups, step=1)
    assert len(told) == 2
    assert told[0].startswith(
        "main/calls_per_rollout was 0.167 on average over the last 2 steps (at step 1), below 0.2"
    )
    assert told[1].startswith("searcher/calls_per_rollout")
    assert all("HINT:" in message for message in told)


def test_one_warning_an_episode_and_again_after_a_recovery() -> None:
    alarm = CollapseAlarm(window=2, min_calls=0.5)
    silent, talking = make_groups(SPREAD, calls=0), make_groups(SPREAD, calls=4)
    told = [
        len(observe(alarm, groups)) for groups in (silent, silent, silent, silent, talking, talking, silent, silent)
    ]
    assert told == [0, 2, 0, 0, 0, 0, 0, 2]


def test_a_single_bad_step_is_no_collapse() -> None:
    alarm = CollapseAlarm(window=3, min_calls=0.5)
    for groups in (make_groups(SPREAD), make_groups(SPREAD, calls=0), make_groups(SPREAD), make_groups(SPREAD)):
        assert observe(alarm, groups) == []


def test_invalid_formats_are_told_by_role() -> None:
    told = observe(CollapseAlarm(window=1), make_groups(SPREAD, valid=False))
    assert [message.split(" ", 1)[0] for message in told] == ["main/format_rate", "searcher/format_rate"]


def test_a_format_that_is_never_met_has_a_hint_of_its_own() -> None:
    valid, invalid = make_groups(SPREAD), make_groups(SPREAD, valid=False)
    for steps, hint in (([invalid] * 3, "without a valid format"), ([valid, invalid, invalid], "lower the learning")):
        alarm = CollapseAlarm(window=3)
        told = [observe(alarm, groups, step=step) for step, groups in enumerate(steps)]
        assert told[:2] == [[], []]
        assert f"HINT: {hint}" in told[2][0]


@pytest.mark.parametrize(("rewards", "alarmed"), [([[0.1, 0.1]], True), ([[0.1, 0.2]], False), ([[1.0, 1.0]], False)])
def test_no_spread_is_collapse_unless_the_reward_is_nearly_all_there_is(
    rewards: list[list[float]], alarmed: bool
) -> None:
    told = observe(CollapseAlarm(window=1), make_groups(rewards))
    assert [message.split(" ", 1)[0] for message in told] == ["main/reward_std", "searcher/reward_std"] * alarmed


def test_spread_is_that_within_groups_not_between_them() -> None:
    assert len(observe(CollapseAlarm(window=1), make_groups([[0.0, 0.0], [1.0, 1.0]]))) == 2


def test_failed_scores_take_no_part_in_the_spread() -> None:
    groups = make_groups([[0.1, 0.1, 1.0]], calls=0)
    groups[0].rollouts[2].scores[0] = Score(format=1.0, total=1.0, failed=True)
    told = observe(CollapseAlarm(window=1, min_calls=0.0), groups)
    assert [message.split(" ", 1)[0] for message in told] == ["main/reward_std"]


@pytest.mark.parametrize(
    "change", [{"trainable": False}, {"objective": ObjectiveConfig(kind="supervised")}], ids=["frozen", "supervised"]
)
def test_roles_that_do_not_explore_need_no_spread(change: dict[str, Any]) -> None:
    roles = {name: replace(config, **change) for name, config in ROLES.items()}
    assert observe(CollapseAlarm(window=1), make_groups([[0.1, 0.1]]), roles=roles) == []


def test_roles_that_may_call_nothing_need_no_calls() -> None:
    roles = {"main": replace(ROLES["main"], calls=[])}
    assert observe(CollapseAlarm(window=1), make_groups(SPREAD, calls=0), roles=roles) == []


def test_a_resumed_run_goes_on_with_the_window_and_the_episode() -> None:
    silent = make_groups(SPREAD, calls=0)
    first, second, third = (CollapseAlarm(window=2) for _ in range(3))
    assert observe(first, silent) == []
    second.load_state_dict(first.state_dict())
    assert len(observe(second, silent)) == 2
    third.load_state_dict(second.state_dict())
    assert observe(third, silent) == []


def test_an_empty_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="window is 0"):
        CollapseAlarm(window=0)
