from __future__ import annotations

from dataclasses import replace

import pytest

from mgrpo_lightning.algorithm.config import ObjectiveConfig
from mgrpo_lightning.callbacks.step_line import step_line, validation_line
from mgrpo_lightning.roles.config import RoleConfig
from tests.callbacks.fakes import ROLES, make_record

ROLE = ROLES["main"]
SUPERVISED = replace(ROLE, objective=ObjectiveConfig(kind="supervised"))


def test_a_step_shows_every_figure_of_every_role_in_order() -> None:
    metrics = {
        "searcher/trajectories": 117,
        "searcher/reward": 0.714,
        "searcher/reward_format": 0.99,
        "searcher/reward_correct_main": 0.55,
        "searcher/reward_expert": 0.8,
        "main/trajectories": 64,
        "main/reward": 0.62,
        "main/reward_format": 0.98,
        "main/reward_correct": 0.58,
        "main/format_rate": 0.98,
        "main/zero_advantage_groups": 0.25,
        "main/loss": 0.0,
        "delegations_per_rollout": 1.834,
        "tokens_per_rollout": 411.7,
        "call_failures": 3,
        "tool_failures": 0,
        "sampled_tokens": 12560,
        "seconds/play": 3.14,
        "seconds/idle": 0.5,
        "seconds/update": 1.2,
    }
    assert step_line(7, 36, metrics, ROLES) == (
        "step  7/36 | main: reward 0.62 (format 0.98, correct 0.58), valid 98%, zero-advantage 25% "
        "| searcher: reward 0.71 (format 0.99, main 0.55, expert 0.80) "
        "| 1.83 delegations a rollout, 412 tokens a rollout | 3 failed calls "
        "| 4,000 tokens/s, play 3.1 s (idle 0.5 s), update 1.2 s"
    )


def test_a_role_that_nobody_called_is_said_to_be_that_and_has_no_figures() -> None:
    metrics = {
        "main/trajectories": 4,
        "main/reward": 0.5,
        "searcher/trajectories": 0,
        "searcher/zero_advantage_groups": 0.0,
        "searcher/loss": 0.0,
    }
    assert step_line(1, None, metrics, ROLES) == "step 1 | main: reward 0.50 | searcher: not called"


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        (ROLE, "zero-advantage 100%"),
        (replace(ROLE, lag=1), "zero-advantage 100%, loss 1.250"),
        (replace(ROLE, queue=8), "zero-advantage 100%, loss 1.250"),
        (SUPERVISED, "loss 1.250"),
    ],
    ids=["on-policy", "lag", "queue", "supervised"],
)
def test_a_loss_is_shown_where_it_says_something(config: RoleConfig, shown: str) -> None:
    metrics = {"main/loss": 1.25, "main/zero_advantage_groups": 1.0}
    assert step_line(3, None, metrics, {"main": config}) == f"step 3 | main: {shown}"


def test_a_warm_start_has_no_speed_of_sampling() -> None:
    metrics = {"main/loss": 1.25, "seconds/play": 2.0, "seconds/update": 1.0}
    assert step_line(3, None, metrics, {"main": SUPERVISED}) == ("step 3 | main: loss 1.250 | play 2.0 s, update 1.0 s")


def test_a_reward_function_stands_after_the_components() -> None:
    metrics = {"main/reward": 0.5, "main/reward_std": 0.1, "main/reward_brevity": 0.25, "main/reward_correct": 1.0}
    assert step_line(7, None, metrics, {"main": ROLE}) == "step 7 | main: reward 0.50 (correct 1.00, brevity 0.25)"


def test_a_validation_run_leaves_out_roles_that_did_not_play() -> None:
    assert validation_line(make_record(12, 0.5)) == (
        "held out at step 12 | accuracy 25.0% of 300 (2 undecided) | exact match 50.0% | f1 0.500 | gaia 50.0% "
        "| format main 90% | 1.50 delegations a rollout, 412 tokens a rollout"
    )


def test_where_nothing_could_be_decided_the_task_s_score_is_a_dash() -> None:
    undecided = validation_line({**make_record(12, 0.5), "accuracy": None, "undecided": 0})
    assert undecided.startswith("held out at step 12 | accuracy - of 300 | exact match 50.0% |")


def test_failures_are_counted_where_there_are_any() -> None:
    names = ("call_failures", "tool_failures", "unscored", "wrong_demonstrations")
    assert step_line(3, None, dict.fromkeys(names, 0), {}) == "step 3"
    assert step_line(3, None, {name: count for count, name in enumerate(names, 1)}, {}) == (
        "step 3 | 1 failed calls, 2 broken tool calls, 3 trajectories without a score, 4 wrong demonstrations"
    )
