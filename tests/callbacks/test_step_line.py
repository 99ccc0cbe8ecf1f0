from __future__ import annotations

from mgrpo_lightning.callbacks.step_line import step_line, validation_line
from tests.callbacks.fakes import make_record


def test_a_step_shows_every_figure_of_every_role_in_order() -> None:
    metrics = {
        "searcher/reward": 0.714,
        "searcher/reward_format": 0.99,
        "searcher/reward_correct_main": 0.55,
        "searcher/reward_expert": 0.8,
        "main/reward": 0.62,
        "main/reward_format": 0.98,
        "main/reward_correct": 0.58,
        "main/format_rate": 0.98,
        "main/zero_advantage_groups": 0.25,
        "delegations_per_rollout": 1.834,
        "tokens_per_rollout": 411.7,
        "seconds/play": 3.14,
        "seconds/update": 1.2,
    }
    assert step_line(7, 36, metrics, ["main", "searcher"]) == (
        "step  7/36 | main 0.62 (format 0.98 correct 0.58) valid 98% zero-advantage 25% "
        "| searcher 0.71 (format 0.99 main 0.55 expert 0.80) | 1.83 delegations 412 tokens/rollout "
        "| play 3.1 s update 1.2 s"
    )


def test_a_reward_function_stands_after_the_components() -> None:
    metrics = {"main/reward": 0.5, "main/reward_std": 0.1, "main/reward_brevity": 0.25, "main/reward_correct": 1.0}
    assert step_line(7, None, metrics, ["main"]) == "step 7 | main 0.50 (correct 1.00 brevity 0.25)"


def test_a_supervised_step_shows_its_loss_and_nothing_it_lacks() -> None:
    assert step_line(3, None, {"main/loss": 1.25}, ["main", "searcher"]) == "step 3 | main loss 1.250"


def test_a_validation_run_leaves_out_roles_that_did_not_play() -> None:
    assert validation_line(make_record(12, 0.5)) == (
        "held out at step 12 | accuracy 25.0% of 300 | exact match 50.0% | f1 0.500 | gaia 50.0% | format main 90% "
        "| 1.50 delegations 412 tokens/rollout"
    )


def test_where_nothing_could_be_decided_the_task_s_score_is_a_dash() -> None:
    undecided = validation_line({**make_record(12, 0.5), "accuracy": None})
    assert undecided.startswith("held out at step 12 | accuracy - of 300 | exact match 50.0% |")


def test_tools_that_broke_down_are_counted_where_there_are_any() -> None:
    assert (
        step_line(3, None, {"delegations_per_rollout": 2, "tool_failures": 12}, [])
        == "step 3 | 2.00 delegations 12 tool failures"
    )
    assert step_line(3, None, {"delegations_per_rollout": 2, "tool_failures": 0}, []) == "step 3 | 2.00 delegations"
    assert step_line(3, None, {"wrong_demonstrations": 1}, []) == "step 3 | 1 wrong demonstrations"
